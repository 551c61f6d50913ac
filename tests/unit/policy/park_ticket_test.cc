// The ticket's table: Out, Waiting, Granted, Refused, and each way from one to another.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

TEST_CASE("a ticket that finds a free slot is granted at once, and is Out again with its lease") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive();
    REQUIRE(a->is_granted());
    CHECK(a->lease.backend() == id);
    CHECK(a->lease.generation() == 1);
    CHECK(world.woken.empty());  // nobody need be woken for what was handed over
    CHECK(world.view(id).granted == 1);
    world.finish(*a, Outcome::unused);
    CHECK(world.view(id).used == 0);
}

TEST_CASE("a ticket that finds no free slot waits until queue.timeout") {
    ParkWorld world({.queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    world.now += 1s;
    auto b = world.arrive();
    REQUIRE(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 30s);
    CHECK(world.view().depth == 1);
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("a ticket that finds the queue full is refused, and is Out") {
    ParkWorld world({.queue_size = 1});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    CHECK(c->refusal() == Refusal::queue_full);
    CHECK(c->answer.retry_after >= 1);
    world.finish(*a);
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Waiting to Granted: the slot that comes free goes to the oldest ticket, and only a wake travels") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive(1);
    auto c = world.arrive(0);
    world.finish(*a);
    CHECK(world.was_woken(*b));
    CHECK_FALSE(world.was_woken(*c));
    CHECK(world.woken.front().loop == 1);
    world.collect(*b);
    CHECK(b->is_granted());
    world.cancel(*c);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Waiting to Out: a cancelled ticket leaves the queue, with its bytes, in the same call") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive(0, 700);
    CHECK(world.view().bytes == 700);
    world.cancel(*b);
    CHECK(world.view().depth == 0);
    CHECK(world.view().bytes == 0);
    world.finish(*a);
    CHECK(world.view().used == 0);  // nobody is granted to
}

TEST_CASE(
    "Waiting to Refused: when the upstream turns None, all are refused at once, and Out when they ask") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    world.tell(id, Event::gave_up);
    CHECK(world.serving() == Serving::none);
    CHECK(world.was_woken(*b));
    CHECK(world.was_woken(*c));
    CHECK(world.view().depth == 0);
    world.collect(*b);
    CHECK(b->refusal() == Refusal::no_backend);
    world.cancel(*c);  // who is refused may also just leave
    world.finish(*a);
}

TEST_CASE("Granted: there is no queue timeout any more") {
    ParkWorld world({.queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.now += 29s;
    world.finish(*a);
    world.now += 10s;  // its owner's timer fires, and asks
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("Granted to Out: a cancelled grant goes to the next in line in the same call") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    world.finish(*a);
    REQUIRE(world.was_woken(*b));
    world.cancel(*b);
    CHECK(world.was_woken(*c));
    CHECK(world.view(id).used == 1);
    world.collect(*c);
    CHECK(c->is_granted());
    world.finish(*c, Outcome::unused);
}

TEST_CASE("Granted to Waiting: when its backend is lost, a ticket that has not collected keeps its number") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    world.finish(*a);
    REQUIRE(world.was_woken(*b));
    world.woken.clear();
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.view().depth == 2);
    world.collect(*b);
    CHECK(b->is_waiting());
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    world.woken.clear();
    world.collect(*b);
    CHECK(b->is_granted());
    CHECK(b->lease.generation() == 2);
    world.collect(*c);
    CHECK(c->is_waiting());
    world.cancel(*c);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("a timer that fires too early is told how long there is still to wait") {
    ParkWorld world({.queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    const Time until = b->answer.wait_until;
    world.now += 29999ms;
    world.collect(*b);
    CHECK(b->is_waiting());
    CHECK(b->answer.wait_until == until);
    world.now += 1ms;
    world.collect(*b);
    CHECK(b->refusal() == Refusal::queue_timeout);
    CHECK(world.view().depth == 0);
    world.finish(*a);
}

TEST_CASE("a lost wake is sent again until its ticket asks") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.finish(*a);
    world.woken.clear();  // lost
    world.pass(50ms);
    CHECK_FALSE(world.was_woken(*b));
    world.pass(60ms);
    CHECK(world.was_woken(*b));
    world.collect(*b);
    CHECK(b->is_granted());
    world.woken.clear();
    world.pass(1s);
    CHECK_FALSE(world.was_woken(*b));
    world.finish(*b, Outcome::unused);
}

TEST_CASE("a doubled wake finds a ticket that waits, and changes nothing") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    for (int i = 0; i < 3; ++i) {
        world.collect(*b);
        CHECK(b->is_waiting());
    }
    CHECK(world.view().depth == 1);
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("a ticket that was never admitted may be cancelled") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.request();
    world.cancel(*a);
    CHECK(world.view().depth == 0);
}

}  // namespace
}  // namespace penstock
