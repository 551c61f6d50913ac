// Leases: the ledger of all work that holds a slot, wanted or not.
#include <algorithm>
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

Work& ParkState::begin_work(ParkBackend& b, Work::State state) {
    assert(b.rules.slots == 0 || b.used() < b.rules.slots);
    Work& w = *works.make();
    w.state = state;
    w.backend = &b;
    w.generation = b.generation;
    w.began = now;
    if (b.state == BackendState::resting && state == Work::State::granted) {
        b.trial = &w;
        tell_change({.kind = BackendChange::Kind::probed, .backend = b.id, .time = now - b.ejected_at});
    }
    const bool is_probe = state == Work::State::probing;
    ++(is_probe ? b.probing : b.granted);
    ++b.references;
    ++b.upstream->used;
    b.upstream->probing += is_probe;
    if (b.device) ++b.device->used;
    b.works.push_back(w);
    return w;
}

// The only place where a slot comes back.
void ParkState::end_work(Work& w, Ended::By by, bool is_sample) {
    assert(w.state != Work::State::over);
    ParkBackend& b = *w.backend;
    ParkUpstream& u = *b.upstream;
    if (w.is_abandoned()) {
        --b.abandoned;
        b.stuck -= w.state == Work::State::stuck;
        u.wasted += now - w.abandoned_at;
    } else if (w.state == Work::State::running) {
        --b.running;
    } else if (w.state == Work::State::probing) {
        --b.probing;
        --u.probing;
    } else {
        --b.granted;
    }
    --u.used;
    b.most_used = std::min(b.most_used, b.used());
    if (b.trial == &w) b.trial = nullptr;
    if (is_sample) u.mean_hold.add(now - w.began);
    w.Link<WorkTag>::unlink();
    w.Link<AbandonedTag>::unlink();
    if (w.connection == Work::Connection::waiting) {
        w.Link<PermitTag>::unlink();
        --b.waiting;
    }
    w.state = Work::State::over;
    w.by = by;
    w.ended = now;
    mark(u);
    if (b.device) {
        --b.device->used;
        mark_users(*b.device);
    }
    const bool is_told = b.asked_at != never && b.asked == Action::Kind::restart;
    const bool was_stuck = b.restarting && b.restart_why == RestartWhy::stuck;
    if (was_stuck && b.stuck == 0 && !is_told) {  // it ended by itself after all
        b.restarting = false;
        u.restarting = nullptr;
        settle(u);
    }
    ask(b);
}

void ParkState::free_work(Work& w) {
    w.Link<OwedTag>::unlink();
    --w.backend->references;
    ask(*w.backend);
    works.free(&w);
}

void ParkState::mark_users(const ParkDevice& device) {
    for (ParkUpstream* u : device.users) mark(*u);
}

void ParkState::take(Ticket& t, Lease& lease) {
    Work& w = *t.work_;
    t.work_ = nullptr;
    t.place_ = Ticket::Place::out;
    w.ticket = nullptr;
    w.state = Work::State::held;
    lease.work_ = &w;
    lease.backend_ = w.backend->id;
    lease.generation_ = w.generation;
    lease.had_home_ = w.had_home;
    lease.how_ = plan_connection(w);
}

void ParkState::run(Lease& lease) {
    Work& w = *lease.work_;
    if (w.state != Work::State::held) return;
    ParkBackend& b = *w.backend;
    assert(w.connection != Work::Connection::waiting);
    w.state = Work::State::running;
    --b.granted;
    ++b.running;
    if (w.connection == Work::Connection::dialing) {
        w.connection = Work::Connection::busy;
        --b.dialing;
        ++b.busy;
    }
}

