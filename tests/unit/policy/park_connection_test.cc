// Permits: never more connections to a backend than it has slots, over all loops, idle ones included.
#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

uint32_t connections(const BackendView& b) { return b.dialing + b.busy + b.idle + b.closing; }

TEST_CASE("a grant with an idle connection on its own loop reuses it, else it dials") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive(1);
    CHECK(a->lease.how() == Connect::dial);
    CHECK(world.view(id).dialing == 1);
    world.run(*a);
    CHECK(world.view(id).busy == 1);
    CHECK(world.finish(*a, Outcome::answered, Keep::idle).keep);
    CHECK(world.view(id).idle == 1);
    auto b = world.arrive(1);
    CHECK(b->lease.how() == Connect::reuse);
    CHECK(world.view(id).idle == 0);
    CHECK(world.view(id).busy == 1);
    world.finish(*b, Outcome::unused, Keep::idle);
    CHECK(world.view(id).idle == 1);
}

TEST_CASE(
    "if an idle connection elsewhere holds the last permit, it is closed and confirmed before the owner "
    "dials") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.arrive(1);
    REQUIRE(b->is_granted());
    CHECK(b->lease.how() == Connect::wait);
    CHECK(world.loop_was_woken(0));
    const Trims trims = world.park.idle_to_close(0, world.now);
    REQUIRE(trims.count == 1);
    CHECK(trims.items[0].backend == id);
    CHECK(trims.items[0].connections == 1);
    CHECK(world.park.idle_to_close(0, world.now).count == 0);  // a doubled wake closes nothing more
    CHECK(world.connect(*b) == Connect::wait);
    CHECK_FALSE(world.was_woken(*b));
    world.closed(id);
    CHECK(world.was_woken(*b));
    CHECK(world.connect(*b) == Connect::dial);
    CHECK(world.connect(*b) == Connect::dial);  // asking twice changes nothing
    CHECK(world.view(id).dialing == 1);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("a connection that is being closed holds its permit until its descriptor is closed") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.finish(*a, Outcome::answered, Keep::closing);
    auto b = world.arrive(0);
    CHECK(b->lease.how() == Connect::wait);
    world.closed(id);
    CHECK(world.connect(*b) == Connect::dial);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("lost wakes of permits and of trims are sent again") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.arrive(1);
    world.woken.clear();
    world.pass(200ms);
    CHECK(world.loop_was_woken(0));
    world.trim(0);
    world.woken.clear();
    world.pass(200ms);
    CHECK(world.was_woken(*b));
    CHECK(world.connect(*b) == Connect::dial);
    world.woken.clear();
    world.pass(1s);
    CHECK(world.woken.empty());
    world.finish(*b, Outcome::unused);
    CHECK(connections(world.view(id)) == 0);
}

TEST_CASE(
    "a request that wants a fresh connection closes the idle one of its own loop, if that holds the last "
    "permit") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.request(0);
    b->ticket.fresh = true;
    world.admit(*b);
    CHECK(b->lease.how() == Connect::wait);
    CHECK(world.trim(0) == 1);
    CHECK(world.connect(*b) == Connect::dial);
    world.finish(*b, Outcome::unused);
    CHECK(world.view(id).idle == 0);
}

TEST_CASE("a pooled connection that turns out to be no good is closed, and its owner dials instead") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.arrive(0);
    REQUIRE(b->lease.how() == Connect::reuse);
    Wakes wakes;
    CHECK(world.park.redial(b->lease, world.now, wakes) == Connect::dial);  // there is a second permit
    CHECK(world.view(id).closing == 1);
    auto c = world.arrive(0);
    CHECK(c->lease.how() == Connect::wait);
    world.closed(id);
    CHECK(world.connect(*c) == Connect::dial);
    world.finish(*b, Outcome::unused);
    world.finish(*c, Outcome::unused);
}

TEST_CASE("a pooled connection that ended is no longer idle, and gives its permit back when it is closed") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    world.idle_ended(id, 0);
    CHECK(world.view(id).idle == 0);
    CHECK(world.view(id).closing == 1);
    auto b = world.arrive(0);
    CHECK(b->lease.how() == Connect::wait);
    world.closed(id);
    CHECK(world.connect(*b) == Connect::dial);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("while somebody waits for a permit, no connection goes idle: it would be closed at once") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running(0);
    auto b = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::closing);
    auto c = world.arrive(1);
    REQUIRE(c->lease.how() == Connect::wait);
    CHECK_FALSE(world.finish(*b, Outcome::answered, Keep::idle).keep);
    world.closed(id);
    CHECK(world.connect(*c) == Connect::dial);
    world.finish(*c, Outcome::unused);
}

