#include "policy/rate_limiter.h"

#include <algorithm>
#include <cassert>

namespace penstock {

namespace {

__extension__ using Wide = unsigned __int128;  // units times nanoseconds do not fit into 64 bits

// More than anybody waits for, and little enough that sums of it never overflow.
constexpr Duration longest = 24h * 365 * 50;

Duration saturated(Wide ns) {
    const auto most = static_cast<Wide>(longest.count());
    return Duration(static_cast<Duration::rep>(std::min(ns, most)));
}

}  // namespace

// Rounded down, once a request: a nanosecond in favour of the client, so that a burst of single requests is
// never a nanosecond longer than the tolerance of all of them.
Duration RateLimiter::Limit::interval(uint64_t units) const {
    return saturated(static_cast<Wide>(rules.rate.per.count()) * units / rules.rate.count);
}

RateLimiter::Limit::Limit(const LimitRules& r)
    : rules(r),
      tolerance(
          r.rate.count
              ? saturated((static_cast<Wide>(r.rate.per.count()) * r.burst + r.rate.count - 1) / r.rate.count)
              : Duration::zero()),
      table(r.keys) {}

RateLimiter::RateLimiter(std::span<const LimitRules> limits, HashKey128 secret) : secret_(secret) {
    limits_.reserve(limits.size());
    for (const LimitRules& rules : limits) limits_.emplace_back(rules);
}

RateLimiter::~RateLimiter() = default;

LimitAnswer RateLimiter::admit(std::span<LimitAsk> asks, Time now, Time deadline, KeyUnits& units) {
    assert(!units);
    LimitAnswer answer;
    const std::lock_guard lock(mutex_);
    now = now_ = std::max(now, now_);
    // One nanosecond less: who is let go at its deadline has none left.
    const Duration most_wait = deadline == never ? longest : std::max(Duration(0), deadline - now - 1ns);
    for (size_t i = 0; i < asks.size(); ++i) {
        LimitAsk& ask = asks[i];
        look(ask, most_wait, now);
        if (ask.passes || limits_[ask.limit].rules.dry_run) continue;
        if (answer.passes || ask.retry > answer.retry) answer.refused_by = i;
        answer.passes = false;
        answer.retry = std::max(answer.retry, ask.retry);
    }
    if (!answer.passes) {
        ++limits_[asks[answer.refused_by].limit].tally.refused;
        return answer;
    }
    for (LimitAsk& ask : asks) {
        Limit& limit = limits_[ask.limit];
        if (!ask.passes) {
            ++limit.tally.dry_refused;
            continue;
        }
        if (ask.is_held && !limit.rules.dry_run)
            answer.wait = std::max(answer.wait, ask.free_at - now - limit.tolerance);
        count(ask, now, units);
    }
    return answer;
}

// Does it pass? `free_at` becomes what the key would owe then.
void RateLimiter::look(LimitAsk& ask, Duration most_wait, Time now) {
    Limit& limit = limits_[ask.limit];
    const LimitRules& rules = limit.rules;
    limit.table.forget_old(now);
    ask.entry = limit.table.find(ask.key);
    const bool is_new = ask.entry == LimitTable::none;
    const uint32_t in_flight = is_new ? 0 : limit.table[ask.entry].units;
    Time owes_until = is_new ? now : std::max(limit.table[ask.entry].free_at, now);
    ask.passes = !(is_new && limit.table.is_stuck());
    ask.free_at = owes_until;
    if (rules.rate.count) {
        ask.free_at += limit.interval(ask.cost);
        const Duration early = ask.free_at - now - limit.tolerance;
        const Duration wait = std::min(rules.delay, most_wait);
        if (early > wait) {
            ask.passes = false;
            ask.retry = early - wait;
        }
        ask.is_held = early > Duration::zero();
    }
    if (rules.concurrency && in_flight >= rules.concurrency) ask.passes = false;

    // What is left, for the client: after this request if it passes.
    if (ask.passes) owes_until = ask.free_at;
    ask.reset = owes_until - now;
    if (rules.rate.count && ask.reset < limit.tolerance) {
        const auto left = static_cast<Wide>((limit.tolerance - ask.reset).count());
        ask.remaining = static_cast<uint64_t>(
            std::min<Wide>(left * rules.rate.count / static_cast<Wide>(rules.rate.per.count()), rules.burst));
    }
    if (rules.concurrency)
        ask.unused = rules.concurrency - std::min(rules.concurrency, in_flight + ask.passes);
}

void RateLimiter::count(LimitAsk& ask, Time now, KeyUnits& units) {
    Limit& limit = limits_[ask.limit];
    const bool takes_unit = limit.rules.concurrency > 0;
    ++limit.tally.passed;
    limit.tally.held += ask.is_held;
    if (ask.entry != LimitTable::none) {
        limit.table[ask.entry].free_at = ask.free_at;
        if (takes_unit) limit.table.take_unit(ask.entry);
    } else if (takes_unit || ask.free_at > now) {
        ask.entry = limit.table.add(ask.key, ask.free_at, takes_unit, now);
    }
    if (!takes_unit) return;
    ++limit.tally.in_flight;
    uint32_t unit = free_unit_;
    if (unit == LimitTable::none) {
        unit = static_cast<uint32_t>(units_.size());
        units_.emplace_back();
    } else {
        free_unit_ = units_[unit].next;
    }
    units_[unit] = {ask.limit, ask.entry, units ? units.first_ : LimitTable::none};
    units.limiter_ = this;
    units.first_ = unit;
}

void RateLimiter::release(uint32_t first) {
    const std::lock_guard lock(mutex_);
    for (uint32_t at = first; at != LimitTable::none;) {
        const uint32_t next = units_[at].next;
        Limit& limit = limits_[units_[at].limit];
        limit.table.give_unit(units_[at].entry, now_);
        --limit.tally.in_flight;
        units_[at].next = free_unit_;
        free_unit_ = at;
        at = next;
    }
}

void KeyUnits::release() {
    if (RateLimiter* limiter = std::exchange(limiter_, nullptr)) limiter->release(first_);
}

LimitTally RateLimiter::tally(size_t number) {
    const std::lock_guard lock(mutex_);
    Limit& limit = limits_[number];
    LimitTally tally = limit.tally;
    tally.keys = limit.table.size();
    tally.forgiven = limit.table.forgiven();
    return tally;
}

}  // namespace penstock
