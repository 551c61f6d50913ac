// Backends: their states, what their upstream is by them, and what comes with time.
#include <algorithm>
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

constexpr Duration ask_again_after = 60s;
constexpr Duration tell_suspect_again = 1s;
constexpr Duration longest_tick = 1s;  // reminders of lost wakes go out with it

void ParkState::backend_event(ParkBackend& b, const BackendNews& news) {
    using Event = BackendNews::Event;
    using State = BackendState;
    const bool is_next = news.generation > b.generation;
    if (news.event == Event::starting && is_next && !b.removed) {
        if (b.state != State::down) lose_generation(b);
        b.generation = news.generation;
        return set_state(b, State::starting, news.until);
    }
    if (news.event == Event::ready && is_next && b.state == State::down &&
        !b.removed) {  // a server: no start
        b.generation = news.generation;
        make_ready(b);
        if (news.warm) b.ready_since = now - b.upstream->rules.slow_start;
        return;
    }
    if (news.event == Event::gave_up && news.generation == b.generation && b.state == State::down) {
        if (b.upstream->restarting == &b) b.upstream->restarting = nullptr;
        b.restarting = false;
        return set_state(b, State::down, never);
    }
    if (!b.is_generation(news.generation)) return;

    const bool is_up = b.state == State::ready || b.state == State::suspect || b.state == State::resting;
    switch (news.event) {
        case Event::starting: break;
        case Event::ready:
            if (b.state == State::starting || b.state == State::suspect || b.state == State::resting) {
                if (b.state == State::starting)
                    b.restart_cost = news.restart_cost > Duration{} ? news.restart_cost : now - b.since;
                make_ready(b);
                if (news.warm) b.ready_since = now - b.upstream->rules.slow_start;
            }
            break;
        case Event::suspect: suspect(b); break;
        case Event::alive:
            if (b.state != State::suspect) break;
            b.said_alive = true;
            if (b.until <= now)
                make_ready(b);
            else
                soon(b.until);
            break;
        case Event::probe_failed:
            if (b.state != State::suspect) break;
            b.hopeful = b.said_alive = false;
            settle(*b.upstream);
            break;
        case Event::eject:
            if (!is_up) break;
            b.rest = news.until == never ? Duration{} : news.until - now;
            b.ejected = true;
            b.ejected_at = now;
            b.ejected_until = news.until;
            rest(b);
            break;
        case Event::unhealthy: set_unhealthy(b, true); break;
        case Event::healthy: set_unhealthy(b, false); break;
        case Event::idle_stop:
            if (!is_up || b.used() > 0 || b.upstream->waiting > 0) break;
            [[fallthrough]];
        case Event::drain:
            if (b.state == State::draining) {
                b.until = news.until;
                settle(*b.upstream);
                break;
            }
            set_state(b, State::draining, news.until);
            trim_all(b);
            break;
        case Event::undrain:
            if (b.state == State::draining && !b.removed) make_ready(b);
            break;
        case Event::exited:
        case Event::gave_up:
            lose_generation(b);
            if (news.event == Event::gave_up && b.upstream->restarting == &b)
                b.upstream->restarting = nullptr;
            if (news.event == Event::gave_up) b.restarting = false;
            set_state(b, State::down, news.event == Event::gave_up ? never : news.until);
            break;
    }
}

void ParkState::set_state(ParkBackend& b, BackendState state, Time until) {
    b.state = state;
    b.since = now;
    b.until = until;
    b.asked_at = never;
    mark(*b.upstream);
    settle(*b.upstream);
    ask(b);
}

void ParkState::make_ready(ParkBackend& b) {
    if (b.state == BackendState::starting) {
        b.start_took = now - b.since;
        b.failed_connects = 0;
    }
    if (b.state != BackendState::suspect || !b.hopeful) {  // a suspicion that was wrong is no new start
        b.ready_since = now;
        if (b.upstream->rules.slow_start > Duration{}) soon(now);
    }
    if (b.state == BackendState::suspect && b.suspect_told)
        tell_change({.kind = BackendChange::Kind::trusted, .backend = b.id});
    if (b.ejected) returned(b.outlier, now);
    b.ejected = false;
    b.trial = nullptr;
    b.said_alive = false;
    if (b.upstream->restarting == &b && b.stuck == 0) b.upstream->restarting = nullptr;
    if (b.upstream->restarting != &b) b.restarting = false;
    if (b.unhealthy) return rest(b);
    set_state(b, BackendState::ready, never);
}

