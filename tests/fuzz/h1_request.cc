// Requests: the same answer at every split, and no read beyond the bytes that are there.
#include "oracle.h"
#include "verdict.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace penstock::fuzz;
    if (size < 1) return 0;
    std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    expect_empty(split_dependence(bytes, {}, data[0]), bytes);
    return 0;
}
