// Our reader against llhttp, requests and responses by the first byte.
#include "oracle.h"
#include "verdict.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace penstock;
    using namespace penstock::fuzz;
    if (size < 1) return 0;
    std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    constexpr Method asked[] = {Method::get, Method::head, Method::connect, Method::post};
    Stream stream{.responses = (data[0] & 1) != 0,
                  .asked = {asked[data[0] >> 1 & 3], true},
                  .closed = (data[0] & 8) != 0};
    expect_empty(disagreement(bytes, stream), bytes);
    return 0;
}