// A connect failure may also mean that its backlog is full. So the first one costs nothing once somebody has
// said that it is alive; with more in a row it stays Suspect for longer each time, up to 2 s: tickets must
// not be granted and given back at full speed.
void ParkState::suspect(ParkBackend& b) {
    if (b.state != BackendState::ready) return;
    Duration wait{};
    if (b.failed_connects > 1) wait = std::min<Duration>(25ms * (1 << std::min(b.failed_connects, 8U)), 2s);
    b.hopeful = true;
    b.said_alive = false;
    b.suspect_told = b.suspect_told_at + tell_suspect_again <= now;
    if (b.suspect_told) {
        b.suspect_told_at = now;
        tell_change({.kind = BackendChange::Kind::suspect, .backend = b.id});
    }
    give_back_grants(b);
    set_state(b, BackendState::suspect, now + wait);
    trim_all(b);
}

// Nothing of a dead generation is used. Leases stay with their owners, who are woken where they wait for us.
void ParkState::lose_generation(ParkBackend& b) {
    give_back_grants(b);
    while (Work* w = b.works.front()) {
        const bool waits_for_us = w->is_abandoned() || w->connection == Work::Connection::waiting;
        end_work(*w, Ended::By::worker_exit, w->is_abandoned());
        w->connection = Work::Connection::none;
        if (w->is_orphan)
            free_work(*w);
        else if (waits_for_us)
            owe(*w);
    }
    forget_connections(b);
    b.unhealthy = b.ejected = false;
    b.outlier = {};
    b.state = BackendState::down;
}

// Grants that nobody has collected yet: the tickets wait again, in their old places.
void ParkState::give_back_grants(ParkBackend& b) {
    for (Work *w = b.works.front(), *next; w; w = next) {
        next = b.works.next(*w);
        if (w->state != Work::State::granted) continue;
        Ticket& t = *w->ticket;
        end_work(*w, Ended::By::owner, false);
        free_work(*w);
        t.work_ = nullptr;
        enter_queue(*b.upstream, t);
        owe(t);
    }
}

// Serving: one is Ready. Coming: none, but it is known when. None otherwise.
void ParkState::settle(ParkUpstream& u) {
    u.primary_ready = false;
    bool is_ready = false, comes = false;
    for (auto& b : u.backends) {
        if (!b) continue;
        const bool ready = b->state == BackendState::ready && !b->restarting;
        is_ready = is_ready || ready;
        u.primary_ready = u.primary_ready || (ready && !b->rules.backup);
        comes = comes || back_at(*b) != never;
    }
    settle_homes(u);
    const Serving serving = is_ready ? Serving::serving : comes ? Serving::coming : Serving::none;
    const Serving was = u.serving;
    wind_clock(u);
    u.serving = serving;
    shown[static_cast<size_t>(u.id)].store(serving, std::memory_order_relaxed);
    mark(u);
    if (serving == Serving::none) {
        u.tell = nullptr;  // dispatch refuses them
    } else if (serving != was || serving == Serving::coming) {
        u.tell = u.queue.front();
        if (!u.Link<TellTag>::is_linked()) telling.push_back(u);
    }
}

// When a backend that is not Ready will be; `never` if that is not known. A time that has passed means: any
// moment now.
Time ParkState::back_at(const ParkBackend& b) const {
    if (b.removed) return never;
    switch (b.state) {
        case BackendState::starting: return b.until == never ? now : b.until;
        case BackendState::ready: return b.restarting ? now + b.restart_cost : now;
        case BackendState::suspect:
            if (b.hopeful || b.said_alive) return b.until;
            // One of ours that does not answer is about to end, or will be made to: then it is started again.
            return b.rules.spawned ? now + b.restart_cost : never;
        case BackendState::resting: return b.restarting ? now + b.restart_cost : b.until;
        case BackendState::draining: return b.until;
        case BackendState::down: return b.until == never ? never : b.until + b.start_took;
    }
    return never;
}

uint32_t ParkState::cap(const ParkBackend& b) const {
    const Duration window = b.upstream->rules.slow_start;
    if (b.rules.slots <= 1 || window <= Duration{} || now >= b.ready_since + window) return b.rules.slots;
    return std::max(1U,
                    static_cast<uint32_t>((now - b.ready_since).count() * b.rules.slots / window.count()));
}

