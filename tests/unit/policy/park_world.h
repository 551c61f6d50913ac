// A park with a hand-turned clock, for tests: calls without their long tails, and the wakes they sent.
#pragma once

#include <doctest/doctest.h>
#include <memory>
#include <string>
#include <vector>

#include "policy/admission.h"

namespace penstock {

// A request as its exchange would keep it.
struct Request {
    Ticket ticket;
    Admission answer;  // the last one
    Lease lease;

    bool is_waiting() const { return answer.kind == Admission::Kind::waiting; }
    bool is_granted() const { return answer.kind == Admission::Kind::granted; }
    Refusal refusal() const {
        return answer.kind == Admission::Kind::refused ? answer.refusal : Refusal::none;
    }
};

struct ParkWorld {
    explicit ParkWorld(UpstreamRules rules = {}, unsigned loops = 2) : park(loops, 1, true) {
        upstream = park.add_upstream(rules);
    }
    ~ParkWorld() { expect_all_true(); }

    static BackendNews news(BackendNews::Event event, uint32_t generation, Time until = never,
                            Duration restart_cost = {}) {
        return {.event = event, .generation = generation, .until = until, .restart_cost = restart_cost};
    }

    // A worker (or, not spawned, another's server) that is Ready, in generation 1.
    BackendId ready_backend(BackendRules rules = {.slots = 1, .spawned = true}) {
        const BackendId id = backend(rules);
        if (rules.spawned) tell(id, news(BackendNews::Event::starting, 1));
        tell(id, news(BackendNews::Event::ready, 1, never, 1s));
        return id;
    }
    BackendId backend(BackendRules rules) {
        Wakes w;
        const BackendId id = park.add_backend(upstream, rules, now, w);
        keep(w);
        return id;
    }
    void tell(BackendId id, const BackendNews& n) {
        Wakes w;
        park.backend_event(id, n, now, w);
        keep(w);
    }
    void tell(BackendId id, BackendNews::Event event, uint32_t generation = 1, Time until = never) {
        tell(id, news(event, generation, until));
    }

    std::unique_ptr<Request> request(uint16_t loop = 0, uint64_t bytes = 0) {
        auto r = std::make_unique<Request>();
        r->ticket.upstream = upstream;
        r->ticket.bytes = bytes;
        r->ticket.set_wake({loop, {++last_slot, 1}});
        return r;
    }
    // Admits it.
    void admit(Request& r) {
        Wakes w;
        take(r, park.admit(r.ticket, now, w));
        keep(w);
    }
    std::unique_ptr<Request> arrive(uint16_t loop = 0, uint64_t bytes = 0) {
        auto r = request(loop, bytes);
        admit(*r);
        return r;
    }
    std::unique_ptr<Request> arrive_running(uint16_t loop = 0) {
        auto r = arrive(loop);
        REQUIRE(r->is_granted());
        run(*r);
        return r;
    }
    void collect(Request& r) {
        Wakes w;
        take(r, park.collect(r.ticket, now, w));
        keep(w);
    }
    void cancel(Request& r) {
        Wakes w;
        park.cancel(r.ticket, now, w);
        keep(w);
    }
    void run(Request& r) { park.run(r.lease, now); }
    Ended finish(Request& r, Outcome outcome = Outcome::answered, Keep keep_it = Keep::closed) {
        Wakes w;
        const Ended ended = park.finish(r.lease, {outcome, keep_it}, now, w);
        keep(w);
        return ended;
    }
    Ended retry(Request& r, Outcome outcome, Keep keep_it = Keep::closed) {
        Wakes w;
        Ended ended;
        take(r, park.retry(r.lease, {outcome, keep_it}, r.ticket, now, w, &ended));
        keep(w);
        return ended;
    }
    // The handle of the lease's new owner.
    Handle abandon(Request& r, Abandon how, Outcome so_far = Outcome::unused) {
        Wakes w;
        const Handle owner{1000 + ++last_slot, 1};
        park.abandon(r.lease, how, {0, owner}, now, w, so_far);
        keep(w);
        return owner;
    }
    Connect connect(Request& r) {
        Wakes w;
        const Connect c = park.connect(r.lease, now, w);
        keep(w);
        return c;
    }
    void closed(BackendId id, uint32_t generation = 1) {
        Wakes w;
        park.connection_closed(id, generation, now, w);
        keep(w);
    }
    void idle_ended(BackendId id, uint16_t loop, uint32_t generation = 1) {
        Wakes w;
        park.idle_ended(id, generation, loop, now, w);
        keep(w);
    }
    // Closes what the loop is asked to close, and confirms it.
    uint32_t trim(uint16_t loop) {
        uint32_t n = 0;
        const Trims trims = park.idle_to_close(loop, now);
        for (const Trims::Item& item : trims)
            for (uint32_t i = 0; i < item.connections; ++i, ++n) closed(item.backend, item.generation);
        return n;
    }
    Admission peek(uint64_t bytes = 0, Time deadline = never) {
        return park.peek(upstream, bytes, deadline, now);
    }
    std::vector<Action> tick() {
        Wakes w;
        Actions actions;
        next_tick = park.tick(now, w, actions);
        keep(w);
        circuits.assign(actions.circuits.begin(), actions.circuits.begin() + actions.circuit_count);
        return {actions.begin(), actions.end()};
    }
    std::vector<Action> pass(Duration d) {
        now += d;
        return tick();
    }

    void resume() {
        Wakes w;
        park.resume(now, w);
        keep(w);
    }
    void set_rules(BackendId id, const BackendRules& rules) {
        Wakes w;
        park.set_rules(id, rules, now, w);
        keep(w);
    }

    UpstreamView view() {
        ParkView all;
        park.describe(all, now);
        for (UpstreamView& u : all.upstreams)
            if (u.id == upstream) return u;
        FAIL("no such upstream");
        return {};
    }
    BackendView view(BackendId id) {
        ParkView all;
        park.describe(all, now);
        for (UpstreamView& u : all.upstreams)
            for (BackendView& b : u.backends)
                if (b.id == id) return b;
        FAIL("no such backend");
        return {};
    }
    BackendState state(BackendId id) { return view(id).state; }
    Serving serving() { return park.serving(upstream); }

    bool was_woken(Handle owner) const {
        for (const Wake& w : woken)
            if (w.to == owner) return true;
        return false;
    }
    bool was_woken(const Request& r) const { return was_woken(r.ticket.wake_handle()); }
    bool loop_was_woken(uint16_t loop) const {
        for (const Wake& w : woken)
            if (w.for_loop() && w.loop == loop) return true;
        return false;
    }

    void expect_all_true() {
        std::string why;
        const bool all_true = park.check(&why);
        INFO(why);
        CHECK(all_true);
    }

    Park park;
    UpstreamId upstream;
    Time now{1000s};
    Time next_tick{};
    std::vector<Wake> woken;  // since the test cleared it
    bool main_woken = false;
    bool more = false;  // of the last call

    std::vector<CircuitChange> circuits;  // as the last tick told them

  private:
    void take(Request& r, Admission&& a) {
        r.lease = std::move(a.lease);
        r.answer = std::move(a);
    }
    void keep(const Wakes& w) {
        woken.insert(woken.end(), w.begin(), w.end());
        main_woken = main_woken || w.main;
        more = w.more;
        expect_all_true();
    }
    uint32_t last_slot = 0;
};

}  // namespace penstock
