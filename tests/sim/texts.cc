#include "texts.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "facts.h"

namespace penstock::sim {

namespace {

Field room[16];

void expect(ReadStep step, std::string_view text) {
    if (step == ReadStep::complete) return;
    std::fprintf(stderr, "sim: its own text is not read:\n%.*s", static_cast<int>(text.size()), text.data());
    std::abort();
}

}  // namespace

ParsedRequest parse_request(std::string_view text) {
    H1RequestReader reader;
    ParsedRequest out;
    expect(reader.read(text, {}, room, out.head), text);
    out.framing = reader.framing();
    return out;
}

ParsedResponse parse_response(std::string_view text, const Asked& asked) {
    H1ResponseReader reader;
    ParsedResponse out;
    expect(reader.read(text, {}, asked, room, out.head), text);
    out.framing = reader.framing();
    return out;
}

uint32_t number_of(const Head& request) {
    std::string_view target = request.target();
    uint32_t number = 0;
    std::from_chars(target.data() + target.rfind('/') + 1, target.data() + target.size(), number);
    return number;
}

const char* pattern(uint32_t number, uint64_t position) {
    constexpr size_t period = 251;
    static const auto* bytes = [] {
        static char made[period + longest_run];
        for (size_t i = 0; i < sizeof made; ++i) made[i] = static_cast<char>(i % period);
        return made;
    }();
    return bytes + (number * 31ULL + position) % period;
}

}  // namespace penstock::sim
