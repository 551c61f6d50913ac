// The slots that probes take, of health checks and of Suspect backends.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

TEST_CASE("a probe of a limited backend takes a free slot, and is skipped when there is none") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    Lease probe = world.park.probe(id, world.now);
    REQUIRE(probe);
    CHECK(probe.how() == Connect::dial);
    CHECK(world.view(id).probing == 1);
    CHECK_FALSE(world.park.probe(id, world.now));
    auto a = world.arrive();
    CHECK(a->is_waiting());
    Wakes wakes;
    world.now += 1s;
    world.park.finish(probe, {Outcome::answered, Keep::closed}, world.now, wakes);
    CHECK(wakes.count == 1);
    CHECK(world.view().mean_hold == 0s);  // a probe is no service
    world.collect(*a);
    CHECK(a->is_granted());
    world.finish(*a, Outcome::unused);
}

TEST_CASE("a probe is skipped where an idle connection holds the last permit") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.finish(*a, Outcome::answered, Keep::idle);
    CHECK_FALSE(world.park.probe(id, world.now));
}

TEST_CASE("an idle connection that stands in the way of a probe is closed; work is not disturbed") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    const auto make_room = [&] {
        Wakes wakes;
        return world.park.make_room_for_probe(id, world.now, wakes);
    };
    auto a = world.arrive_running();
    CHECK_FALSE(make_room());
    world.finish(*a, Outcome::answered, Keep::idle);
    CHECK(make_room());
    CHECK(make_room());  // it is on its way
    const Trims trims = world.park.idle_to_close(0, world.now);
    REQUIRE(trims.count == 1);
    CHECK(trims.items[0].connections == 1);
    CHECK_FALSE(world.park.probe(id, world.now));
    Wakes wakes;
    world.park.connection_closed(id, 1, world.now, wakes);
    CHECK(make_room());
    Lease probe = world.park.probe(id, world.now);
    REQUIRE(probe);
    CHECK_FALSE(make_room());
    world.park.finish(probe, {Outcome::answered, Keep::closed}, world.now, wakes);
}

TEST_CASE("a probe is nobody's request: it takes no place of max_requests, and needs none") {
    ParkWorld world({.max_requests = 1});
    const BackendId id = world.ready_backend({.slots = 3});
    Lease probe = world.park.probe(id, world.now);
    REQUIRE(probe);
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->is_waiting());
    REQUIRE(world.view().circuits.at(0).limit == CircuitLimit::requests);
    CHECK(world.view().circuits.at(0).now == 1);
    Lease another = world.park.probe(id, world.now);
    REQUIRE(another);
    Wakes wakes;
    world.park.finish(probe, {Outcome::answered, Keep::closed}, world.now, wakes);
    world.park.finish(another, {Outcome::answered, Keep::closed}, world.now, wakes);
    world.finish(*a);
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("a Suspect backend can be probed, one that is down or starts cannot") {
    ParkWorld world;
    const BackendId id = world.backend({.spawned = true});
    CHECK_FALSE(world.park.probe(id, world.now));
    world.tell(id, Event::starting, 1);
    CHECK_FALSE(world.park.probe(id, world.now));
    world.tell(id, Event::ready, 1);
    world.tell(id, Event::suspect, 1);
    Lease probe = world.park.probe(id, world.now);
    CHECK(probe);
    Wakes wakes;
    world.park.finish(probe, {Outcome::connect_failed, Keep::closed}, world.now, wakes);
    CHECK(world.state(id) == BackendState::suspect);
}

}  // namespace
}  // namespace penstock
