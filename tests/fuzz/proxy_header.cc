// PROXY headers: a header is known by its bytes alone. Whatever follows changes nothing, every part of it is
// not enough, and nothing is read beyond the bytes that are there.
#include "codec/proxy_header.h"

#include <cstring>
#include <memory>

#include "verdict.h"

namespace {

using namespace penstock;

struct Result {
    ProxyStep step;
    ProxyHeader header;
    size_t consumed = 0;
};

Result read(std::string_view bytes) {
    std::unique_ptr<char[]> copy(new char[bytes.size()]);
    std::memcpy(copy.get(), bytes.data(), bytes.size());
    Result out;
    out.step = read_proxy_header({copy.get(), bytes.size()}, out.header, out.consumed);
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using penstock::fuzz::expect_empty;
    std::string_view bytes(reinterpret_cast<const char*>(data), size);
    Result whole = read(bytes);
    size_t decided = bytes.size();
    for (size_t part = 0; part < bytes.size(); ++part)
        if (read(bytes.substr(0, part)).step != ProxyStep::need_more) {
            decided = part;
            break;
        }
    Result first = read(bytes.substr(0, decided));
    if (whole.step != first.step || whole.consumed != first.consumed ||
        whole.header.client != first.header.client || whole.header.port != first.header.port ||
        whole.header.tells_client != first.header.tells_client)
        expect_empty("what follows changes the answer", bytes);
    if (whole.step == ProxyStep::complete && whole.consumed != decided)
        expect_empty("it was known before its end", bytes);
    if (whole.step != ProxyStep::complete && (whole.consumed || whole.header.tells_client))
        expect_empty("something is told of what is no header", bytes);
    if (whole.header.tells_client &&
        (whole.header.client.empty() ||
         whole.header.client.find_first_not_of("0123456789abcdef.:") != std::string::npos))
        expect_empty("that is no address", bytes);
    return 0;
}
