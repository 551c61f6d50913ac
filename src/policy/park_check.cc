// What is always true after a call, recounted; and the numbers for /status and metrics.
#include <algorithm>
#include <cassert>
#include <fmt/format.h>
#include <vector>

#include "policy/park_state.h"

namespace penstock {

namespace {

// Collects the first thing that is wrong.
struct Findings {
    std::string* why;
    bool good = true;

    template <class... A>
    void expect(bool holds, fmt::format_string<A...> text, A&&... a) {
        if (holds || !good) return;
        good = false;
        if (why) *why = fmt::format(text, std::forward<A>(a)...);
    }
    void equal(uint64_t counted, uint64_t found, std::string_view what) {
        expect(counted == found, "{}: {} counted, {} found", what, counted, found);
    }
};

void check_backend(const ParkBackend& b, Findings& f) {
    uint32_t granted = 0, running = 0, abandoned = 0, probing = 0, stuck = 0;
    uint32_t dialing = 0, busy = 0, waiting = 0, trials = 0;
    for (const Work* w = b.works.front(); w; w = b.works.next(*w)) {
        using State = Work::State;
        f.expect(w->state != State::over, "work that is over is still listed");
        f.expect(w->generation == b.generation, "generation {} holds a slot, {} is current", w->generation,
                 b.generation);
        f.expect((w->state == State::granted) == (w->ticket != nullptr), "a ticket and its grant disagree");
        granted += w->state == State::granted || w->state == State::held;
        running += w->state == State::running;
        abandoned += w->is_abandoned();
        stuck += w->state == State::stuck;
        probing += w->state == State::probing;
        dialing += w->connection == Work::Connection::dialing;
        busy += w->connection == Work::Connection::busy;
        waiting += w->connection == Work::Connection::waiting;
        trials += b.trial == w;
    }
    f.equal(b.granted, granted, "granted");
    f.equal(b.running, running, "running");
    f.equal(b.abandoned, abandoned, "abandoned");
    f.equal(b.stuck, stuck, "stuck");
    f.equal(b.probing, probing, "probing");
    f.equal(b.dialing, dialing, "dialing");
    f.equal(b.busy, busy, "busy");
    f.equal(b.waiting, waiting, "waiting for a permit");
    f.equal(b.trial ? 1 : 0, trials, "probing request");
    f.expect(b.state != BackendState::down || b.used() + b.connections() == 0,
             "something of a dead generation is used");
    f.expect(b.state != BackendState::starting || b.used() == 0, "a backend that starts is used");
    f.expect(b.state != BackendState::resting || b.unhealthy || b.ejected, "it rests for no reason");
    f.expect(b.state != BackendState::ready || !(b.unhealthy || b.ejected),
             "Ready, and ejected or unhealthy");
    uint32_t idle = 0, closable = 0;
    for (size_t loop = 0; loop < b.idle_on.size(); ++loop) {
        idle += b.idle_on[loop];
        closable += b.closable_on[loop];
        f.expect(b.closable_on[loop] <= b.idle_on[loop], "more to close than is idle");
    }
    f.equal(b.idle, idle, "idle");
    f.equal(b.closable, closable, "closable");
}

}  // namespace

bool ParkState::check(const std::span<const Lease* const>* leases,
                      const std::span<const Ticket* const>* waiting, std::string* why) {
    Findings f{why};
    std::vector<const Work*> known;  // that a lease should stand for
    for (auto& u : upstreams) {
        if (!u) continue;
        uint64_t used = 0, probing = 0, connections = 0, bytes = 0, count = 0, unrestricted = 0, last = 0;
        for (auto& b : u->backends) {
            if (!b) continue;
            check_backend(*b, f);
            used += b->used();
            probing += b->probing;
            connections += b->connections();
            const uint32_t slots = b->rules.slots ? b->rules.slots : UINT32_MAX;
            f.expect(b->used() <= std::max(slots, b->most_used), "{} used of {} slots", b->used(), slots);
            const uint32_t bound = b->connection_bound() ? b->connection_bound() : UINT32_MAX;
            f.expect(b->connections() <= std::max(bound, b->most_connections), "{} connections, at most {}",
                     b->connections(), bound);
            f.expect(b->waiting == 0 || !has_permit(*b), "work waits for a connection that it may open");
            for (const Work* w = b->works.front(); w; w = b->works.next(*w))
                if (w->state != Work::State::granted && !w->is_orphan) known.push_back(w);
        }
        f.equal(u->used, used, "used of the upstream");
        f.equal(u->probing, probing, "probing of the upstream");
        f.equal(u->connections, connections, "connections of the upstream");
        const Ticket* head = nullptr;
        for (Ticket* t = u->queue.front(); t; t = u->queue.next(*t)) {
            f.expect(t->place_ == Ticket::Place::waiting, "a queued ticket does not wait");
            f.expect(t->number_ > last, "the queue is not in order of arrival");
            last = t->number_;
            bytes += t->bytes;
            ++count;
            unrestricted += !t->is_restricted();
            if (!head && !t->is_restricted()) head = t;
            const bool could_go = !head && dirty.empty() && can_place(*u, *t);
            f.expect(!could_go, "upstream {}: ticket {} waits for one that is free", static_cast<int>(u->id),
                     t->number_);
        }
        f.equal(u->waiting, count, "waiting");
        f.equal(u->unrestricted, unrestricted, "unrestricted");
        f.equal(u->bytes, bytes, "queue bytes");
        const bool settled = dirty.empty();
        f.expect(!head || !settled || !is_open(*u), "upstream {}: ticket {} waits while a slot is free",
                 static_cast<int>(u->id), head ? head->number_ : 0);
        f.expect(!settled || u->serving != Serving::none || count == 0,
                 "upstream {}: tickets wait for nobody", static_cast<int>(u->id));
        if (waiting) {
            const auto theirs = std::ranges::count_if(*waiting, [&](const Ticket* t) {
                return t->upstream == u->id && t->place_ == Ticket::Place::waiting;
            });
            f.equal(u->waiting, static_cast<uint64_t>(theirs), "waiting, by exchanges");
        }
    }
    for (auto& d : devices) {
        uint64_t used = 0;
        for (auto& u : upstreams)
            for (size_t i = 0; u && i < u->backends.size(); ++i)
                if (u->backends[i] && u->backends[i]->device == d.get()) used += u->backends[i]->used();
        f.equal(d->used, used, "used of the device");
    }
    if (!leases) return f.good;
    std::vector<const Work*> held;
    for (const Lease* lease : *leases)
        if (lease->work_ && lease->work_->state != Work::State::over) held.push_back(lease->work_);
    std::ranges::sort(known);
    std::ranges::sort(held);
    f.expect(std::ranges::adjacent_find(held) == held.end(), "two leases stand for one slot");
    f.expect(known == held, "{} slots are held, {} leases were found", known.size(), held.size());
    return f.good;
}

void ParkState::describe(ParkView& view) {
    view.upstreams.clear();
    view.devices.clear();
    for (auto& d : devices) view.devices.push_back({d->id, d->slots, d->used});
    for (auto& u : upstreams) {
        if (!u) continue;
        UpstreamView& v = view.upstreams.emplace_back();
        v.id = u->id;
        v.serving = u->serving;
        v.depth = u->waiting;
        v.queue_size = u->rules.queue_bound();
        v.bytes = u->bytes;
        v.used = u->used;
        v.connections = u->connections;
        v.mean_hold = u->mean_hold.value();
        v.wasted = u->wasted;
        for (size_t i = 1; i < circuit_limits; ++i) {
            const CircuitView c = circuit(*u, static_cast<CircuitLimit>(i));
            if (c.bound || c.breaker.refused()) v.circuits.push_back(c);
        }
        for (auto& b : u->backends) {
            if (!b) continue;
            v.abandoned += b->abandoned;
            if (b->state == BackendState::ready) v.slots += b->rules.slots;
            if (b->works.front()) v.oldest_since = std::min(v.oldest_since, b->works.front()->began);
            v.backends.push_back({.id = b->id,
                                  .state = b->state,
                                  .unfit = unfit(*b),
                                  .generation = b->generation,
                                  .slots = b->rules.slots,
                                  .weight = b->rules.weight,
                                  .backup = b->rules.backup,
                                  .used = b->used(),
                                  .granted = b->granted,
                                  .running = b->running,
                                  .abandoned = b->abandoned,
                                  .probing = b->probing,
                                  .stuck = b->stuck,
                                  .dialing = b->dialing,
                                  .busy = b->busy,
                                  .idle = b->idle,
                                  .closing = b->closing,
                                  .since = b->since,
                                  .until = b->until,
                                  .ejected = b->ejected,
                                  .restarting = b->restarting,
                                  .restart_why = b->restart_why,
                                  .ejected_for = b->ejected_for,
                                  .ejected_in_row = b->outlier.row,
                                  .ejections = b->ejections,
                                  .kept_by_min_healthy = b->kept_by_min_healthy,
                                  .kept_by_percent = b->kept_by_percent});
        }
    }
}

}  // namespace penstock
