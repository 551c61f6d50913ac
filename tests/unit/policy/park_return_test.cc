// How a backend that was ejected comes back: through one request, soon, whatever the policy likes.
#include <doctest/doctest.h>

#include "park_tries.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

UpstreamRules rules_with(Balancing balancing, Affinity affinity = Affinity::none) {
    UpstreamRules rules;
    rules.outlier = OutlierRules{.consecutive_5xx = 2, .consecutive_local_errors = 2};
    rules.balancing = balancing;
    rules.affinity = affinity;
    return rules;
}

// One request after the other on one loop, each leaving its connection idle.
BackendId one_more(ParkWorld& world, uint64_t key = 0, Outcome outcome = Outcome::answered) {
    auto request = world.request();
    request->ticket.key = key;
    world.admit(*request);
    REQUIRE(request->is_granted());
    const BackendId at = request->lease.backend();
    world.run(*request);
    world.finish(*request, outcome, Keep::idle);
    return at;
}

void eject(ParkWorld& world, BackendId id) {
    tries(world, id, 2, Outcome::bad_answer);
    REQUIRE(world.state(id) == BackendState::resting);
}

TEST_CASE("the first request after its rest goes to a backend that was ejected, under every policy") {
    for (const Balancing balancing :
         {Balancing::least_busy, Balancing::round_robin, Balancing::random_two, Balancing::first}) {
        ParkWorld world(rules_with(balancing));
        const BackendId other = world.ready_backend({.slots = 8});
        const BackendId ejected = world.ready_backend({.slots = 8});
        eject(world, ejected);
        for (int i = 0; i < 5; ++i) CHECK(one_more(world) == other);
        world.pass(30s);
        CHECK(one_more(world) == ejected);
        CHECK(world.state(ejected) == BackendState::ready);
    }
}

TEST_CASE("a key that likes another backend probes as well as any: its home is a wish") {
    ParkWorld world(rules_with(Balancing::least_busy, Affinity::by_hash));
    const BackendId one = world.ready_backend({.slots = 8});
    const BackendId two = world.ready_backend({.slots = 8});
    const uint64_t key = 7;
    const BackendId home = one_more(world, key);
    const BackendId ejected = home == one ? two : one;
    eject(world, ejected);
    world.pass(30s);
    CHECK(one_more(world, key) == ejected);
    CHECK(one_more(world, key) == home);
}

TEST_CASE("a session stays at home, and probes only when nobody else has come for as long as the rest was") {
    ParkWorld world(rules_with(Balancing::least_busy, Affinity::by_name));
    const BackendId home = world.ready_backend({.slots = 8, .identity = 11});
    const BackendId ejected = world.ready_backend({.slots = 8, .identity = 22});
    eject(world, ejected);
    world.pass(30s);
    CHECK(one_more(world, 11) == home);
    CHECK(one_more(world) == ejected);  // a new one

    eject(world, ejected);
    world.pass(60s);
    CHECK(one_more(world, 22) == ejected);  // one of its own
    CHECK(world.state(ejected) == BackendState::ready);

    eject(world, ejected);
    world.pass(90s);
    CHECK(one_more(world, 11) == home);
    world.pass(90s - 1ns);
    CHECK(one_more(world, 11) == home);
    world.pass(1ns);
    CHECK(one_more(world, 11) == ejected);
}

TEST_CASE("who has failed once does not probe while a Ready one that he has not tried can take him") {
    ParkWorld world(rules_with(Balancing::first));
    const BackendId bad = world.ready_backend({.slots = 8});
    const BackendId good = world.ready_backend({.slots = 8});
    const BackendId ejected = world.ready_backend({.slots = 8});
    eject(world, ejected);
    world.pass(30s);
    auto probing = world.arrive_running();
    CHECK(probing->lease.backend() == ejected);
    auto failed = world.arrive_running();
    CHECK(failed->lease.backend() == bad);
    world.finish(*probing, Outcome::full);  // says nothing: somebody else is to probe
    failed->ticket.excluded.add(bad.index);
    world.retry(*failed, Outcome::cut);
    REQUIRE(failed->is_granted());
    CHECK(failed->lease.backend() == good);
    auto next = world.arrive();
    CHECK(next->lease.backend() == ejected);
    world.finish(*next, Outcome::unused);
    world.finish(*failed, Outcome::unused);
}

