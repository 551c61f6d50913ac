// Order, bounds and room of the queue.
#include <doctest/doctest.h>
#include <memory>
#include <vector>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

TEST_CASE("a newcomer never overtakes: a slot that comes free is never his while others wait") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.finish(*a);  // granted to b, who has not asked yet
    auto c = world.arrive();
    CHECK(c->is_waiting());
    world.collect(*b);
    CHECK(b->is_granted());
    world.finish(*b, Outcome::unused);
    world.collect(*c);
    CHECK(c->is_granted());
    world.finish(*c, Outcome::unused);
}

TEST_CASE("slots go in order of arrival, over any number of backends") {
    ParkWorld world;
    world.ready_backend();
    world.ready_backend();
    std::vector<std::unique_ptr<Request>> running, waiting;
    for (int i = 0; i < 2; ++i) running.push_back(world.arrive_running());
    for (int i = 0; i < 6; ++i) waiting.push_back(world.arrive());
    for (size_t i = 0; i < waiting.size(); ++i) {
        world.finish(*running[i]);
        world.collect(*waiting[i]);
        REQUIRE(waiting[i]->is_granted());
        if (i + 1 < waiting.size()) {
            world.collect(*waiting[i + 1]);
            CHECK(waiting[i + 1]->is_waiting());
        }
        world.run(*waiting[i]);
        running.push_back(std::move(waiting[i]));
    }
    for (auto& r : running)
        if (r->lease) world.finish(*r);
}

TEST_CASE(
    "the queue is bounded by the smaller of queue.size and max_pending_requests; what runs does not count") {
    ParkWorld world({.queue_size = 5, .max_pending = 2});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    auto d = world.arrive();
    CHECK(b->is_waiting());
    CHECK(c->is_waiting());
    CHECK(d->refusal() == Refusal::queue_full);
    CHECK(d->answer.limit == CircuitLimit::pending);
    world.cancel(*b);
    world.cancel(*c);
    world.finish(*a);
}

TEST_CASE("queue.size 0 means no queue: busy is refused at once, idle is served") {
    ParkWorld world({.queue_size = 0});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->refusal() == Refusal::queue_full);
    world.finish(*a);
    auto c = world.arrive();
    CHECK(c->is_granted());
    world.finish(*c, Outcome::unused);
}

TEST_CASE("max_pending_requests 0 is no limit of its own") {
    ParkWorld world({.queue_size = 1, .max_pending = 0});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->is_waiting());
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("the bytes that wait are bounded; bytes that run are not counted") {
    ParkWorld world({.queue_bytes = 1000});
    world.ready_backend();
    auto a = world.arrive(0, 5000);
    REQUIRE(a->is_granted());
    world.run(*a);
    auto b = world.arrive(0, 600);
    auto c = world.arrive(0, 600);
    auto d = world.arrive(0, 400);
    CHECK(b->is_waiting());
    CHECK(c->refusal() == Refusal::queue_full);
    CHECK(d->is_waiting());
    CHECK(world.view().bytes == 1000);
    world.cancel(*b);
    world.cancel(*d);
    world.finish(*a);
}

TEST_CASE("peek says what admit would say, and keeps nothing") {
    ParkWorld world({.queue_size = 1, .queue_bytes = 100});
    const BackendId id = world.ready_backend();
    CHECK(world.peek().kind == Admission::Kind::granted);
    auto a = world.arrive_running();
    CHECK(world.peek().kind == Admission::Kind::waiting);
    CHECK(world.peek(101).refusal == Refusal::queue_full);
    auto b = world.arrive();
    CHECK(world.peek().refusal == Refusal::queue_full);
    CHECK(world.view().depth == 1);
    world.cancel(*b);
    world.finish(*a);
    world.tell(id, Event::gave_up);
    CHECK(world.peek().refusal == Refusal::no_backend);
}

TEST_CASE("a retried request keeps its number: it goes to the front") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.retry(*a, Outcome::cut);
    CHECK(a->is_granted());  // in one hold: nobody could take the slot in between
    world.run(*a);
    world.collect(*b);
    CHECK(b->is_waiting());
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("a retried request is never refused for room") {
    ParkWorld world({.queue_size = 1});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.retry(*a, Outcome::early_close);  // the backend is Suspect now
    CHECK(world.state(id) == BackendState::suspect);
    CHECK(a->is_waiting());
    CHECK(world.view().depth == 2);
    CHECK(world.arrive()->refusal() == Refusal::queue_full);
    world.tell(id, Event::alive);
    world.collect(*a);
    CHECK(a->is_granted());
    world.cancel(*b);
    world.finish(*a, Outcome::unused);
}

TEST_CASE(
    "queue.timeout is for all waits of a request: after 20 of 30 s and some service, a retry has 10 s left") {
    ParkWorld world({.queue_timeout = 30s});
    const BackendId first = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.now += 20s;
    world.finish(*a);
    world.collect(*b);
    REQUIRE(b->is_granted());
    world.run(*b);
    world.now += 100s;
    const BackendId second = world.ready_backend();
    auto c = world.arrive_running();
    CHECK(c->lease.backend() == second);
    b->ticket.excluded.add(first.index);
    world.retry(*b, Outcome::cut);  // may not go to the first, which is free; waits for the second
    REQUIRE(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 5s);  // then any would do
    auto d = world.arrive_running();
    world.now += 5s;
    world.collect(*b);
    REQUIRE(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 5s);
    world.finish(*c);
    world.collect(*b);
    CHECK(b->is_granted());
    CHECK(b->lease.backend() == second);
    world.finish(*b, Outcome::unused);
    world.finish(*d);
}

