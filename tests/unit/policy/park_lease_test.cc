// The tables of leases and of abandoned work, row by row, and what counts as proof.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;
using Kind = Action::Kind;

TEST_CASE("Held to Over: a lease that was not used gives its slot back when it is dropped") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    auto b = world.arrive();
    CHECK(world.view(id).granted == 1);
    const Ended ended = world.finish(*a, Outcome::unused);
    CHECK(ended.by == Ended::By::owner);
    CHECK_FALSE(a->lease);
    CHECK(world.was_woken(*b));
    CHECK(world.view().mean_hold == 0s);  // no service, no sample
    world.cancel(*b);
}

TEST_CASE("Held to Over: after a failed dial the ticket is admitted again under its old number") {
    ParkWorld world;
    const BackendId first = world.ready_backend();
    const BackendId second = world.ready_backend();
    auto a = world.arrive();
    REQUIRE(a->lease.backend() == first);
    auto b = world.arrive_running();
    auto c = world.arrive();
    world.retry(*a, Outcome::connect_failed);
    CHECK(world.state(first) == BackendState::suspect);
    CHECK(a->is_waiting());
    world.finish(*b);
    world.collect(*a);
    CHECK(a->is_granted());  // before c, who came later
    CHECK(a->lease.backend() == second);
    world.cancel(*c);
    world.finish(*a, Outcome::unused);
}

TEST_CASE("Held to Running: with the first byte sent, only proof ends it") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    world.run(*a);
    CHECK(world.view(id).granted == 0);
    CHECK(world.view(id).running == 1);
    world.run(*a);  // said twice, it is said once
    CHECK(world.view(id).running == 1);
    world.finish(*a);
}

TEST_CASE(
    "Running to Over: a complete response is proof, and its time is a sample of how long a slot is held") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.now += 7s;
    const Ended ended = world.finish(*a, Outcome::answered);
    CHECK(ended.held == 7s);
    CHECK(ended.wasted == 0s);
    CHECK_FALSE(ended.was_abandoned);
    CHECK(world.view(id).used == 0);
    CHECK(world.view().mean_hold == 7s);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Running to Over: a connection that the worker ended unasked is proof") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.finish(*a, Outcome::cut);
    CHECK(world.view(id).used == 0);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Running to Over: the exit of its generation is proof, and a late finish does nothing") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.now += 2s;
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.view(id).used == 0);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    auto b = world.arrive_running();
    world.now += 1s;
    const Ended ended = world.finish(*a, Outcome::answered, Keep::idle);
    CHECK(ended.by == Ended::By::worker_exit);
    CHECK(ended.held == 2s);
    CHECK_FALSE(ended.keep);
    CHECK(world.view(id).used == 1);  // b's
    world.finish(*b);
}

TEST_CASE("Running: no amount of time gives the slot back") {
    ParkWorld world({.queue_timeout = 0s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->answer.wait_until == never);
    for (int i = 0; i < 100; ++i) world.pass(1h);
    CHECK(world.view(id).used == 1);
    world.collect(*b);
    CHECK(b->is_waiting());
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE(
    "Running to Abandoned: the slot stays taken without a client, and the time until its end is wasted") {
    ParkWorld world({.abandon_limit = 300s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.now += 5s;
    world.abandon(*a, Abandon::drain);
    CHECK(world.view(id).running == 0);
    CHECK(world.view(id).abandoned == 1);
    CHECK(world.view().abandoned == 1);
    CHECK_FALSE(world.was_woken(*b));
    world.now += 15s;
    const Ended ended = world.finish(*a, Outcome::answered);
    CHECK(ended.was_abandoned);
    CHECK(ended.held == 20s);
    CHECK(ended.wasted == 15s);
    CHECK(world.view().wasted == 15s);
    CHECK(world.view().mean_hold == 20s);  // abandoned work included
    CHECK(world.was_woken(*b));
    world.cancel(*b);
}

TEST_CASE("Running: a lease let go without a word is abandoned, and ends by exit of its generation") {
    Park park(1, 1);  // not strict: a test's park calls it an error
    Wakes wakes;
    Time now{1s};
    const UpstreamId u = park.add_upstream({});
    const BackendId id = park.add_backend(u, {.spawned = true}, now, wakes);
    park.backend_event(id, ParkWorld::news(Event::starting, 1), now, wakes);
    park.backend_event(id, ParkWorld::news(Event::ready, 1), now, wakes);
    Ticket ticket;
    ticket.upstream = u;
    {
        Admission a = park.admit(ticket, now, wakes);
        REQUIRE(a.lease);
        park.run(a.lease, now);
    }
    ParkView view;
    park.describe(view, now);
    CHECK(view.upstreams[0].backends[0].abandoned == 1);
    park.backend_event(id, ParkWorld::news(Event::exited, 1), now, wakes);
    park.describe(view, now);
    CHECK(view.upstreams[0].backends[0].used == 0);
    CHECK(park.check());
}

TEST_CASE("Held: a lease let go without a word is dropped") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    auto b = world.arrive();
    a->lease = Lease();
    CHECK(world.view(id).used == 1);  // b's by now
    world.tick();
    CHECK(world.was_woken(*b));
    world.cancel(*b);
}

TEST_CASE("a lease that moves stands for its slot once") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    Lease moved = std::move(a->lease);
    CHECK_FALSE(a->lease);
    CHECK(moved);
    CHECK(world.view(id).used == 1);
    a->lease = std::move(moved);
    world.finish(*a, Outcome::unused);
}

// --- Abandoned work

TEST_CASE("Draining to Over: the response is complete, or the worker closed") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.abandon(*b, Abandon::drain);
    world.finish(*a, Outcome::answered);
    CHECK(world.view(id).abandoned == 1);
    world.finish(*b, Outcome::cut);
    CHECK(world.view(id).abandoned == 0);
}

TEST_CASE("Draining to Stuck: at abandon_limit, and not a moment before") {
    ParkWorld world({.abandon_limit = 300s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.pass(299999ms);
    CHECK(world.view(id).stuck == 0);
    const auto actions = world.pass(1ms);
    CHECK(world.view(id).stuck == 1);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::restart);
    CHECK(actions[0].backend == id);
    CHECK(actions[0].generation == 1);
    world.finish(*a);
}

TEST_CASE("Closing to Over: the worker's end of the connection") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::close);
    CHECK(world.view(id).abandoned == 1);
    world.finish(*a, Outcome::cut);
    CHECK(world.view(id).abandoned == 0);
}

