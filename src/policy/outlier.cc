#include "policy/outlier.h"

#include <algorithm>
#include <cmath>

namespace penstock {

namespace {

// Envoy triggers on equality and then begins anew, whether or not the backend could be ejected.
bool reaches(uint32_t& count, uint32_t threshold) {
    ++count;
    if (threshold == 0 || count < threshold) return false;
    count = 0;
    return true;
}

}  // namespace

std::string_view to_string(EjectReason reason) {
    constexpr std::array<std::string_view, eject_reasons> names = {
        "consecutive_5xx",    "consecutive_gateway_errors", "consecutive_local_errors", "success_rate",
        "local_success_rate", "failure_percentage",         "local_failure_percentage", "probing_request"};
    return names[static_cast<size_t>(reason)];
}

std::optional<EjectReason> note(OutlierRecord& r, const OutlierRules& rules, TryResult result) {
    if (result == TryResult::neutral) return std::nullopt;
    ++r.connections.tries;
    if (result == TryResult::local_error) {
        ++r.connections.failures;
        if (reaches(r.local_errors, rules.consecutive_local_errors))
            return EjectReason::consecutive_local_errors;
        return std::nullopt;
    }
    r.local_errors = 0;  // it answered
    ++r.answers.tries;
    if (result == TryResult::success) {
        r.server_errors = r.gateway_errors = 0;
        return std::nullopt;
    }
    ++r.answers.failures;
    std::optional<EjectReason> reason;
    if (result != TryResult::gateway_error)
        r.gateway_errors = 0;
    else if (reaches(r.gateway_errors, rules.consecutive_gateway_errors))
        reason = EjectReason::consecutive_gateway_errors;
    if (reaches(r.server_errors, rules.consecutive_5xx) && !reason) reason = EjectReason::consecutive_5xx;
    return reason;
}

EjectVerdict may_eject(const OutlierRules& rules, const Others& others) {
    if (others.ready < rules.min_healthy) return EjectVerdict::min_healthy;
    const bool is_first = others.ejected == 0 && rules.max_ejection_percent > 0;
    if (!is_first &&
        uint64_t{100} * (others.ejected + 1) > uint64_t{rules.max_ejection_percent} * others.backends)
        return EjectVerdict::max_ejection_percent;
    return EjectVerdict::eject;
}

Duration eject(OutlierRecord& r, const OutlierRules& rules, uint64_t random) {
    // n stops growing where it makes no difference any more; so it does not take hours to shrink either.
    const Duration base = std::max<Duration>(rules.base_ejection_time, 1ns);
    if (base * r.times < rules.max_ejection_time + base) ++r.times;
    ++r.row;
    const Duration time = std::min(base * r.times, std::max(rules.max_ejection_time, base));
    if (rules.ejection_jitter <= Duration{}) return time;
    return time + Duration(static_cast<Duration::rep>(
                      random % (static_cast<uint64_t>(rules.ejection_jitter.count()) + 1)));
}

void returned(OutlierRecord& r, Time now) {
    r.server_errors = r.gateway_errors = r.local_errors = 0;
    r.returned_at = now;
}

void next_interval(OutlierRecord& r, const OutlierRules& rules, bool is_ejected, Time now) {
    r.answers = r.connections = {};
    if (is_ejected || r.times == 0 || r.returned_at + rules.interval > now) return;
    --r.times;
    r.row = 0;
}

double success_rate(const OutlierRecord::Rate& rate) {
    if (rate.tries == 0) return 100;
    return 100.0 * (rate.tries - rate.failures) / rate.tries;
}

std::optional<double> success_rate_bound(std::span<OutlierRecord* const> records,
                                         OutlierRecord::Rate OutlierRecord::*series,
                                         const OutlierRules::SuccessRate& rules) {
    double sum = 0, squares = 0;
    uint32_t count = 0;
    for (const OutlierRecord* r : records) {
        if (!r || (r->*series).tries < rules.min_requests) continue;
        sum += success_rate(r->*series);
        ++count;
    }
    if (count == 0 || count < rules.min_backends) return std::nullopt;
    const double mean = sum / count;
    for (const OutlierRecord* r : records) {
        if (!r || (r->*series).tries < rules.min_requests) continue;
        const double off = success_rate(r->*series) - mean;
        squares += off * off;
    }
    return mean - rules.stdev_factor * std::sqrt(squares / count);
}

bool has_enough(std::span<OutlierRecord* const> records, OutlierRecord::Rate OutlierRecord::*series,
                const OutlierRules::FailurePercentage& rules) {
    const auto count = std::ranges::count_if(
        records, [&](const OutlierRecord* r) { return r && (r->*series).tries >= rules.min_requests; });
    return count > 0 && static_cast<uint64_t>(count) >= rules.min_backends;
}

}  // namespace penstock
