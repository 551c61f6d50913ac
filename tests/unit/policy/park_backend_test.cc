// The states of a backend, row by row, and what an upstream is by its backends. Resting:
// park_resting_test.cc.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;
using Kind = Action::Kind;

TEST_CASE("Starting grants nothing; ready makes it Ready, and it grants") {
    ParkWorld world;
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1);
    CHECK(world.state(id) == BackendState::starting);
    auto a = world.arrive();
    CHECK(a->is_waiting());
    world.tell(id, Event::ready, 1);
    CHECK(world.state(id) == BackendState::ready);
    world.collect(*a);
    CHECK(a->is_granted());
    world.finish(*a, Outcome::unused);
}

TEST_CASE("Starting that failed is Down") {
    ParkWorld world;
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1);
    world.tell(id, Event::exited, 1, world.now + 500ms);
    CHECK(world.state(id) == BackendState::down);
    CHECK(world.serving() == Serving::coming);
}

TEST_CASE(
    "Ready: a connect failure makes it Suspect in the call that ends the lease, so it eats one ticket only") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto a = world.arrive();
    auto b = world.arrive_running();
    auto c = world.arrive_running();
    auto d = world.arrive();
    world.finish(*a, Outcome::connect_failed);
    CHECK(world.state(id) == BackendState::suspect);
    world.collect(*d);
    CHECK(d->is_waiting());
    world.cancel(*d);
    world.finish(*b);
    world.finish(*c);
}

TEST_CASE("Ready: an early close of a fresh connection makes it Suspect, that of a reused one says nothing") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.finish(*a, Outcome::stale);
    CHECK(world.state(id) == BackendState::ready);
    auto b = world.arrive_running();
    world.finish(*b, Outcome::early_close);
    CHECK(world.state(id) == BackendState::suspect);
}

TEST_CASE("Ready: ejected or unhealthy, it is Resting, and grants that nobody collected go elsewhere") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.finish(*a);
    world.tell(id, Event::eject, 1, world.now + 30s);
    CHECK(world.state(id) == BackendState::resting);
    const BackendId other = world.ready_backend();
    world.collect(*b);
    CHECK(b->is_granted());
    CHECK(b->lease.backend() == other);
    world.finish(*b, Outcome::unused);
}

TEST_CASE(
    "Ready: stop, recycle and reload make it Draining; leases go on, grants too, and nothing new begins") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.tell(id, Event::drain, 1, world.now + 10s);
    CHECK(world.state(id) == BackendState::draining);
    CHECK(world.serving() == Serving::coming);
    auto c = world.arrive();
    CHECK(c->is_waiting());
    world.run(*b);
    world.finish(*a);
    world.finish(*b);
    world.collect(*c);
    CHECK(c->is_waiting());
    world.cancel(*c);
}

TEST_CASE("Ready: its exit makes it Down; nothing of the dead generation is used") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive_running();
    world.abandon(*c, Abandon::drain);
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.state(id) == BackendState::down);
    CHECK(world.view(id).used == 0);
    CHECK(world.view(id).busy + world.view(id).dialing == 0);
    CHECK(world.connect(*b) == Connect::lost);
    world.finish(*a, Outcome::cut);
    world.finish(*b, Outcome::unused);
    world.finish(*c, Outcome::cut);
    CHECK(world.view(id).used == 0);
}

TEST_CASE("Suspect: the main thread is asked to find out; alive makes it Ready at once") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tick();
    auto a = world.arrive();
    world.main_woken = false;
    world.finish(*a, Outcome::connect_failed);
    CHECK(world.main_woken);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::probe);
    CHECK(actions[0].backend == id);
    auto b = world.arrive();
    CHECK(b->is_waiting());
    world.tell(id, Event::alive);
    CHECK(world.state(id) == BackendState::ready);
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Suspect: connect failures in a row make it wait longer each time before it is Ready, up to 2 s") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    Duration last{};
    for (int i = 0; i < 12; ++i) {
        auto a = world.arrive();
        REQUIRE(a->is_granted());
        world.finish(*a, Outcome::connect_failed);
        world.tell(id, Event::alive);
        Duration waited{};
        while (world.state(id) == BackendState::suspect) {
            world.pass(25ms);
            waited += 25ms;
        }
        CHECK(waited >= last);
        CHECK(waited <= 2s);
        last = waited;
    }
    CHECK(last == 2s);
    auto a = world.arrive_running();
    world.finish(*a, Outcome::answered);  // it serves again
    auto b = world.arrive();
    world.finish(*b, Outcome::connect_failed);
    world.tell(id, Event::alive);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Suspect: after a failed probe nobody waits for it; alive brings it back") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    world.tell(id, Event::suspect);
    auto a = world.arrive();
    CHECK(a->is_waiting());
    world.tell(id, Event::probe_failed);
    CHECK(world.serving() == Serving::none);
    world.collect(*a);
    CHECK(a->refusal() == Refusal::no_backend);
    world.tell(id, Event::alive);
    CHECK(world.serving() == Serving::serving);
}

