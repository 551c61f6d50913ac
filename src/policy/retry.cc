#include "policy/retry.h"

#include <algorithm>

namespace penstock {

namespace {

// It was not begun, or to repeat it does no harm.
bool is_safe(const RetryRules& rules, const FailedTry& t) {
    return !t.request_begun || t.idempotent_method || rules.idempotent;
}

bool is_stale(const RetryRules& rules, const FailedTry& t) {
    return t.why == FailedTry::Why::reset && t.reused && !t.was_stale && is_safe(rules, t);
}

bool is_named(const RetryRules& rules, const FailedTry& t) {
    switch (t.why) {
        case FailedTry::Why::connect_failure: return rules.on_connect_failure;
        case FailedTry::Why::reset: return rules.on_reset_before_response && !t.answer_begun;
        case FailedTry::Why::status: return rules.on_status.has(t.status);
        case FailedTry::Why::timeout: return !t.answer_begun;  // whoever sets one wants another try
        case FailedTry::Why::other: return false;
    }
    return false;
}

}  // namespace

RetryVerdict judge_retry(const RetryRules& rules, const FailedTry& t, const RetryLoad& load) {
    if (t.passed_on || !t.replayable) return RetryVerdict::no;
    if (is_stale(rules, t) && !t.answer_begun) return RetryVerdict::fresh;
    if (rules.attempts == 0 || !is_named(rules, t) || !is_safe(rules, t)) return RetryVerdict::no;
    if (t.why == FailedTry::Why::connect_failure) return RetryVerdict::unsent;
    if (t.attempts >= rules.attempts) return RetryVerdict::no;
    if (rules.max_retries && load.at_once >= rules.max_retries) return RetryVerdict::over_limit;
    const auto budget = static_cast<uint64_t>(rules.budget * static_cast<double>(load.work));
    if (load.at_once >= least_retries && load.lately >= budget) return RetryVerdict::over_budget;
    return RetryVerdict::again;
}

RetryBudget::Counts& RetryBudget::slice(Time now) {
    const int64_t wanted = now.time_since_epoch() / slice_length;
    for (int64_t left = std::min(wanted - at_, slices); left > 0; --left) {
        Counts& old = slices_[static_cast<size_t>((wanted - left + 1) % slices)];
        sum_.answered -= old.answered;
        sum_.retried -= old.retried;
        old = {};
    }
    at_ = std::max(at_, wanted);
    return slices_[static_cast<size_t>(at_ % slices)];
}

Duration retry_backoff(Duration base, Duration most, uint32_t attempt, uint64_t random) {
    if (base <= Duration::zero()) return {};
    Duration longest = std::min(base, most);
    for (uint32_t i = 1; i < attempt && longest < most; ++i) longest = std::min(2 * longest, most);
    return Duration(static_cast<Duration::rep>(random % (static_cast<uint64_t>(longest.count()) + 1)));
}

}  // namespace penstock