Ended ParkState::finish(Lease& lease, End end) {
    Work& w = *lease.work_;
    lease.work_ = nullptr;
    Ended ended;
    ended.was_abandoned = w.abandoned_at != never;
    if (w.state != Work::State::over) {
        ended.keep = settle_connection(w, end.keep);
        judge(w, end.outcome);
        const bool used = w.state != Work::State::held && w.state != Work::State::probing;
        assert(used || w.state == Work::State::probing || end.outcome <= Outcome::connect_failed);
        assert(!used || end.outcome > Outcome::connect_failed);
        if (end.outcome >= Outcome::answered && end.outcome <= Outcome::gateway_error)
            w.backend->upstream->retry_budget.answered(now);
        // A connection that ended before any answer says nothing about how long a request takes.
        const bool was_served = end.outcome != Outcome::stale && end.outcome != Outcome::early_close;
        end_work(w, Ended::By::owner, used && was_served);
    }
    ended.by = w.by;
    ended.held = w.ended - w.began;
    if (ended.was_abandoned) ended.wasted = w.ended - w.abandoned_at;
    free_work(w);
    return ended;
}

namespace {
TryResult result_of(Outcome outcome) {
    switch (outcome) {
        case Outcome::unused:
        case Outcome::stale:
        case Outcome::full: return TryResult::neutral;
        case Outcome::answered: return TryResult::success;
        case Outcome::bad_answer: return TryResult::server_error;
        case Outcome::gateway_error: return TryResult::gateway_error;
        case Outcome::connect_failed:
        case Outcome::early_close:
        case Outcome::cut: return TryResult::local_error;
    }
    return TryResult::neutral;
}
}  // namespace

// What the end of one work says about its backend. It takes effect in the same call that ends the lease:
// else one dead worker would be given the whole queue before its exit is read.
void ParkState::judge(Work& w, Outcome outcome) {
    ParkBackend& b = *w.backend;
    if (w.state == Work::State::probing) return;  // its result comes as news
    if (outcome == Outcome::connect_failed) ++b.failed_connects;
    const TryResult result = result_of(outcome);
    if (result != TryResult::neutral && result != TryResult::local_error) b.failed_connects = 0;
    if (result == TryResult::neutral || w.is_abandoned()) return;
    if (b.trial == &w) {
        if (result == TryResult::success)
            end_rest(b);
        else
            fail_trial(b);
        return;
    }
    note_try(b, result);
    if (outcome == Outcome::connect_failed || outcome == Outcome::early_close) suspect(b);
}

void ParkState::abandon(Lease& lease, Abandon how, Wake to, Outcome so_far) {
    Work& w = *lease.work_;
    w.wake = to;
    if (w.state == Work::State::over) return owe(w);
    if (w.state == Work::State::held || w.state == Work::State::probing) {
        finish(lease, {Outcome::unused, Keep::closed});
        return;
    }
    if (w.state == Work::State::stuck) return;
    ParkBackend& b = *w.backend;
    ParkUpstream& u = *b.upstream;
    if (w.state == Work::State::running) {
        judge(w, so_far);
        --b.running;
        ++b.abandoned;
        w.abandoned_at = now;
        w.deadline = deadline_after(now, u.rules.abandon_limit);
        u.abandoned.push_back(w);
        // A probing request whose client left says nothing; but it stays the only one.
        if (b.trial == &w) soon(now);
    }
    if (how != Abandon::drain) w.deadline = std::min(w.deadline, deadline_after(now, u.rules.abandon_grace));
    const bool closes = how == Abandon::close || w.state == Work::State::closing;
    w.state = closes ? Work::State::closing : Work::State::draining;
    soon(w.deadline);
    ask(b);  // it was the last live one?
}

bool ParkState::is_over(const Lease& lease) {
    lease.work_->Link<OwedTag>::unlink();
    return lease.work_->state == Work::State::over;
}

// A lease's destructor. What was used stays in the ledger without an owner, and ends by exit or by its limit.
void ParkState::let_go(Lease& lease, bool strict) {
    Work& w = *lease.work_;
    if (w.state == Work::State::over) {
        free_work(w);
    } else if (w.state == Work::State::held || w.state == Work::State::probing) {
        finish(lease, {Outcome::unused, Keep::closed});
    } else {
        assert(!strict && "a lease that was used was let go without finish() or abandon()");
        (void)strict;
        w.is_orphan = true;
        abandon(lease, Abandon::close, w.wake);
        w.Link<OwedTag>::unlink();
    }
    lease.work_ = nullptr;
}

