#include "config/problem.h"

#include <algorithm>
#include <fmt/format.h>

namespace penstock {

namespace {

// It goes to a terminal, and parts of it come from a file.
std::string printable(std::string_view text) {
    std::string out;
    for (char c : text) {
        auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) {
            out += fmt::format("\\x{:02x}", byte);
        } else {
            out += c;
        }
    }
    return out;
}

}  // namespace

std::string Problem::text() const {
    std::string out = file;
    if (place.line) out += fmt::format("{}{}:{}", out.empty() ? "" : ":", place.line, place.column);
    if (!path.empty()) out += fmt::format("{}{}", out.empty() ? "" : ": ", path);
    return printable(fmt::format("{}{}{}", out, out.empty() ? "" : ": ", message));
}

Place Places::of(std::string_view path) const {
    while (true) {
        auto found = places_.find(path);
        if (found != places_.end()) return found->second;
        if (path.empty()) return {};
        size_t cut = path.find_last_of(".[");
        path = cut == path.npos ? std::string_view{} : path.substr(0, cut);
    }
}

Problem Places::problem(std::string path, std::string message) const {
    Place place = of(path);
    return Problem{file_, place, std::move(path), std::move(message)};
}

void sort_by_place(std::vector<Problem>& problems) {
    std::stable_sort(problems.begin(), problems.end(),
                     [](const Problem& a, const Problem& b) { return a.place < b.place; });
}

}  // namespace penstock
