#include "policy/retry.h"

#include <algorithm>

namespace penstock {

namespace {

bool is_allowed(const RetryRules& rules, const FailedTry& t) {
    switch (t.why) {
        // Nothing was sent: safe whatever the method.
        case FailedTry::Why::connect_failure: return rules.on_connect_failure;
        case FailedTry::Why::reset:
            if (t.request_begun && !t.idempotent_method && !rules.idempotent) return false;
            return rules.on_reset_before_response;
        case FailedTry::Why::other: return false;
    }
    return false;
}

bool is_stale(const RetryRules& rules, const FailedTry& t) {
    if (t.why != FailedTry::Why::reset || !t.reused || t.was_stale) return false;
    return !t.request_begun || t.idempotent_method || rules.idempotent;
}

}  // namespace

RetryVerdict judge_retry(const RetryRules& rules, const FailedTry& t, uint32_t retries, uint32_t in_flight) {
    if (t.answer_begun || t.passed_on || !t.replayable) return RetryVerdict::no;
    if (is_stale(rules, t)) return RetryVerdict::fresh;
    if (t.attempts >= rules.attempts || !is_allowed(rules, t)) return RetryVerdict::no;
    if (rules.max_retries && retries >= rules.max_retries) return RetryVerdict::spent;
    const auto budget = static_cast<uint32_t>(rules.budget * in_flight);
    if (retries >= std::max(budget, least_retries)) return RetryVerdict::spent;
    return RetryVerdict::again;
}

}  // namespace penstock
