// May a request whose try failed be sent again? A pure verdict on plain facts.
//
// The rule that stands above all settings: never after a byte of an answer came or anything (a 1xx too) was
// passed on to the client, and never without the whole request. What may have reached a worker is only
// repeated where that is safe: the method is idempotent, or the settings say that this POST is.
#pragma once

#include <cstdint>

namespace penstock {

struct RetryRules {
    uint32_t attempts = 1;  // after the first one
    bool on_connect_failure = true;
    bool on_reset_before_response = true;
    bool idempotent = false;   // a POST may be sent again too
    double budget = 0.2;       // of the requests in flight, but never fewer than least_retries
    uint32_t max_retries = 3;  // at once, in the upstream; 0: no limit
};

// A try that failed, and what went before.
struct FailedTry {
    enum class Why : uint8_t { connect_failure, reset, other };  // other: rubbish, a timeout, ours
    Why why = Why::other;
    bool request_begun = false;      // a byte of the request may have left
    bool answer_begun = false;       // a byte of the answer has come
    bool passed_on = false;          // anything was passed on to the client
    bool reused = false;             // the connection had served before
    bool replayable = false;         // all of the request is still here
    bool idempotent_method = false;  // by its method
    uint32_t attempts = 0;           // retries before this, of those that count
    bool was_stale = false;          // one of them was after a stale connection, and does not count
};

enum class RetryVerdict : uint8_t {
    no,
    again,  // an attempt: on another backend, where there is one
    fresh,  // the pooled connection was stale: once, on a new one, wherever; no attempt
    spent,  // it could be sent again, but max_retries or the budget says no
};

// `retries` and `in_flight`: of the upstream at this moment; what waits counts as in flight.
RetryVerdict judge_retry(const RetryRules&, const FailedTry&, uint32_t retries, uint32_t in_flight);

// Below this many at once the budget does not bind: a fifth of a handful is none.
constexpr uint32_t least_retries = 3;

}  // namespace penstock