TEST_CASE("a restricted ticket may be passed over, an unrestricted one never") {
    ParkWorld world;
    const BackendId first = world.ready_backend();
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    auto restricted = world.request();
    restricted->ticket.excluded.add(first.index);
    world.admit(*restricted);
    auto c = world.arrive();
    auto d = world.arrive();
    REQUIRE(a->lease.backend() == first);
    world.finish(*a);
    CHECK_FALSE(world.was_woken(*restricted));
    CHECK(world.was_woken(*c));
    CHECK_FALSE(world.was_woken(*d));
    world.finish(*b);
    CHECK(world.was_woken(*restricted));
    CHECK_FALSE(world.was_woken(*d));
    for (auto* r : {&*restricted, &*c, &*d}) world.cancel(*r);
}

TEST_CASE("what a ticket excludes counts only while another backend is Ready") {
    ParkWorld world;
    const BackendId first = world.ready_backend();
    const BackendId second = world.ready_backend();
    world.tell(second, Event::exited, 1, world.now + 1s);
    auto a = world.request();
    a->ticket.excluded.add(first.index);
    world.admit(*a);
    CHECK(a->is_granted());
    CHECK(a->lease.backend() == first);
    world.finish(*a, Outcome::unused);
}

TEST_CASE(
    "max_requests bounds what runs in the whole upstream: it queues, and a full queue says circuit_open") {
    ParkWorld world({.queue_size = 1, .max_requests = 2});
    world.ready_backend({.slots = 4, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    auto c = world.arrive();
    auto d = world.arrive();
    CHECK(c->is_waiting());
    CHECK(d->refusal() == Refusal::circuit_open);
    CHECK(d->answer.limit == CircuitLimit::requests);
    world.finish(*a);
    world.collect(*c);
    CHECK(c->is_granted());
    world.finish(*b);
    world.finish(*c, Outcome::unused);
}

TEST_CASE("at most 32 grants or refusals are made in a call; the caller goes on until there is no more") {
    ParkWorld world({.queue_size = 1000});
    const BackendId id = world.backend({.slots = 200, .spawned = true});
    world.tell(id, Event::starting, 1);
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 100; ++i) all.push_back(world.arrive());
    world.woken.clear();
    world.tell(id, Event::ready, 1);
    CHECK(world.more);
    CHECK(world.woken.size() == Wakes::capacity);
    size_t calls = 1;
    for (; world.more; ++calls) world.resume();
    CHECK(calls < 12);
    CHECK(world.view().depth == 0);
    for (auto& r : all) {
        CHECK(world.was_woken(*r));
        world.collect(*r);
        CHECK(r->is_granted());
    }
    for (auto& r : all) world.finish(*r, Outcome::unused);
}

TEST_CASE("time does not go back: an earlier `now` counts as the latest one") {
    ParkWorld world({.queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    const Time latest = world.now;
    world.now -= 5s;
    auto b = world.arrive();
    CHECK(b->answer.wait_until == latest + 30s);
    world.now = latest;
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("lowering the slots below what runs starts nothing new and ends nothing; raising them dispatches") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.set_rules(id, {.slots = 1, .spawned = true});
    auto c = world.arrive();
    CHECK(c->is_waiting());
    CHECK(world.view(id).used == 2);
    world.finish(*a);
    CHECK_FALSE(world.was_woken(*c));
    world.finish(*b);
    CHECK(world.was_woken(*c));
    auto d = world.arrive();
    CHECK(d->is_waiting());
    world.set_rules(id, {.slots = 2, .spawned = true});
    CHECK(world.was_woken(*d));
    world.cancel(*c);
    world.cancel(*d);
}

TEST_CASE("limits of the upstream are read live: a longer queue takes more, other timeouts are told") {
    ParkWorld world({.queue_size = 1, .queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(world.arrive()->refusal() == Refusal::queue_full);
    world.woken.clear();
    Wakes wakes;
    world.park.set_rules(world.upstream, {.queue_size = 2, .queue_timeout = 60s}, world.now, wakes);
    CHECK(wakes.count == 1);
    world.collect(*b);
    CHECK(b->answer.wait_until == world.now + 60s);
    auto c = world.arrive();
    CHECK(c->is_waiting());
    Wakes again;
    world.park.set_rules(world.upstream, {.queue_size = 0}, world.now, again);
    CHECK(world.view().depth == 2);  // nobody is put out
    world.cancel(*b);
    world.cancel(*c);
    world.finish(*a);
}

TEST_CASE("the names of refusals are those of x-penstock-reason") {
    CHECK(to_string(Refusal::queue_full) == "queue_full");
    CHECK(to_string(Refusal::queue_timeout) == "queue_timeout");
    CHECK(to_string(Refusal::no_backend) == "no_backend");
    CHECK(to_string(Refusal::circuit_open) == "circuit_open");
    CHECK(to_string(Refusal::draining) == "draining");
    CHECK(to_string(Refusal::request_timeout) == "request_timeout");
}

}  // namespace
}  // namespace penstock
