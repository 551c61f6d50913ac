// May a request whose try failed be sent again? A pure verdict on plain facts.
//
// The rule that stands above all settings: never after anything (a 1xx too) was passed on to the client, and
// never without the whole request. What may have reached a worker is only repeated where that is safe: the
// method is idempotent, or the settings say that this POST is.
//
// Not every repetition is a retry. What never reached a backend goes back to its place in the queue, and a
// pooled connection that was closed as we used it is replaced once: neither counts as an attempt, and no
// limit binds them.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>

#include "base/time.h"

namespace penstock {

// Statuses of an answer after which a request may be tried again: 400 to 599.
class RetriableStatuses {
  public:
    void add(unsigned status) {
        if (is_known(status)) set_.set(status - first);
    }
    bool has(unsigned status) const { return is_known(status) && set_.test(status - first); }
    bool empty() const { return set_.none(); }
    bool operator==(const RetriableStatuses&) const = default;

  private:
    static constexpr unsigned first = 400, end = 600;
    static bool is_known(unsigned status) { return status >= first && status < end; }
    std::bitset<end - first> set_;
};

struct RetryRules {
    uint32_t attempts = 1;  // after the first one
    bool on_connect_failure = true;
    bool on_reset_before_response = true;
    RetriableStatuses on_status{};
    bool idempotent = false;   // a POST may be sent again too
    double budget = 0.2;       // of the requests at work and of those answered in the last minute
    uint32_t max_retries = 3;  // at once, in the upstream; 0: no limit
};

// A try that failed, and what went before.
struct FailedTry {
    enum class Why : uint8_t {
        connect_failure,
        reset,    // stream or connection ended before any byte of an answer
        status,   // a whole head came, and its status is one that the rules may name
        timeout,  // per_try_timeout
        other     // rubbish, another timeout, ours
    };
    Why why = Why::other;
    uint16_t status = 0;             // of the answer
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
    again,        // an attempt: on another backend, where there is one
    unsent,       // nothing was sent: it takes its old place, and that is no attempt
    fresh,        // the pooled connection was stale: once, on a new one, wherever; no attempt
    over_limit,   // it could be sent again, but max_retries says no
    over_budget,  // ... but the budget says no
};

// What an upstream's retries are measured by, at this moment.
struct RetryLoad {
    uint32_t at_once = 0;  // retries without an answer yet
    uint64_t lately = 0;   // retries begun in the last minute
    uint64_t work = 0;     // requests that wait or run, and those answered in the last minute
};

RetryVerdict judge_retry(const RetryRules&, const FailedTry&, const RetryLoad&);

// Below this many at once the budget does not bind: a fifth of a handful is none.
constexpr uint32_t least_retries = 3;

// What has been answered and retried in the last minute. A share of completed work, and not of what is in
// flight alone: in an outage requests fail fast and little is in flight, and a GPU has few in flight anyway.
class RetryBudget {
  public:
    void answered(Time now) { ++slice(now).answered, ++sum_.answered; }
    void retried(Time now) { ++slice(now).retried, ++sum_.retried; }
    uint64_t answered_lately(Time now) { return slice(now), sum_.answered; }
    uint64_t retried_lately(Time now) { return slice(now), sum_.retried; }

  private:
    // Five seconds each: so the last minute is 55 to 60 s.
    static constexpr Duration slice_length = 5s;
    static constexpr int64_t slices = 12;
    struct Counts {
        uint64_t answered = 0, retried = 0;
    };

    Counts& slice(Time now);

    std::array<Counts, slices> slices_{};
    Counts sum_;
    int64_t at_ = 0;  // the slice of the last call, counted from the clock's zero
};

// How long to wait before the attempt-th retry (1 is the first): anything up to `base`, twice that, four
// times that ..., never more than `most`. `random` spreads those whose backend failed them at one moment.
Duration retry_backoff(Duration base, Duration most, uint32_t attempt, uint64_t random);

}  // namespace penstock
