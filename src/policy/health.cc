#include "policy/health.h"

#include <algorithm>

namespace penstock {

std::string_view to_string(CheckResult result) {
    constexpr std::array<std::string_view, check_results> names = {"passed", "failed", "busy", "skipped"};
    return names[static_cast<size_t>(result)];
}

bool Health::note(const HealthRules& rules, CheckResult result) {
    if (result == CheckResult::skipped) return false;
    if (result == CheckResult::busy) {  // a sign of life, but no answer: it cannot bring a backend back
        if (healthy_) row_ = 0;
        return false;
    }
    const bool speaks_against = (result == CheckResult::passed) != healthy_;
    row_ = speaks_against ? row_ + 1 : 0;
    if (row_ < (healthy_ ? rules.unhealthy : rules.healthy)) return false;
    healthy_ = !healthy_;
    row_ = 0;
    return true;
}

Duration next_check(const HealthRules& rules, double random) {
    const double factor = 1 + rules.jitter * (2 * random - 1);
    return std::max<Duration>(
        Duration(static_cast<Duration::rep>(static_cast<double>(rules.interval.count()) * factor)), 1ms);
}

Duration first_check(const HealthRules& rules, double random) {
    return Duration(
        static_cast<Duration::rep>(static_cast<double>(rules.interval.count()) * rules.jitter * random));
}

bool is_at_work(Time oldest_began, Duration may_take, Time now) {
    return oldest_began != never && now < deadline_after(oldest_began, may_take);
}

Time hung_at(Time oldest_began, Time last_byte, Duration after) {
    if (oldest_began == never) return never;
    return deadline_after(std::max(oldest_began, last_byte), after);
}

}  // namespace penstock