TEST_CASE("Closing to Stuck: at abandon_grace") {
    ParkWorld world({.abandon_grace = 30s, .abandon_limit = 300s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::close);
    world.pass(29s);
    CHECK(world.view(id).stuck == 0);
    world.pass(1s);
    CHECK(world.view(id).stuck == 1);
    world.finish(*a, Outcome::cut);
}

TEST_CASE("on_abandon restart: drained until abandon_grace, then Stuck") {
    ParkWorld world({.abandon_grace = 30s, .abandon_limit = 300s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::restart);
    const auto actions = world.pass(30s);
    CHECK(world.view(id).stuck == 1);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::restart);
    world.finish(*a);
}

TEST_CASE(
    "Draining to Closing: framing lost while draining gives abandon_grace, and never more than was left") {
    ParkWorld world({.abandon_grace = 30s, .abandon_limit = 100s});
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.abandon(*b, Abandon::drain);
    world.pass(10s);
    world.abandon(*a, Abandon::close);  // until 40 s
    world.pass(30s);
    CHECK(world.view(id).stuck == 1);
    world.pass(50s);
    world.abandon(*b, Abandon::close);  // 10 s were left
    world.pass(10s);
    CHECK(world.view(id).stuck == 2);
    world.finish(*a, Outcome::cut);
    world.finish(*b, Outcome::cut);
}

TEST_CASE("Stuck, spawned: no new grants, live leases finish, then the restart; its exit frees the slots") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto stuck = world.arrive_running();
    auto live = world.arrive_running();
    world.abandon(*stuck, Abandon::drain);
    CHECK(world.pass(10s).empty());  // there is a live one
    CHECK(world.view(id).unfit == Unfit::restarting);
    auto waiting = world.arrive();
    CHECK(waiting->is_waiting());  // though two slots are free
    CHECK(world.serving() == Serving::coming);
    world.main_woken = false;
    world.finish(*live);
    CHECK(world.main_woken);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::restart);
    CHECK(world.tick().empty());  // asked once
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.park.is_over(stuck->lease));
    CHECK(world.view(id).used == 0);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    world.collect(*waiting);
    CHECK(waiting->is_granted());
    CHECK(world.finish(*stuck).by == Ended::By::worker_exit);
    world.finish(*waiting, Outcome::unused);
}

TEST_CASE("Stuck, spawned: who is removed before the restart is stopped, and not started again") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto stuck = world.arrive_running();
    auto live = world.arrive_running();
    world.abandon(*stuck, Abandon::drain);
    CHECK(world.pass(10s).empty());
    CHECK(world.view(id).unfit == Unfit::restarting);
    Wakes wakes;
    world.park.remove_backend(id, world.now, wakes);
    world.finish(*live);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::stop);
    world.tell(id, Event::exited, 1);
    world.finish(*stuck);
}

