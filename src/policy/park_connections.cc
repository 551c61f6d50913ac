// Connections of limited HTTP/1 backends: who may open one. Over all loops there are never more than slots to
// a backend, idle ones included: many GPU servers serve one connection at a time, and an idle one of another
// loop would block them. idle_on[loop] is exactly what that loop's pool holds, since only its own calls
// change it.
#include <algorithm>
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

Connect ParkState::plan_connection(Work& w) {
    ParkBackend& b = *w.backend;
    ParkUpstream& u = *b.upstream;
    if (!u.rules.counts_connections) return Connect::free;
    const uint16_t loop = w.wake.loop;
    if (!w.fresh && b.idle_on[loop] > 0) {
        take_idle(b, loop);
        ++b.busy;
        w.connection = Work::Connection::busy;
        return Connect::reuse;
    }
    if (b.waiting == 0 && has_permit(b)) {
        ++b.dialing;
        ++u.connections;
        w.connection = Work::Connection::dialing;
        return Connect::dial;
    }
    w.connection = Work::Connection::waiting;
    b.permit_queue.push_back(w);
    ++b.waiting;
    serve_permits(u);
    return Connect::wait;
}

Connect ParkState::connect(Lease& lease) {
    Work& w = *lease.work_;
    w.Link<OwedTag>::unlink();
    if (w.state == Work::State::over) return lease.how_ = Connect::lost;
    switch (w.connection) {
        case Work::Connection::none: return lease.how_ = Connect::free;
        case Work::Connection::waiting: return lease.how_ = Connect::wait;
        case Work::Connection::dialing: return lease.how_ = Connect::dial;
        case Work::Connection::busy: return lease.how_ = Connect::reuse;
    }
    return Connect::free;
}

Connect ParkState::redial(Lease& lease) {
    Work& w = *lease.work_;
    if (w.state == Work::State::over) return lease.how_ = Connect::lost;
    assert(w.state == Work::State::held && w.connection == Work::Connection::busy);
    --w.backend->busy;
    ++w.backend->closing;
    w.connection = Work::Connection::none;
    w.fresh = true;
    return lease.how_ = plan_connection(w);
}

bool ParkState::settle_connection(Work& w, Keep keep) {
    ParkBackend& b = *w.backend;
    ParkUpstream& u = *b.upstream;
    const uint16_t loop = w.wake.loop;
    const Work::Connection was = w.connection;
    if (was == Work::Connection::none) return keep == Keep::idle && b.keeps_connections();
    if (was == Work::Connection::waiting) return false;  // end_work takes it out of the line
    --(was == Work::Connection::dialing ? b.dialing : b.busy);
    w.connection = Work::Connection::none;
    const uint32_t bound = b.connection_bound();
    const bool fits = (bound == 0 || b.connections() < bound) &&
                      (u.rules.max_connections == 0 || u.connections <= u.rules.max_connections);
    const bool kept = keep == Keep::idle && fits && b.keeps_connections() && !is_wanted_by_another(b);
    if (kept)
        ++b.idle, ++b.idle_on[loop];
    else if (keep == Keep::closed)
        --u.connections;
    else
        ++b.closing;
    serve_permits(u);
    ask(b);
    return kept;
}

// Somebody waits for a permit: an idle connection would be closed at once.
bool ParkState::is_wanted_by_another(const ParkBackend& b) const {
    if (b.waiting > 0) return true;
    const ParkUpstream& u = *b.upstream;
    if (u.rules.max_connections == 0 || u.connections < u.rules.max_connections) return false;
    return std::ranges::any_of(u.backends, [](const auto& other) { return other && other->waiting > 0; });
}

void ParkState::idle_ended(ParkBackend& b, uint32_t generation, uint16_t loop) {
    if (!b.is_generation(generation)) return;
    assert(b.idle_on[loop] > 0);
    take_idle(b, loop);
    ++b.closing;
}

void ParkState::connection_closed(ParkBackend& b, uint32_t generation) {
    if (!b.is_generation(generation)) return;
    assert(b.closing > 0);
    --b.closing;
    --b.upstream->connections;
    serve_permits(*b.upstream);
    ask(b);
}

Trims ParkState::idle_to_close(uint16_t loop) {
    Trims trims;
    loop_wakes[loop].Link<OwedTag>::unlink();
    for (auto& u : upstreams) {
        if (!u) continue;
        for (auto& b : u->backends) {
            const uint32_t n = b ? b->closable_on[loop] : 0;
            if (n == 0) continue;
            if (trims.count == Trims::capacity) {
                trims.more = true;
                return trims;
            }
            trims.items[trims.count++] = {b->id, b->generation, n};
            b->closable_on[loop] -= n, b->closable -= n;
            b->idle_on[loop] -= n, b->idle -= n;
            b->closing += n;
        }
    }
    return trims;
}

bool ParkState::has_permit(const ParkBackend& b) const {
    const ParkUpstream& u = *b.upstream;
    const uint32_t bound = b.connection_bound();
    return (bound == 0 || b.connections() < bound) &&
           (u.rules.max_connections == 0 || u.connections < u.rules.max_connections);
}

// Gives permits to those who wait for one, oldest first; for the rest, has as many idle connections closed
// as are not being closed already. Can be called at any time.
void ParkState::serve_permits(ParkUpstream& u) {
    uint64_t lacking = 0, on_the_way = 0;
    for (auto& b : u.backends) {
        if (!b) continue;
        while (Work* w = b->permit_queue.front()) {
            if (!has_permit(*b)) break;
            w->Link<PermitTag>::unlink();
            --b->waiting;
            ++b->dialing;
            ++u.connections;
            w->connection = Work::Connection::dialing;
            owe(*w);
        }
        for (size_t loop = 0; loop < loops && b->closing + b->closable < b->waiting; ++loop)
            while (b->closing + b->closable < b->waiting && b->idle_on[loop] > b->closable_on[loop])
                want_closed(*b, loop);
        lacking += b->waiting;
        on_the_way += b->closing + b->closable;
    }
    // Still lacking: max_connections is reached, and what is idle belongs to other backends.
    for (auto& b : u.backends)
        for (size_t loop = 0; b && loop < loops && on_the_way < lacking; ++loop)
            while (on_the_way < lacking && b->idle_on[loop] > b->closable_on[loop]) {
                want_closed(*b, loop);
                ++on_the_way;
            }
}

void ParkState::trim_all(ParkBackend& b) {
    for (size_t loop = 0; loop < loops; ++loop)
        while (b.idle_on[loop] > b.closable_on[loop]) want_closed(b, loop);
}

void ParkState::want_closed(ParkBackend& b, size_t loop) {
    ++b.closable_on[loop];
    ++b.closable;
    if (!loop_wakes[loop].Link<OwedTag>::is_linked()) owe(loop_wakes[loop]);
}

void ParkState::take_idle(ParkBackend& b, size_t loop) {
    --b.idle;
    --b.idle_on[loop];
    if (b.closable_on[loop] <= b.idle_on[loop]) return;
    --b.closable_on[loop];
    --b.closable;
}

// Its generation has ended, and the sockets with it.
void ParkState::forget_connections(ParkBackend& b) {
    b.upstream->connections -= b.connections();
    b.dialing = b.busy = b.idle = b.closing = b.closable = 0;
    std::ranges::fill(b.idle_on, 0);
    std::ranges::fill(b.closable_on, 0);
    serve_permits(*b.upstream);
}

}  // namespace penstock
