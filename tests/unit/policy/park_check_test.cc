// "Always true after a call": that the self-check sees what is true, and what is not.
#include <array>
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

TEST_CASE("the leases and tickets found by walking the loops are those that the park counts") {
    ParkWorld world;
    world.ready_backend({.slots = 3, .spawned = true});
    auto held = world.arrive();
    auto running = world.arrive_running();
    auto abandoned = world.arrive_running();
    world.abandon(*abandoned, Abandon::drain);
    auto waiting = world.arrive();
    const std::array<const Lease*, 3> leases{&held->lease, &running->lease, &abandoned->lease};
    const std::array<const Ticket*, 1> tickets{&waiting->ticket};
    std::string why;
    CHECK(world.park.check(leases, tickets, &why));
    CHECK(why.empty());
    world.finish(*held, Outcome::unused);
    world.finish(*running);
    world.finish(*abandoned);
    world.cancel(*waiting);
}

TEST_CASE("a lease that nobody holds, and a ticket that nobody waits with, are found out") {
    ParkWorld world;
    world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    auto c = world.arrive();
    const std::array<const Lease*, 1> one{&a->lease};
    const std::array<const Lease*, 2> both{&a->lease, &b->lease};
    const std::array<const Ticket*, 1> tickets{&c->ticket};
    std::string why;
    CHECK_FALSE(world.park.check(one, tickets, &why));
    CHECK(why == "2 slots are held, 1 leases were found");
    CHECK_FALSE(world.park.check(both, {}, &why));
    CHECK(why == "waiting, by exchanges: 1 counted, 0 found");
    CHECK(world.park.check(both, tickets, nullptr));
    world.cancel(*c);
    world.finish(*a);
    world.finish(*b);
}

TEST_CASE("a lease of work that is over stands for nothing") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.tell(id, BackendNews::Event::exited, 1);
    const std::array<const Lease*, 1> leases{&a->lease};
    CHECK(world.park.check(leases, {}, nullptr));
    world.finish(*a);
}

TEST_CASE("used = granted + running + abandoned + probing, and the view says so") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 4, .weight = 3, .spawned = true});
    auto held = world.arrive();
    auto running = world.arrive_running();
    auto abandoned = world.arrive_running();
    world.abandon(*abandoned, Abandon::drain);
    Lease probe = world.park.probe(id, world.now);
    const BackendView b = world.view(id);
    CHECK(b.used == 4);
    CHECK(b.granted == 1);
    CHECK(b.running == 1);
    CHECK(b.abandoned == 1);
    CHECK(b.probing == 1);
    CHECK(b.weight == 3);
    CHECK(b.unfit == Unfit::busy);
    const UpstreamView u = world.view();
    CHECK(u.used == 4);
    CHECK(u.slots == 4);
    CHECK(u.queue_size == 100);
    CHECK(u.oldest_since == world.now);
    Wakes wakes;
    world.park.finish(probe, {Outcome::answered, Keep::closed}, world.now, wakes);
    world.finish(*held, Outcome::unused);
    world.finish(*running);
    world.finish(*abandoned);
}

}  // namespace
}  // namespace penstock