TEST_CASE("Stuck, spawned: a restart waits until the slot was blocked for as long as the restart will take") {
    ParkWorld world({.abandon_grace = 1s, .abandon_limit = 300s});
    const BackendId id = world.backend({.slots = 2, .spawned = true});
    world.tell(id, Event::starting, 1);
    world.tell(id, ParkWorld::news(Event::ready, 1, never, 60s));  // back-off and start: a minute
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::restart);
    CHECK(world.pass(1s).empty());
    CHECK(world.view(id).stuck == 1);
    auto b = world.arrive();
    CHECK(b->is_granted());  // until then the other slot serves
    world.finish(*b, Outcome::unused);
    CHECK(world.pass(58s).empty());
    const auto actions = world.pass(1s);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::restart);
    world.finish(*a);
}

TEST_CASE("Stuck, spawned: the time that a start took is its cost where nobody says more") {
    ParkWorld world({.abandon_grace = 1s});
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1);
    world.now += 20s;
    world.tell(id, Event::ready, 1);
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::restart);
    CHECK(world.pass(19s).empty());
    CHECK(world.pass(1s).size() == 1);
    world.finish(*a);
}

TEST_CASE("Stuck, spawned: never two restarts of one upstream at the same time") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId first = world.ready_backend();
    const BackendId second = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.abandon(*b, Abandon::drain);
    auto actions = world.pass(10s);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].backend == first);
    CHECK(world.pass(5s).empty());
    world.tell(first, Event::exited, 1, world.now + 1s);
    world.tell(first, Event::starting, 2);
    CHECK(world.pass(5s).empty());  // it is not back yet
    world.tell(first, Event::ready, 2);
    actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].backend == second);
    world.finish(*a);
    world.finish(*b);
}

TEST_CASE("Stuck, spawned: work that ends by itself before the restart was asked for saves the worker") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto stuck = world.arrive_running();
    auto live = world.arrive_running();
    world.abandon(*stuck, Abandon::drain);
    CHECK(world.pass(10s).empty());
    CHECK(world.view(id).unfit == Unfit::restarting);
    world.finish(*stuck, Outcome::answered);
    CHECK(world.view(id).unfit == Unfit::fit);
    CHECK(world.serving() == Serving::serving);
    world.finish(*live);
    CHECK(world.tick().empty());
}

TEST_CASE("Stuck, Draining: a worker that stops anyway is stopped when only stuck work is left") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.tell(id, Event::drain);
    CHECK(world.tick().empty());
    const auto actions = world.pass(10s);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::stop);
    world.finish(*a);
}

TEST_CASE(
    "Stuck, another's server: its slot is over, its owner is woken to close, and a probe must get through") {
    ParkWorld world({.abandon_limit = 10s});
    const BackendId id = world.ready_backend({.slots = 1});
    auto a = world.arrive_running();
    auto b = world.arrive();
    const Handle owner = world.abandon(*a, Abandon::drain);
    const auto actions = world.pass(10s);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::probe);
    CHECK(world.state(id) == BackendState::suspect);
    CHECK(world.view(id).used == 0);
    CHECK(world.was_woken(owner));
    CHECK(world.park.is_over(a->lease));
    const Ended ended = world.finish(*a, Outcome::cut, Keep::closing);
    CHECK(ended.by == Ended::By::given_up);
    CHECK(ended.wasted == 10s);
    CHECK(world.view(id).closing == 1);
    world.tell(id, Event::alive);
    world.collect(*b);
    REQUIRE(b->is_granted());
    CHECK(b->lease.how() == Connect::wait);  // the old connection is open still
    world.closed(id);
    CHECK(world.connect(*b) == Connect::dial);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("abandon_limit 0 is no limit") {
    ParkWorld world({.abandon_limit = 0s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    world.pass(100h);
    CHECK(world.view(id).stuck == 0);
    world.finish(*a);
}

TEST_CASE("tick is called for in time for the next deadline of abandoned work") {
    ParkWorld world({.abandon_grace = 500ms});
    world.ready_backend();
    world.tick();
    auto a = world.arrive_running();
    world.main_woken = false;
    world.abandon(*a, Abandon::close);
    CHECK(world.main_woken);
    world.tick();
    CHECK(world.next_tick == world.now + 500ms);
    world.finish(*a, Outcome::cut);
}

TEST_CASE("a lease that was not run and is abandoned is dropped") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    world.abandon(*a, Abandon::drain);
    CHECK_FALSE(a->lease);
    CHECK(world.view(id).used == 0);
}

TEST_CASE("abandoning work whose generation has ended wakes the new owner, who finds it over") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.tell(id, Event::exited, 1);
    const Handle owner = world.abandon(*a, Abandon::drain);
    CHECK(world.was_woken(owner));
    CHECK(world.park.is_over(a->lease));
    CHECK(world.finish(*a).by == Ended::By::worker_exit);
}

}  // namespace
}  // namespace penstock
