// The header of the PROXY protocol, versions 1 and 2, which says before the first byte of the client whose
// connection this is. Strict: who is believed here is believed in logs, limits and trust, so what is not to
// the letter is refused. Pure; reads from the beginning each time, which is cheap: it comes in one piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

struct ProxyHeader {
    // False: the proxy speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC), or the client is not on
    // TCP over IP. The connection's own address counts.
    bool tells_client = false;
    std::string client;  // an IP address, as base/address writes it
    uint16_t port = 0;   // of ours that the client came to
};

enum class ProxyStep : uint8_t { need_more, complete, failed };

constexpr size_t most_proxy_header =
    16 * 1024 - 256;  // of version 2, with everything added to it; fits a chunk

// complete: `consumed` bytes were the header. Extensions (TLVs) are passed over.
ProxyStep read_proxy_header(std::string_view bytes, ProxyHeader& out, size_t& consumed);

}  // namespace penstock