// In 256ths, so that a weight of 1 can grow too.
uint32_t ParkState::share(const ParkBackend& b) const {
    const uint32_t whole = std::max(b.rules.weight, 1U) * 256;
    const Duration window = b.upstream->rules.slow_start, passed = now - b.ready_since;
    if (passed >= window) return whole;
    return std::max(1U, static_cast<uint32_t>(seconds(passed) / seconds(window) * whole));
}

Unfit ParkState::unfit(const ParkBackend& b) const {
    const ParkUpstream& u = *b.upstream;
    switch (b.state) {
        case BackendState::starting: return Unfit::starting;
        case BackendState::suspect: return Unfit::suspect;
        case BackendState::draining: return Unfit::draining;
        case BackendState::down: return Unfit::down;
        case BackendState::resting:
            if (b.unhealthy) return Unfit::unhealthy;
            if (b.until > now) return Unfit::resting;
            if (b.trial) return Unfit::probing;
            break;
        case BackendState::ready: break;
    }
    if (b.removed) return Unfit::draining;
    if (b.restarting) return Unfit::restarting;
    if (const uint32_t slots = cap(b); slots && b.used() >= slots) return Unfit::busy;
    if (b.device && b.device->slots && b.device->used >= b.device->slots) return Unfit::device_busy;
    const uint32_t connections = u.rules.counts_connections ? b.rules.max_connections : 0;
    if (connections && b.used() >= connections) return Unfit::own_connections;
    if (u.rules.max_requests && u.requests() >= u.rules.max_requests) return Unfit::max_requests;
    if (u.rules.connection_bound() && u.used >= u.rules.connection_bound()) return Unfit::max_connections;
    if (b.rules.backup && u.primary_ready) return Unfit::backup;
    return Unfit::fit;
}

// What the main thread should do about it.
bool ParkState::wants(const ParkBackend& b, Action::Kind& kind) const {
    const bool is_live = b.granted + b.running + b.probing > 0;
    const bool is_down = b.state == BackendState::down;
    if (b.removed && b.references == 0 && b.idle == 0 && b.closing == 0 && (is_down || !b.rules.spawned)) {
        kind = Action::Kind::forget;
        return true;
    }
    if (b.state == BackendState::draining && b.rules.spawned && b.used() == b.stuck && b.idle == 0) {
        kind = Action::Kind::stop;
        return true;
    }
    if (b.restarting && !is_live && !is_down && b.state != BackendState::starting) {
        kind = Action::Kind::restart;
        return true;
    }
    kind = Action::Kind::probe;
    return b.state == BackendState::suspect && !b.said_alive;
}

void ParkState::ask(ParkBackend& b) {
    Action::Kind kind;
    if (wants(b, kind) && (b.asked_at == never || b.asked != kind)) main_wanted = true;
}

Time ParkState::tick(Actions& actions) {
    overdue = false;
    Time next = now + longest_tick;
    for (auto& u : upstreams) {
        if (!u) continue;
        mark(*u);  // a rest is over, or a step of a slow start
        find_stuck(*u, next);
        restart_stuck(*u, next);
        end_interval(*u, next);
        settle_breakers(*u, actions);
        for (auto& b : u->backends)
            if (b) tick_backend(*b, actions, next);
    }
    remind();
    armed = actions.more ? now : next;
    return armed;
}

void ParkState::tick_backend(ParkBackend& b, Actions& actions, Time& next) {
    const auto comes = [&](Time t) { next = t > now ? std::min(next, t) : next; };
    if (b.state == BackendState::suspect && b.said_alive) {
        if (b.until <= now)
            make_ready(b);
        else
            comes(b.until);
    }
    if (b.state == BackendState::resting) comes(b.until);
    const Duration window = b.upstream->rules.slow_start;
    if (b.ready_since + window > now) {  // rounded up: the first moment at which cap() has one more
        const uint32_t slots = std::max(b.rules.slots, 1U);
        comes(b.ready_since + (window * (cap(b) + 1) + Duration(slots - 1)) / slots);
    }
    Action::Kind kind;
    if (!wants(b, kind)) return;
    if (b.asked_at != never && b.asked == kind && b.asked_at + ask_again_after > now)
        return comes(b.asked_at + ask_again_after);
    if (actions.count == Actions::capacity) {
        actions.more = true;
        return;
    }
    actions.items[actions.count++] = {kind, b.id, b.generation, b.restart_why};
    b.asked = kind;
    b.asked_at = now;
    comes(now + ask_again_after);
}

}  // namespace penstock
