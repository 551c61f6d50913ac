// Devices: slots that several upstreams share.
#include <doctest/doctest.h>
#include <memory>

#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

struct TwoUpstreams : ParkWorld {
    TwoUpstreams() {
        device = park.add_device(1);
        first = ready_on(upstream);
        other = park.add_upstream({});
        second = ready_on(other);
    }
    BackendId ready_on(UpstreamId u) {
        Wakes w;
        const BackendId id = park.add_backend(u, {.slots = 2, .spawned = true, .device = device}, now, w);
        tell(id, Event::starting, 1);
        tell(id, Event::ready, 1);
        return id;
    }
    std::unique_ptr<Request> arrive_at(UpstreamId u) {
        auto r = request();
        r->ticket.upstream = u;
        admit(*r);
        return r;
    }
    uint32_t used_of_device() {
        ParkView all;
        park.describe(all, now);
        return all.devices[0].used;
    }

    DeviceId device;
    UpstreamId other;
    BackendId first, second;
};

TEST_CASE("a ticket takes backend and device slot together") {
    TwoUpstreams world;
    auto a = world.arrive();
    REQUIRE(a->is_granted());
    CHECK(world.used_of_device() == 1);
    auto b = world.arrive_at(world.other);
    CHECK(b->is_waiting());
    CHECK(world.view(world.first).unfit == Unfit::device_busy);
    world.finish(*a, Outcome::unused);
    CHECK(world.was_woken(*b));
    CHECK(world.used_of_device() == 1);
    world.cancel(*b);
    CHECK(world.used_of_device() == 0);
}

TEST_CASE("a device slot that comes free goes to the oldest ticket of all its upstreams") {
    TwoUpstreams world;
    auto a = world.arrive_running();
    auto b = world.arrive_at(world.other);
    auto c = world.arrive();
    auto d = world.arrive_at(world.other);
    world.finish(*a);
    CHECK(world.was_woken(*b));
    CHECK_FALSE(world.was_woken(*c));
    world.cancel(*b);
    CHECK(world.was_woken(*c));
    CHECK_FALSE(world.was_woken(*d));
    world.cancel(*c);
    CHECK(world.was_woken(*d));
    world.cancel(*d);
}

TEST_CASE("an older ticket whose backends are full does not keep a device from another upstream") {
    TwoUpstreams world;
    Wakes wakes;
    world.park.set_device(world.device, 3, world.now, wakes);
    auto a = world.arrive_running();
    auto b = world.arrive_running();
    auto c = world.arrive();  // its two slots are taken
    CHECK(c->is_waiting());
    auto d = world.arrive_at(world.other);
    CHECK(d->is_granted());
    world.cancel(*c);
    world.finish(*a);
    world.finish(*b);
    world.finish(*d, Outcome::unused);
}

TEST_CASE("the exit of a worker gives its device slots to the other upstream") {
    TwoUpstreams world;
    auto a = world.arrive_running();
    auto b = world.arrive_at(world.other);
    world.tell(world.first, Event::exited, 1, world.now + 1s);
    CHECK(world.was_woken(*b));
    CHECK(world.used_of_device() == 1);
    world.finish(*a, Outcome::cut);
    CHECK(world.used_of_device() == 1);
    world.cancel(*b);
}

TEST_CASE("abandoned work holds its device slot") {
    TwoUpstreams world;
    auto a = world.arrive_running();
    world.abandon(*a, Abandon::drain);
    auto b = world.arrive_at(world.other);
    CHECK(b->is_waiting());
    world.finish(*a);
    CHECK(world.was_woken(*b));
    world.cancel(*b);
}

TEST_CASE("raising a device's slots dispatches, lowering them evicts nobody") {
    TwoUpstreams world;
    auto a = world.arrive_running();
    auto b = world.arrive_at(world.other);
    Wakes wakes;
    world.park.set_device(world.device, 2, world.now, wakes);
    CHECK(wakes.count == 1);
    world.collect(*b);
    CHECK(b->is_granted());
    world.park.set_device(world.device, 1, world.now, wakes);
    CHECK(world.used_of_device() == 2);
    auto c = world.arrive();
    world.finish(*a);
    world.collect(*c);
    CHECK(c->is_waiting());
    world.finish(*b, Outcome::unused);
    world.collect(*c);
    CHECK(c->is_granted());
    world.finish(*c, Outcome::unused);
}

TEST_CASE("a ticket of an upstream with two devices takes the one that is free") {
    TwoUpstreams world;
    const DeviceId another = world.park.add_device(1);
    Wakes w;
    const BackendId third =
        world.park.add_backend(world.upstream, {.spawned = true, .device = another}, world.now, w);
    world.tell(third, Event::starting, 1);
    world.tell(third, Event::ready, 1);
    auto b = world.arrive_at(world.other);
    REQUIRE(b->is_granted());
    auto a = world.arrive();
    REQUIRE(a->is_granted());
    CHECK(a->lease.backend() == third);
    world.finish(*a, Outcome::unused);
    world.finish(*b, Outcome::unused);
}

}  // namespace
}  // namespace penstock