TEST_CASE(
    "Suspect: who waits for one that we spawned waits on after a failed probe, it will be started again") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1, .spawned = true});
    world.tell(id, Event::suspect);
    auto a = world.arrive();
    world.tell(id, Event::probe_failed);
    CHECK(world.serving() == Serving::coming);
    CHECK(a->is_waiting());
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.serving() == Serving::coming);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    world.collect(*a);
    CHECK(a->is_granted());
    world.run(*a);
    world.finish(*a, Outcome::answered);
}

TEST_CASE("Suspect: its exit makes it Down") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::suspect);
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.state(id) == BackendState::down);
}

TEST_CASE("Draining: with nothing used and no idle connection left, the main thread is told to stop it") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.finish(*a, Outcome::answered, Keep::idle);
    world.tell(id, Event::drain);
    CHECK(world.loop_was_woken(0));
    CHECK(world.tick().empty());
    CHECK_FALSE(world.finish(*b, Outcome::answered, Keep::idle).keep);  // not pooled any more
    CHECK(world.tick().empty());
    world.main_woken = false;
    CHECK(world.trim(0) == 1);
    CHECK(world.main_woken);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::stop);
}

TEST_CASE("Draining: an idle stop that finds something used, or somebody waiting, leaves it Ready") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.tell(id, Event::idle_stop);
    CHECK(world.state(id) == BackendState::ready);
    world.finish(*a);
    world.tell(id, Event::idle_stop);
    CHECK(world.state(id) == BackendState::draining);
    world.tell(id, Event::undrain);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Draining is not undone by health checks or news of life") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::drain);
    world.tell(id, Event::ready);
    world.tell(id, Event::alive);
    world.tell(id, Event::eject, 1, world.now + 1s);
    CHECK(world.state(id) == BackendState::draining);
}

TEST_CASE("Down: after its back-off the next generation starts; given up, it stays") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.serving() == Serving::coming);
    world.tell(id, Event::starting, 2);
    CHECK(world.state(id) == BackendState::starting);
    CHECK(world.view(id).generation == 2);
    world.tell(id, Event::exited, 2, world.now + 1s);
    world.tell(id, Event::gave_up, 2);
    CHECK(world.state(id) == BackendState::down);
    CHECK(world.serving() == Serving::none);
}

TEST_CASE("Gone: a removed backend drains, stops, and is forgotten when no lease refers to it") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    Wakes wakes;
    world.park.remove_backend(id, world.now, wakes);
    CHECK(world.serving() == Serving::none);
    world.collect(*b);
    CHECK(b->refusal() == Refusal::no_backend);
    CHECK_FALSE(world.park.forget(id));
    CHECK(world.tick().empty());
    world.finish(*a);
    auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::stop);
    world.tell(id, Event::exited, 1);
    actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::forget);
    CHECK(world.park.forget(id));
    CHECK(world.view().backends.empty());
    world.tell(id, Event::ready, 2);  // late news find nothing
    world.closed(id);
}

TEST_CASE("Gone: another's server needs no stop") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    auto a = world.arrive_running();
    Wakes wakes;
    world.park.remove_backend(id, world.now, wakes);
    CHECK(world.tick().empty());
    world.finish(*a);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Kind::forget);
    CHECK(world.park.forget(id));
}

