// The circuit breaker of an upstream: the books of its limits, and who may be sent again. The limits of
// connections, requests and waiting ones are kept where those are counted (unfit, has_room).
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

RetryAnswer ParkState::may_retry(Ticket& t, const FailedTry& failed) {
    ParkUpstream& u = upstream(t.upstream);
    retry_answered(t);  // what failed may have been a retry: it makes room for the next
    const RetryLoad load{.at_once = u.retrying,
                         .lately = u.retry_budget.retried_lately(now),
                         .work = u.requests() + u.waiting + u.retry_budget.answered_lately(now)};
    RetryAnswer answer{.verdict = judge_retry(u.rules.retry, failed, load)};
    switch (answer.verdict) {
        case RetryVerdict::again:
            t.is_retry_ = true;
            ++u.retrying;
            u.retry_budget.retried(now);
            break;
        case RetryVerdict::over_limit:
            answer.retry_after = refusal(u, Refusal::circuit_open, CircuitLimit::retries).retry_after;
            break;
        case RetryVerdict::over_budget:
            answer.retry_after = refusal(u, Refusal::circuit_open, CircuitLimit::retry_budget).retry_after;
            break;
        default: break;
    }
    return answer;
}

void ParkState::retry_answered(Ticket& t) {
    if (!t.is_retry_) return;
    t.is_retry_ = false;
    assert(upstream(t.upstream).retrying > 0);
    --upstream(t.upstream).retrying;
}

// An exit that has not been seen yet is unknown, not alive: who was Suspect is being asked.
Fate ParkState::fate(BackendId id, uint32_t generation) {
    const ParkBackend* b = find(id);
    if (!b || !b->is_generation(generation)) return Fate::ended;
    return b->state == BackendState::suspect && !b->said_alive ? Fate::unknown : Fate::alive;
}

void ParkState::count_refusal(ParkUpstream& u, CircuitLimit limit) {
    if (limit == CircuitLimit::none) return;
    Breaker& breaker = u.breakers[static_cast<size_t>(limit)];
    if (!breaker.is_open()) main_wanted = true;  // it logs the opening
    breaker.refuse(now);
}

CircuitView ParkState::circuit(const ParkUpstream& u, CircuitLimit limit) const {
    CircuitView view{.limit = limit, .breaker = u.breakers[static_cast<size_t>(limit)]};
    switch (limit) {
        case CircuitLimit::none: break;
        case CircuitLimit::connections:
            view.bound = u.rules.max_connections;
            view.now = u.connections;
            break;
        case CircuitLimit::requests:
            view.bound = u.rules.max_requests;
            view.now = u.requests();
            break;
        case CircuitLimit::pending:
            view.bound = u.rules.max_pending;
            view.now = u.waiting;
            break;
        case CircuitLimit::retries:
            view.bound = u.rules.retry.max_retries;
            view.now = u.retrying;
            break;
        case CircuitLimit::retry_budget: view.now = u.retrying; break;
    }
    return view;
}

// Would it refuse one more? (A budget moves with the traffic: its time without a refusal says it all.)
bool ParkState::is_met(const ParkUpstream& u, CircuitLimit limit) const {
    switch (limit) {
        case CircuitLimit::connections:
            return u.rules.connection_bound() && u.used >= u.rules.connection_bound();
        case CircuitLimit::requests: return u.rules.max_requests && u.requests() >= u.rules.max_requests;
        case CircuitLimit::pending: return u.rules.max_pending && u.waiting >= u.rules.max_pending;
        case CircuitLimit::retries:
            return u.rules.retry.max_retries && u.retrying >= u.rules.retry.max_retries;
        case CircuitLimit::retry_budget:
        case CircuitLimit::none: break;
    }
    return false;
}

// Tells the main thread of what opened, and closes what is no longer met.
void ParkState::settle_breakers(ParkUpstream& u, Actions& actions) {
    for (size_t i = 1; i < circuit_limits; ++i) {
        Breaker& breaker = u.breakers[i];
        if (!breaker.is_open() && !u.is_told_open[i]) continue;
        if (actions.circuit_count == Actions::capacity) {
            actions.more = true;
            return;
        }
        const CircuitView view = circuit(u, static_cast<CircuitLimit>(i));
        const Time opened = breaker.since();
        if (!u.is_told_open[i]) {
            u.is_told_open[i] = true;
            actions.circuits[actions.circuit_count++] = {u.id, view.limit, true, view.bound, 0, {}};
        } else if (breaker.settle(now, !is_met(u, view.limit))) {
            u.is_told_open[i] = false;
            actions.circuits[actions.circuit_count++] = {
                u.id, view.limit, false, view.bound, breaker.refused_since_opened(), now - opened};
        }
    }
}

}  // namespace penstock
