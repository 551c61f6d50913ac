// Upgrade: which requests may leave HTTP, and to what. Only websocket and other single tokens that are not
// HTTP itself are forwarded; h2c never is: behind a tunnel we could not see its requests, and no rule, limit
// or slot would hold for them (h2c smuggling). A request with a body is never upgraded, nor one of HTTP/1.0.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/head.h"

namespace penstock {

// Connection names upgrade, Upgrade names exactly one protocol that we may forward.
bool wants_upgrade(const Head& request);
// The protocol of a head's one Upgrade field, without its version; empty where there is none or more than
// one.
std::string_view upgrade_protocol(const Head& head);
// A 101 is legal when it names the protocol that the request asked for.
bool accepts_upgrade(const Head& request, const Head& response);
bool is_forbidden_protocol(std::string_view token);  // h2c, h2, http, tls: any letter case

}  // namespace penstock
