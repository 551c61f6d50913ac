// Chunked bodies with small limits: the same answer at every split, data never longer than the limit, and
// never more consumed than there is. First byte: the limits; second: the splits.
#include <cstring>
#include <memory>

#include "oracle.h"
#include "verdict.h"

namespace {

using namespace penstock;

struct Result {
    Rule rule = Rule::ok;
    bool complete = false;
    size_t consumed = 0;
    std::string data;
    uint32_t trailers = 0;
};

Result read(std::string_view bytes, const H1Limits& limits, size_t step) {
    Result result;
    H1BodyReader reader;
    reader.start(BodyKind::chunked, 0);
    size_t have = 0;
    bool in_trailers = false;
    for (;;) {
        size_t size = have - result.consumed;
        std::unique_ptr<char[]> copy(new char[size]);
        std::memcpy(copy.get(), bytes.data() + result.consumed, size);
        std::string_view window(copy.get(), size);
        Head trailers;
        Field room[8];
        BodyRead read =
            in_trailers ? reader.read_trailers(window, limits, room, trailers) : reader.read(window, limits);
        if (read.consumed > size || result.data.size() > limits.body_bytes) __builtin_trap();
        result.consumed += read.consumed;
        result.data.append(read.data);
        if (read.step == BodyStep::failed) {
            result.rule = reader.rule();
            return result;
        }
        if (read.step == BodyStep::complete) {
            result.complete = true;
            result.trailers = trailers.field_count;
            return result;
        }
        in_trailers |= read.step == BodyStep::trailers;
        if (read.step != BodyStep::need_more) continue;
        if (have == bytes.size()) return result;
        have += std::min(step, bytes.size() - have);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
    H1Limits limits;
    limits.body_bytes = data[0] & 1 ? 100 : UINT64_MAX;
    limits.chunk_line_bytes = data[0] & 2 ? 16 : 256;
    limits.chunk_extension_bytes = data[0] & 4 ? 20 : 16384;
    limits.trailer_bytes = data[0] & 8 ? 40 : 8192;
    Result whole = read(bytes, limits, SIZE_MAX);
    for (size_t step : {size_t(1), size_t(2 + data[1])}) {
        Result split = read(bytes, limits, step);
        bool same = split.rule == whole.rule && split.complete == whole.complete &&
                    split.data == whole.data && split.trailers == whole.trailers &&
                    (!whole.complete || split.consumed == whole.consumed);
        fuzz::expect_empty(same ? "" : "split at " + std::to_string(step), bytes);
    }
    return 0;
}
