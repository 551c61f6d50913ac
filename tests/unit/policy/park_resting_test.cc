// Backends that rest: ejected, unhealthy, and what their one probing request says.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;
using Kind = Action::Kind;

TEST_CASE("Resting: at its end one probing request goes through; success makes it Ready") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 4, .spawned = true});
    world.tell(id, Event::eject, 1, world.now + 30s);
    auto a = world.arrive();
    auto b = world.arrive();
    CHECK(a->is_waiting());
    world.pass(29s);
    world.collect(*a);
    CHECK(a->is_waiting());
    world.pass(1s);
    world.collect(*a);
    REQUIRE(a->is_granted());
    world.collect(*b);
    CHECK(b->is_waiting());  // one only, though four slots are free
    world.run(*a);
    world.finish(*a, Outcome::answered);
    CHECK(world.state(id) == BackendState::ready);
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Resting: a probing request that fails makes it rest twice as long, up to max_ejection_time") {
    ParkWorld world({.start_timeout = 0s, .max_rest = 100s});
    const BackendId id = world.ready_backend();
    world.tell(id, Event::eject, 1, world.now + 30s);
    for (const Duration rest : {Duration(60s), Duration(100s), Duration(100s)}) {
        world.pass(world.view(id).until - world.now);
        auto a = world.arrive_running();
        world.finish(*a, Outcome::bad_answer);
        CHECK(world.state(id) == BackendState::resting);
        CHECK(world.view(id).until == world.now + rest);
    }
}

TEST_CASE("Resting: a probing request that was given up as too slow has failed, however it ends") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.pass(10s);
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain, Outcome::cut);
    CHECK(world.view(id).until == world.now + 20s);
    world.finish(*a, Outcome::answered);
    CHECK(world.state(id) == BackendState::resting);
}

TEST_CASE(
    "Resting: a probing request whose client left says nothing; when its work is over the next one probes") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.pass(10s);
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    auto b = world.arrive();
    CHECK(b->is_waiting());
    world.finish(*a, Outcome::answered);
    CHECK(world.state(id) == BackendState::resting);
    world.collect(*b);
    REQUIRE(b->is_granted());
    world.run(*b);
    world.finish(*b, Outcome::answered);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Resting: a probing request that is told to come again says nothing; the next one probes") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.pass(10s);
    auto a = world.arrive_running();
    world.finish(*a, Outcome::full);
    CHECK(world.state(id) == BackendState::resting);
    auto b = world.arrive_running();
    world.finish(*b, Outcome::answered);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Resting: a probing request that was never sent leaves the place to the next") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.pass(10s);
    auto a = world.arrive();
    REQUIRE(a->is_granted());
    world.finish(*a, Outcome::unused);
    CHECK(world.state(id) == BackendState::resting);
    auto b = world.arrive();
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Unhealthy, it rests without an end: nobody waits for it, until checks say that it is healthy") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    world.tell(id, Event::unhealthy);
    CHECK(world.state(id) == BackendState::resting);
    CHECK(world.view(id).unfit == Unfit::unhealthy);
    CHECK(world.serving() == Serving::none);
    world.tell(id, Event::healthy);
    CHECK(world.state(id) == BackendState::ready);
    CHECK(world.serving() == Serving::serving);
}

TEST_CASE("Unhealthy and ejected, it has to be healthy and to rest its time, whichever comes first") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.tell(id, Event::unhealthy);
    CHECK(world.view(id).until == never);
    world.pass(5s);
    world.tell(id, Event::healthy);
    CHECK(world.state(id) == BackendState::resting);
    CHECK(world.view(id).until == world.now + 5s);
    world.tell(id, Event::unhealthy);
    world.pass(5s);
    CHECK(world.view(id).unfit == Unfit::unhealthy);
    world.tell(id, Event::healthy);
    auto a = world.arrive_running();  // the probing request
    CHECK(world.view(id).unfit == Unfit::probing);
    world.finish(*a);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("Unhealthy while it drains, it is not Ready when that is taken back") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 1});
    world.tell(id, Event::drain);
    world.tell(id, Event::unhealthy);
    CHECK(world.state(id) == BackendState::draining);
    world.tell(id, Event::undrain);
    CHECK(world.view(id).unfit == Unfit::unhealthy);
    world.tell(id, Event::healthy);
    CHECK(world.state(id) == BackendState::ready);
}

TEST_CASE("the next generation of an unhealthy or ejected worker begins with a clean record") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    world.tell(id, Event::unhealthy);
    world.tell(id, Event::eject, 1, world.now + 10s);
    world.tell(id, Event::exited, 1, world.now + 1s);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    CHECK(world.state(id) == BackendState::ready);
}

}  // namespace
}  // namespace penstock
