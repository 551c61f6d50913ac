// Responses to any request: the same answer at every split, and no read beyond the bytes that are there.
#include "oracle.h"
#include "verdict.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace penstock;
    using namespace penstock::fuzz;
    if (size < 2) return 0;
    std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
    constexpr Method asked[] = {Method::get, Method::head, Method::connect, Method::post};
    Stream stream{
        .responses = true, .asked = {asked[data[0] & 3], (data[0] & 4) != 0}, .closed = (data[0] & 8) != 0};
    expect_empty(split_dependence(bytes, stream, data[1]), bytes);
    return 0;
}
