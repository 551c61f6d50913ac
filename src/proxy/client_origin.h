// A ClientOrigin is where a client's connection comes from, as its requests will say it: the address it is
// known by (the socket's, or the one that a PROXY header told), the port it came to, and how. It goes with
// the connection from one session to the next; the ClientInfo of an exchange points into it.
#pragma once

#include <charconv>
#include <cstdint>
#include <iterator>
#include <string>

#include "proxy/exchange.h"

namespace penstock {

struct ClientOrigin {
    std::string address;        // without port; empty for a unix socket
    uint16_t listener = 0;      // its place in `listen`
    bool trusted : 1 = false;   // one of trusted_proxies
    bool secure : 1 = false;    // by TLS
    uint8_t port_size : 3 = 0;  // 0 for a unix socket
    char port[5];

    void set_port(uint16_t number) {
        port_size = number ? static_cast<uint8_t>(std::to_chars(port, std::end(port), number).ptr - port)
                           : uint8_t{0};
    }
    ClientInfo info() const { return {address, {port, port_size}, trusted, secure}; }
};

}  // namespace penstock
