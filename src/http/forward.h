// Shapes a head for the next hop. Order matters and is the caller's: first the drop_ functions, which flag
// what came from outside, then forwarding_fields(), whose lines the writer adds behind. So nobody can remove
// or forge what we add by naming it in Connection or by sending it first. All of it is idempotent: a retry
// may run it again.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/head.h"

namespace penstock {

// Flags what is for this hop only (RFC 9110 7.6.1): Connection and all that it names, Keep-Alive,
// Proxy-Connection, Transfer-Encoding, TE but for its word "trailers", Upgrade unless `keep_upgrade`,
// HTTP2-Settings, Proxy-Authenticate and -Authorization; and what no client may say: Proxy (httpoxy),
// x-penstock-*, and names with '_' or '.' that alias a name this proxy makes or trusts. Connection cannot
// remove host, content-length or forwarding fields: a request without them would mean something else.
void drop_request_hop(Head& head, bool keep_upgrade);
void drop_response_hop(Head& head, bool keep_upgrade);
// Trailers: what Connection of their head names, and hop-by-hop names.
void drop_trailer_hop(Head& trailers, const Head& head);

// What is known about the client. Texts only: who is trusted was decided before.
struct ClientFacts {
    std::string_view connected = {};  // the other end of the connection, without port; empty for unix
    std::string_view address = {};    // what client_address() made of it
    std::string_view scheme = "http";
    std::string_view port = {};  // of ours that it came to
    bool trusted = false;  // `connected` is a trusted proxy: its forwarding fields are believed and extended
};

// Untrusted: X-Forwarded-*, Forwarded and X-Real-IP that it sent are dropped, and ours say what we know.
// Trusted: X-Forwarded-For and Forwarded are extended, the others kept where they are sane, else made.
// Forwarded is never begun by us. Reads dropped fields too, so that a second run finds what the first one
// replaced. Writes at most max_forwarding_fields lines into `out` and returns how many; their texts live in
// the arena.
constexpr size_t max_forwarding_fields = 6;
size_t forwarding_fields(Head& head, const ClientFacts& client, Arena& arena, FieldLine* out);

// Who the client is: counted from the right over X-Forwarded-For, the first address that is not trusted (the
// last one read, where all are). `connected` where that one is not trusted, or nothing sane stands there. At
// most 64 hops are read. The result points into the head or is `connected`.
using Trusts = bool (*)(const void* with, std::string_view address);
std::string_view client_address(const Head& head, std::string_view connected, Trusts trusts,
                                const void* with);

}  // namespace penstock