TEST_CASE("a number that was forgotten is given again only after a minute") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    Wakes wakes;
    world.park.remove_backend(id, world.now, wakes);
    REQUIRE(world.park.forget(id));
    CHECK_FALSE(world.backend({}) == id);
    world.now += 60s;
    CHECK(world.backend({}) == id);
}

TEST_CASE("an upstream that is removed refuses everybody, and is forgotten after its backends") {
    ParkWorld world;
    const UpstreamId other = world.park.add_upstream({});
    Wakes wakes;
    const BackendId id = world.park.add_backend(other, {}, world.now, wakes);
    world.tell(id, Event::ready, 1);
    CHECK(world.park.serving(other) == Serving::serving);
    world.park.remove_upstream(other, world.now, wakes);
    CHECK(world.park.peek(other, 0, never, world.now).refusal == Refusal::no_backend);
    CHECK_FALSE(world.park.forget(other));
    CHECK(world.park.forget(id));
    CHECK(world.park.forget(other));
    CHECK(world.park.add_upstream({}) == other);
}

TEST_CASE("news of a generation that has ended are dropped") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::exited, 1, world.now + 1s);
    world.tell(id, Event::ready, 1);
    CHECK(world.state(id) == BackendState::down);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::exited, 1);
    world.tell(id, Event::starting, 1);
    CHECK(world.state(id) == BackendState::starting);
    CHECK(world.view(id).generation == 2);
}

TEST_CASE("Serving: one Ready is enough; Coming: it is known when; None otherwise") {
    ParkWorld world;
    const BackendId a = world.ready_backend();
    const BackendId b = world.ready_backend();
    CHECK(world.serving() == Serving::serving);
    world.tell(a, Event::exited, 1, world.now + 5s);
    CHECK(world.serving() == Serving::serving);
    world.tell(b, Event::eject, 1, world.now + 5s);
    CHECK(world.serving() == Serving::coming);
    world.tell(a, Event::gave_up, 1);
    CHECK(world.serving() == Serving::coming);
    world.tell(b, Event::exited, 1, never);
    CHECK(world.serving() == Serving::none);
}

TEST_CASE("a backup serves only while no other backend is Ready, busy or not") {
    ParkWorld world;
    const BackendId first = world.ready_backend();
    const BackendId backup = world.ready_backend({.slots = 1, .backup = true, .spawned = true});
    auto a = world.arrive_running();
    CHECK(a->lease.backend() == first);
    auto b = world.arrive();
    CHECK(b->is_waiting());
    world.tell(first, Event::exited, 1, world.now + 1s);
    world.collect(*b);
    REQUIRE(b->is_granted());
    CHECK(b->lease.backend() == backup);
    world.finish(*a);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("least_busy spreads over backends, the one with an idle connection on the ticket's loop first") {
    ParkWorld world;
    const BackendId first = world.ready_backend({.slots = 2, .spawned = true});
    const BackendId second = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running(1);
    REQUIRE(a->lease.backend() == first);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.arrive(1);
    CHECK(b->lease.backend() == first);
    CHECK(b->lease.how() == Connect::reuse);
    auto c = world.arrive(1);
    CHECK(c->lease.backend() == second);
    world.finish(*b, Outcome::unused);
    world.finish(*c, Outcome::unused);
}

TEST_CASE("slow_start opens the slots one by one over its time, and each new one is dispatched") {
    ParkWorld world({.slow_start = 10s});
    const BackendId id = world.ready_backend({.slots = 5, .spawned = true});
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 5; ++i) all.push_back(world.arrive());
    CHECK(world.view(id).used == 1);
    world.pass(0s);
    for (uint32_t used = 2; used <= 5; ++used) {
        world.pass(world.next_tick - world.now);
        while (world.view(id).used < used && world.now < Time(1011s)) world.pass(world.next_tick - world.now);
        CHECK(world.view(id).used == used);
        CHECK(world.now - Time(1000s) == used * 2s);
    }
    for (auto& r : all) {
        if (r->is_waiting()) world.collect(*r);
        world.finish(*r, Outcome::unused);
    }
}

TEST_CASE("an action that has not helped is asked for again after a minute") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::suspect);
    CHECK(world.tick().size() == 1);
    CHECK(world.pass(59s).empty());
    CHECK(world.pass(1s).size() == 1);
}

}  // namespace
}  // namespace penstock