bool ParkState::has_slot_for_probe(const ParkBackend& b) const {
    const ParkUpstream& u = *b.upstream;
    const bool has_state = b.state == BackendState::ready || b.state == BackendState::suspect ||
                           b.state == BackendState::resting;
    if (!has_state || b.restarting || b.removed) return false;
    if (b.rules.slots && b.used() >= b.rules.slots) return false;
    if (b.device && b.device->slots && b.device->used >= b.device->slots) return false;
    if (u.rules.connection_bound() && u.used >= u.rules.connection_bound()) return false;
    return !u.rules.counts_connections || b.waiting == 0;
}

Lease ParkState::probe(BackendId id) {
    ParkBackend& b = backend(id);
    ParkUpstream& u = *b.upstream;
    Lease lease;
    if (!has_slot_for_probe(b) || (u.rules.counts_connections && !has_permit(b))) return lease;
    Work& w = begin_work(b, Work::State::probing);
    mark(u);  // with more in flight everybody's fair share is more: a home may have room again
    lease.work_ = &w;
    lease.backend_ = id;
    lease.generation_ = w.generation;
    lease.how_ = Connect::free;
    if (u.rules.counts_connections) {
        w.connection = Work::Connection::dialing;
        ++b.dialing;
        ++u.connections;
        lease.how_ = Connect::dial;
    }
    return lease;
}

// With one slot the pooled connection of the last request is all that there may be, and under steady traffic
// there always is one: a check would never come through. No slot is held meanwhile, so nobody loses his
// place.
bool ParkState::make_room_for_probe(BackendId id) {
    ParkBackend& b = backend(id);
    if (!has_slot_for_probe(b)) return false;
    for (size_t loop = 0; loop < loops && !has_permit(b) && b.closing + b.closable == 0; ++loop)
        if (b.idle_on[loop] > 0) want_closed(b, loop);
    return has_permit(b) || b.closing + b.closable > 0;
}

Time ParkState::oldest_work(const ParkBackend& b) {
    for (const Work* w = b.works.front(); w; w = b.works.next(*w))
        if (w->state == Work::State::running || w->is_abandoned()) return w->began;
    return never;
}

void ParkState::find_stuck(ParkUpstream& u, Time& next) {
    for (Work *w = u.abandoned.front(), *following; w; w = following) {
        following = u.abandoned.next(*w);
        if (w->backend->trial == w) check_trial(*w->backend, next);
        if (w->state == Work::State::stuck) continue;
        if (w->deadline <= now)
            call_stuck(*w);
        else
            next = std::min(next, w->deadline);
    }
}

void ParkState::call_stuck(Work& w) {
    ParkBackend& b = *w.backend;
    if (b.trial == &w) fail_trial(b);
    if (b.rules.spawned) {
        w.state = Work::State::stuck;
        ++b.stuck;
        ask(b);  // Draining: only stuck work is left?
        return;
    }
    // Another's server: we can only hang up, and not trust it until a probe got through.
    settle_connection(w, w.is_orphan ? Keep::closed : Keep::closing);
    end_work(w, Ended::By::given_up, true);
    if (w.is_orphan)
        free_work(w);
    else
        owe(w);
    suspect(b);
}

// At most one restart for stuck work in an upstream at a time; and not before the slot has been blocked for
// as long as the restart will take: so that, whenever the work would have ended, waiting and restarting
// together cost at most twice the better of the two.
void ParkState::restart_stuck(ParkUpstream& u, Time& next) {
    for (Work* w = u.abandoned.front(); w && !u.restarting; w = u.abandoned.next(*w)) {
        if (w->state != Work::State::stuck) continue;
        ParkBackend& b = *w->backend;
        if (b.state == BackendState::draining || b.restarting) continue;  // will be stopped anyway
        const Time worth_it = w->abandoned_at + b.restart_cost;
        if (worth_it > now) {
            next = std::min(next, worth_it);
            continue;
        }
        u.restarting = &b;
        b.restarting = true;  // no new grants; live leases may finish
        b.restart_why = RestartWhy::stuck;
        b.asked_at = never;
        trim_all(b);
        settle(u);
    }
}

}  // namespace penstock
