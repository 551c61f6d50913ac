// Why a message failed, or a request was refused. One closed list: proxy/reply has one table from here to
// status, reason and words; nothing else maps a failure to an answer.
#pragma once

#include <cstdint>

namespace penstock {

enum class Cause : uint8_t {
    none,
    // the client's doing
    bad_request,     // with a Rule
    body_too_large,  // longer than limits.body
    header_timeout,  // the head did not come in time
    body_timeout,    // the body stopped coming while no slot was held
    client_stall,    // a slot waited too long for its client
    client_gone,     // hung up or reset: nobody is left to answer
    write_timeout,   // the client takes no bytes
    // ours, before a backend saw anything
    no_route,
    rate_limited,  // by a limit of a key
    queue_full,
    queue_timeout,
    circuit_open,
    no_backend,
    memory_full,
    draining,
    internal_error,
    // the backend's
    connect_failure,
    backend_reset,  // ended before its answer was whole
    bad_response,   // no HTTP, or not what was asked for
    first_byte_timeout,
    per_try_timeout,
    idle_timeout,
    request_timeout,  // the whole took too long; where it was is in the log's step
    error_status,     // an answer that was dropped, and its request sent again: never what a client is told
};

// Nothing of the request can have reached a backend.
inline bool is_refusal(Cause cause) { return cause >= Cause::no_route && cause <= Cause::internal_error; }

}  // namespace penstock
