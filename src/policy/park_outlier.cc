// Backends that rest: ejected for their failures, or found unhealthy by checks; and how they come back. All
// of it happens in the call that ends the try which decides, so that no loop is a failure behind.
#include <algorithm>

#include "policy/park_state.h"

namespace penstock {

constexpr Duration shortest_rest = 1s;
constexpr Duration tell_kept_again = 10s;

namespace {
bool is_in_service(const ParkBackend& b) {
    return (b.state == BackendState::ready || b.state == BackendState::suspect) && !b.removed;
}
}  // namespace

// Its rest is over, and all it waits for is its probing request.
bool ParkState::has_rested(const ParkBackend& b) const {
    return b.state == BackendState::resting && !b.unhealthy && b.until <= now && !b.trial && !b.restarting &&
           !b.removed;
}

// What was sent before an ejection and fails after it says nothing new.
void ParkState::note_try(ParkBackend& b, TryResult result) {
    const auto& rules = b.upstream->rules.outlier;
    if (!rules || !is_in_service(b)) return;
    if (auto reason = note(b.outlier, *rules, result)) eject_if_allowed(b, *reason);
}

Others ParkState::others(const ParkBackend& b) const {
    const ParkUpstream& u = *b.upstream;
    Others found;
    for (auto& other : u.backends) {
        if (!other || other->removed) continue;
        ++found.backends;
        if (other.get() == &b) continue;
        // Nobody probes a backup that need not serve: it will be when it must.
        const bool in_reserve = other->rules.backup && u.primary_ready && has_rested(*other);
        found.ejected += other->state == BackendState::resting && other->ejected && !in_reserve;
        found.ready += (other->state == BackendState::ready && !other->restarting) || in_reserve;
    }
    return found;
}

void ParkState::eject_if_allowed(ParkBackend& b, EjectReason reason) {
    if (!is_in_service(b)) return;
    const EjectVerdict verdict = may_eject(*b.upstream->rules.outlier, others(b));
    if (verdict == EjectVerdict::eject) return eject_for(b, reason);
    ++(verdict == EjectVerdict::min_healthy ? b.kept_by_min_healthy : b.kept_by_percent);
    if (b.kept_at != Time::min() && b.kept_at + tell_kept_again > now) return;
    b.kept_at = now;
    tell_change({.kind = BackendChange::Kind::kept, .backend = b.id, .reason = reason, .verdict = verdict});
}

void ParkState::eject_for(ParkBackend& b, EjectReason reason) {
    const OutlierRules& rules = *b.upstream->rules.outlier;
    b.rest = eject(b.outlier, rules, random());
    b.ejected = true;
    b.ejected_for = reason;
    b.ejected_at = now;
    b.ejected_until = deadline_after(now, b.rest);
    ++b.ejections[static_cast<size_t>(reason)];
    if (b.rules.spawned && rules.restart_after &&
        b.outlier.row >= rules.restart_after) {  // even if what it is stuck at ends
        b.restarting = true;
        b.restart_why = RestartWhy::ejected;
        trim_all(b);
    }
    rest(b);
    tell_change({.kind = BackendChange::Kind::ejected,
                 .backend = b.id,
                 .reason = reason,
                 .row = b.outlier.row,
                 .time = b.rest});
}

// As long as anything speaks against it. Grants that nobody has collected go elsewhere.
void ParkState::rest(ParkBackend& b) {
    give_back_grants(b);
    set_state(b, BackendState::resting, b.unhealthy ? never : b.ejected_until);
    soon(b.until);
}

// Its one request failed: it rests again, and longer. But where too few others are Ready it is back in
// service, for the same reason for which it would not have been ejected now.
void ParkState::fail_trial(ParkBackend& b) {
    b.trial = nullptr;
    if (b.state != BackendState::resting) return;
    const auto& rules = b.upstream->rules.outlier;
    if (!rules) {
        b.rest = std::min(std::max(b.rest * 2, shortest_rest), b.upstream->rules.max_rest);
        b.ejected_at = now;
        b.ejected_until = now + b.rest;
        return rest(b);
    }
    if (others(b).ready >= rules->min_healthy || b.unhealthy)
        return eject_for(b, EjectReason::probing_request);
    ++b.kept_by_min_healthy;
    tell_change({.kind = BackendChange::Kind::kept,
                 .backend = b.id,
                 .reason = EjectReason::probing_request,
                 .verdict = EjectVerdict::min_healthy});
    make_ready(b);
}

// It was abandoned, and may never end: as long as the rest was is long enough. Its work may go on.
void ParkState::check_trial(ParkBackend& b, Time& next) {
    const Time ends = deadline_after(b.trial->abandoned_at, std::max<Duration>(b.rest, shortest_rest));
    if (ends <= now)
        fail_trial(b);
    else
        next = std::min(next, ends);
}

void ParkState::end_rest(ParkBackend& b) {
    if (b.state != BackendState::resting) return;
    tell_change({.kind = BackendChange::Kind::back, .backend = b.id, .time = now - b.ejected_at});
    make_ready(b);
}

void ParkState::set_unhealthy(ParkBackend& b, bool unhealthy) {
    if (b.unhealthy == unhealthy) return;
    b.unhealthy = unhealthy;
    if (b.state != BackendState::resting && !(unhealthy && is_in_service(b))) return;
    if (b.unhealthy || b.ejected)
        rest(b);
    else
        make_ready(b);
}

void ParkState::end_interval(ParkUpstream& u, Time& next) {
    if (!u.rules.outlier) return void(u.interval_ends = never);
    const OutlierRules& rules = *u.rules.outlier;
    if (u.interval_ends == never) u.interval_ends = now + rules.interval;
    if (u.interval_ends <= now) {
        for (size_t i = 0; i < u.backends.size(); ++i) {
            ParkBackend* b = u.backends[i].get();
            u.outliers[i] = b && is_in_service(*b) ? &b->outlier : nullptr;
        }
        find_outliers(u.outliers, rules,
                      [&](size_t i, EjectReason reason) { eject_if_allowed(*u.backends[i], reason); });
        for (auto& b : u.backends)
            if (b) next_interval(b->outlier, rules, b->ejected, now);
        u.interval_ends = now + rules.interval;  // late, a second one must not follow at once
    }
    next = std::min(next, u.interval_ends);
}

void ParkState::tell_change(BackendChange change) {
    main_wanted = true;
    if (changes.count < BackendChanges::capacity)
        changes.items[changes.count++] = change;
    else
        ++changes.lost;
}

}  // namespace penstock