TEST_CASE("permits come in the order in which they were asked for") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running(0);
    auto b = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::closing);
    world.finish(*b, Outcome::answered, Keep::closing);
    auto c = world.arrive(1);
    auto d = world.arrive(0);
    world.closed(id);
    CHECK(world.was_woken(*c));
    CHECK_FALSE(world.was_woken(*d));
    world.closed(id);
    CHECK(world.was_woken(*d));
    world.finish(*c, Outcome::unused);
    world.finish(*d, Outcome::unused);
}

TEST_CASE(
    "max_connections bounds the upstream: requests beyond it queue, and a full queue says circuit_open") {
    ParkWorld world({.queue_size = 1, .max_connections = 1});
    const BackendId first = world.ready_backend();
    world.ready_backend();
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->is_waiting());
    auto c = world.arrive();
    CHECK(c->refusal() == Refusal::circuit_open);
    CHECK(c->answer.limit == CircuitLimit::connections);
    CHECK(a->lease.backend() == first);
    world.finish(*a, Outcome::answered, Keep::closed);
    world.collect(*b);
    CHECK(b->is_granted());
    CHECK(b->lease.how() == Connect::dial);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("an idle connection to another backend gives its permit of max_connections") {
    ParkWorld world({.max_connections = 1, .affinity = Affinity::by_name});
    const BackendId first = world.ready_backend();
    const BackendId second = world.ready_backend({.slots = 1, .identity = 7, .spawned = true});
    auto a = world.arrive_running(0);
    REQUIRE(a->lease.backend() == first);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.request(1);
    b->ticket.key = 7;
    world.admit(*b);
    REQUIRE(b->lease.backend() == second);
    REQUIRE(b->lease.how() == Connect::wait);
    CHECK(world.trim(0) == 1);
    CHECK(world.connect(*b) == Connect::dial);
    CHECK(world.view().connections == 1);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("the connections of a generation end with it; late reports of them are dropped") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    world.finish(*a, Outcome::answered, Keep::idle);
    auto c = world.arrive_running(1);
    world.finish(*c, Outcome::answered, Keep::closing);
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(connections(world.view(id)) == 0);
    CHECK(world.view().connections == 0);
    world.tell(id, Event::starting, 2);
    world.tell(id, Event::ready, 2);
    world.closed(id, 1);
    world.idle_ended(id, 0, 1);
    world.finish(*b, Outcome::cut, Keep::closing);
    CHECK(connections(world.view(id)) == 0);
    CHECK(world.view().connections == 0);
}

TEST_CASE("a lease that waits for a permit when its generation ends is woken, and told that it is lost") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    auto a = world.arrive_running();
    world.finish(*a, Outcome::answered, Keep::closing);
    auto b = world.arrive(1);
    REQUIRE(b->lease.how() == Connect::wait);
    world.woken.clear();
    world.tell(id, Event::exited, 1, world.now + 1s);
    CHECK(world.was_woken(*b));
    CHECK(world.connect(*b) == Connect::lost);
    world.retry(*b, Outcome::unused);
    CHECK(b->is_waiting());
    world.cancel(*b);
}

TEST_CASE("a Suspect backend keeps no idle connections") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 2, .spawned = true});
    auto a = world.arrive_running(0);
    auto b = world.arrive(1);
    world.finish(*a, Outcome::answered, Keep::idle);
    world.finish(*b, Outcome::connect_failed);
    CHECK(world.loop_was_woken(0));
    CHECK(world.trim(0) == 1);
    CHECK(world.view(id).idle == 0);
}

TEST_CASE("when slots are lowered, idle connections beyond them are closed") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 3, .spawned = true});
    auto a = world.arrive_running(0);
    auto b = world.arrive_running(1);
    auto c = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    world.finish(*b, Outcome::answered, Keep::idle);
    world.set_rules(id, {.slots = 1, .spawned = true});
    CHECK(world.trim(0) + world.trim(1) == 2);
    CHECK(world.finish(*c, Outcome::answered, Keep::idle).keep);
    CHECK(connections(world.view(id)) == 1);
}

TEST_CASE("connections are counted but not bounded where a backend has no limit of slots") {
    ParkWorld world;
    const BackendId id = world.ready_backend({.slots = 0});
    auto a = world.arrive_running(0);
    auto b = world.arrive_running(1);
    CHECK(world.view(id).busy == 2);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto c = world.arrive(1);
    CHECK(c->lease.how() == Connect::dial);
    world.finish(*b);
    world.finish(*c, Outcome::unused);
}

TEST_CASE("where a connection carries many requests, the pool does as it likes") {
    ParkWorld world({.counts_connections = false});
    const BackendId id = world.ready_backend({.slots = 4, .spawned = true});
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->lease.how() == Connect::free);
    CHECK(connections(world.view(id)) == 0);
    CHECK(world.finish(*a, Outcome::answered, Keep::idle).keep);
    CHECK(world.view(id).idle == 0);
    world.finish(*b, Outcome::unused);
}

}  // namespace
}  // namespace penstock
