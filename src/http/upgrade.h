// Upgrade: which requests may leave HTTP, and to what. Only websocket and other single tokens that are not
// HTTP itself are forwarded; h2c never is: behind a tunnel we could not see its requests, and no rule, limit
// or slot would hold for them (h2c smuggling). A request with a body is never upgraded, nor one of HTTP/1.0.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/head.h"
#include "http/rules.h"

namespace penstock {

// Connection names upgrade, Upgrade names exactly one protocol that we may forward.
bool wants_upgrade(const Head& request);
// The protocol of a head's one Upgrade field, without its version; empty where there is none or more than
// one.
std::string_view upgrade_protocol(const Head& head);
// A 101 is legal when it names the protocol that the request asked for.
bool accepts_upgrade(const Head& request, const Head& response);
// Extended CONNECT (RFC 8441), how HTTP/2 asks for a WebSocket, as the Upgrade request that says the same.
// Its Sec-WebSocket-Key, which HTTP/2 has none of, is made of `random`. Nothing but a tunnel answers it:
// framing.tunnel.
Rule upgrade_of_connect(const Head& connect, std::string_view protocol, const uint64_t (&random)[2],
                        Arena& arena, Head& upgrade, Framing& framing);
bool is_forbidden_protocol(std::string_view token);  // h2c, h2, http, tls: any letter case

}  // namespace penstock
