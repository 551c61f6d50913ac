// An Address is where to listen or connect: IPv4, IPv6, a unix socket, or a host name still to be
// resolved. A Network is a block of IP addresses, as in 10.0.0.0/8. Both are plain values; nothing here
// resolves or opens anything.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace penstock {

struct Address {
    enum class Kind : uint8_t { tcp4, tcp6, unix, name };

    Kind kind = Kind::tcp4;
    std::string host;   // without brackets; empty for unix
    uint16_t port = 0;  // 0: the kernel chooses one (listeners only)
    std::string path;   // of unix; a leading '@' means the abstract namespace
    std::string text;   // canonical, as one writes it: 127.0.0.1:80, [::1]:80, unix:/run/a.sock, name:80

    friend bool operator==(const Address& a, const Address& b) { return a.text == b.text; }
};

// HOST:PORT, [V6]:PORT or unix:/PATH. The error says what would be right.
Result<Address> parse_address(std::string_view text);

struct Network {
    std::array<uint8_t, 16> ip{};  // IPv4 stands as ::ffff:a.b.c.d; bits beyond `bits` are zero
    uint8_t bits = 128;            // of the 16 bytes: 10.0.0.0/8 has 104
    std::string text;

    // `address` is what accept() reported, in the same form.
    bool contains(const std::array<uint8_t, 16>& address) const;

    friend bool operator==(const Network& a, const Network& b) { return a.ip == b.ip && a.bits == b.bits; }
};

// An IP address, alone or with /BITS.
Result<Network> parse_network(std::string_view text);

}  // namespace penstock
