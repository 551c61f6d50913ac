// How long one waits, who is refused because he cannot or need not wait so long, and what he is told.
#include <doctest/doctest.h>
#include <memory>
#include <vector>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

TEST_CASE("while the upstream is Coming tickets wait up to start_timeout, then by queue.timeout") {
    ParkWorld world({.queue_timeout = 30s, .start_timeout = 120s});
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1, world.now + 60s);
    auto a = world.arrive();
    CHECK(a->is_waiting());
    CHECK(a->answer.wait_until == world.now + 120s);
    auto b = world.arrive();
    world.now += 60s;
    world.woken.clear();
    world.tell(id, Event::ready, 1);
    CHECK(world.was_woken(*a));  // granted
    CHECK(world.was_woken(*b));  // its deadline is another
    world.collect(*a);
    CHECK(a->is_granted());
    world.collect(*b);
    CHECK(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 30s);
    world.cancel(*b);
    world.finish(*a, Outcome::unused);
}

TEST_CASE("neither a crash nor a start makes the two clocks begin anew") {
    ParkWorld world({.queue_timeout = 30s, .start_timeout = 120s});
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    world.now += 10s;
    world.tell(id, Event::exited, 1, world.now + 1s);
    world.collect(*b);
    CHECK(b->answer.wait_until == world.now + 120s);
    world.now += 50s;
    world.tell(id, Event::starting, 2, world.now + 5s);
    world.collect(*b);
    CHECK(b->answer.wait_until == world.now + 70s);
    world.now += 5s;
    auto c = world.arrive();  // behind b
    world.tell(id, Event::ready, 2);
    world.collect(*c);
    CHECK(c->answer.wait_until == world.now + 30s);
    world.collect(*b);
    CHECK(b->is_granted());
    world.cancel(*c);
    world.finish(*a);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("who cannot wait until the upstream is ready is refused at once") {
    ParkWorld world({.start_timeout = 20s});
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1, world.now + 60s);
    auto a = world.arrive();
    CHECK(a->refusal() == Refusal::no_backend);
    CHECK(a->answer.retry_after >= 60);
    world.now += 45s;
    auto b = world.arrive();
    CHECK(b->is_waiting());
    auto c = world.request();
    c->ticket.deadline = world.now + 10s;
    world.admit(*c);
    CHECK(c->refusal() == Refusal::no_backend);
    // The start failed; the next one comes too late for b.
    world.tell(id, Event::exited, 1, world.now + 30s);
    CHECK(world.was_woken(*b));
    world.collect(*b);
    CHECK(b->refusal() == Refusal::no_backend);
}

TEST_CASE("who waited for a start that did not come is told that no backend is up") {
    ParkWorld world({.start_timeout = 20s});
    const BackendId id = world.backend({.spawned = true});
    world.tell(id, Event::starting, 1);  // nobody knows how long
    auto a = world.arrive();
    REQUIRE(a->is_waiting());
    world.now += 20s;
    world.collect(*a);
    CHECK(a->refusal() == Refusal::no_backend);
}

TEST_CASE("an upstream without any backend that may come refuses at once") {
    ParkWorld world;
    world.backend({.spawned = true});
    CHECK(world.serving() == Serving::none);
    CHECK(world.arrive()->refusal() == Refusal::no_backend);
}

TEST_CASE("Retry-After is everybody's turn before one's own, and never less than the oldest work's age") {
    ParkWorld world({.queue_size = 2});
    world.ready_backend();
    auto a = world.arrive_running();
    world.now += 10s;
    world.finish(*a);  // one sample: 10 s
    auto b = world.arrive_running();
    auto c = world.arrive();
    auto d = world.arrive();
    auto e = world.arrive();
    CHECK(e->refusal() == Refusal::queue_full);
    CHECK(e->answer.retry_after >= 30);
    CHECK(e->answer.retry_after <= 36);
    world.now += 29s;  // b runs longer than the mean
    auto f = world.arrive();
    CHECK(f->answer.retry_after >= 87);
    CHECK(f->answer.retry_after <= 105);
    world.cancel(*c);
    world.cancel(*d);
    world.finish(*b);
}

TEST_CASE("before any sample Retry-After is half the queue timeout") {
    ParkWorld world({.queue_size = 0, .queue_timeout = 30s});
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->answer.retry_after >= 15);
    CHECK(b->answer.retry_after <= 18);
    world.finish(*a);
}

TEST_CASE("refuse_hopeless refuses at arrival what cannot finish by its deadline") {
    ParkWorld world({.refuse_hopeless = true});
    world.ready_backend();
    auto a = world.arrive_running();
    world.now += 10s;
    world.finish(*a);
    auto hopeless = world.request();
    hopeless->ticket.deadline = world.now + 9s;
    world.admit(*hopeless);
    CHECK(hopeless->refusal() == Refusal::request_timeout);
    auto b = world.request();
    b->ticket.deadline = world.now + 11s;
    world.admit(*b);
    CHECK(b->is_granted());
    world.run(*b);
    auto c = world.request();
    c->ticket.deadline = world.now + 19s;  // 10 s to wait, 10 s to run
    world.admit(*c);
    CHECK(c->refusal() == Refusal::request_timeout);
    world.finish(*b);
}

TEST_CASE("refuse_hopeless refuses at dispatch what has waited too long to finish, and goes on to the next") {
    ParkWorld world({.refuse_hopeless = true});
    world.ready_backend();
    auto a = world.arrive_running();
    world.now += 10s;
    world.finish(*a);
    auto b = world.arrive_running();
    auto c = world.request();
    c->ticket.deadline = world.now + 25s;
    world.admit(*c);
    auto d = world.arrive();
    world.now += 20s;
    world.finish(*b);
    CHECK(world.was_woken(*c));
    CHECK(world.was_woken(*d));
    world.collect(*c);
    CHECK(c->refusal() == Refusal::request_timeout);
    world.collect(*d);
    CHECK(d->is_granted());
    world.finish(*d, Outcome::unused);
}

TEST_CASE("draining refuses those whose turn would come after the deadline, and lets the others go on") {
    ParkWorld world;
    world.ready_backend();
    auto a = world.arrive_running();
    world.now += 10s;
    world.finish(*a);
    auto running = world.arrive_running();
    std::vector<std::unique_ptr<Request>> waiting;
    for (int i = 0; i < 5; ++i) waiting.push_back(world.arrive());
    Wakes wakes;
    world.park.drain(world.now + 35s, world.now, wakes);  // turns after 10, 20, 30, 40, 50 s
    CHECK(world.view().depth == 3);
    world.collect(*waiting[4]);
    CHECK(waiting[4]->refusal() == Refusal::draining);
    world.collect(*waiting[3]);
    CHECK(waiting[3]->refusal() == Refusal::draining);
    world.collect(*waiting[2]);
    CHECK(waiting[2]->is_waiting());
    CHECK(world.arrive()->refusal() == Refusal::draining);
    world.now += 10s;
    world.finish(*running);
    world.collect(*waiting[0]);
    CHECK(waiting[0]->is_granted());
    world.finish(*waiting[0], Outcome::unused);
    for (auto& r : waiting) world.cancel(*r);
}

}  // namespace
}  // namespace penstock