TEST_CASE("a probing request whose client has left stays the only one until its work is over") {
    ParkWorld world(rules_with(Balancing::least_busy));
    const BackendId ejected = world.ready_backend({.slots = 8});
    world.ready_backend({.slots = 1});
    eject(world, ejected);
    auto busy = world.arrive_running();
    world.pass(30s);
    auto probing = world.arrive_running();
    CHECK(probing->lease.backend() == ejected);
    world.abandon(*probing, Abandon::drain);
    auto next = world.arrive();
    CHECK(next->is_waiting());
    world.pass(10s);
    CHECK(world.view(ejected).unfit == Unfit::probing);
    world.finish(*probing);
    world.collect(*next);
    REQUIRE(next->is_granted());
    CHECK(next->lease.backend() == ejected);
    world.finish(*next, Outcome::unused);
    world.finish(*busy);
}

TEST_CASE("one that outlives its client by as long as the rest was has failed, and its slot is still held") {
    ParkWorld world(rules_with(Balancing::least_busy));
    const BackendId ejected = world.ready_backend({.slots = 8});
    world.ready_backend({.slots = 1});
    eject(world, ejected);
    auto busy = world.arrive_running();
    world.pass(30s);
    auto probing = world.arrive_running();
    world.abandon(*probing, Abandon::drain);
    world.tick();
    world.pass(30s - 1ns);
    CHECK(world.view(ejected).unfit == Unfit::probing);
    CHECK(world.next_tick == world.now + 1ns);
    world.pass(1ns);
    CHECK(world.view(ejected).unfit == Unfit::resting);
    CHECK(world.view(ejected).until == world.now + 60s);
    CHECK(world.view(ejected).ejections[static_cast<size_t>(EjectReason::probing_request)] == 1);
    CHECK(world.view(ejected).abandoned == 1);
    world.pass(60s);
    auto next = world.arrive_running();
    CHECK(next->lease.backend() == ejected);
    world.finish(*probing);
    CHECK(world.state(ejected) == BackendState::resting);
    world.finish(*next);
    CHECK(world.state(ejected) == BackendState::ready);
    world.finish(*busy);
}

TEST_CASE("several whose rest is over come back with as many requests") {
    ParkWorld world(rules_with(Balancing::first));
    std::vector<BackendId> all;
    all.reserve(4);
    for (int i = 0; i < 4; ++i) all.push_back(world.ready_backend({.slots = 8}));
    eject(world, all[2]);
    eject(world, all[3]);
    world.pass(30s);
    CHECK(one_more(world) == all[2]);
    CHECK(one_more(world) == all[3]);
    CHECK(one_more(world) == all[0]);
}

TEST_CASE("after one has come back, the next that fails can be ejected") {
    ParkWorld world(rules_with(Balancing::least_busy));
    const BackendId one = world.ready_backend({.slots = 8});
    const BackendId two = world.ready_backend({.slots = 8});
    one_more(world);
    eject(world, two);
    for (int i = 0; i < 100; ++i) {
        world.pass(1s);
        one_more(world);
    }
    CHECK(world.state(two) == BackendState::ready);
    eject(world, one);
    CHECK(one_more(world) == two);
}

TEST_CASE("a backup whose rest is over counts as healthy: it need not serve, so nobody probes it") {
    ParkWorld world(rules_with(Balancing::least_busy));
    const BackendId primary = world.ready_backend({.slots = 8});
    const BackendId backup = world.ready_backend({.slots = 8, .backup = true});
    world.tell(backup, Event::eject, 1, world.now + 30s);
    tries(world, primary, 2, Outcome::bad_answer);
    CHECK(world.state(primary) == BackendState::ready);  // the last one
    world.pass(30s);
    CHECK(one_more(world) == primary);
    eject(world, primary);
    CHECK(one_more(world) == backup);
    CHECK(world.state(backup) == BackendState::ready);
}

}  // namespace
}  // namespace penstock
