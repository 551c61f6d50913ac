// Tickets with a home: where they go, how long they wait for it, who may pass them.
#include <doctest/doctest.h>
#include <vector>

#include "base/hash.h"
#include "park_world.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;

constexpr uint64_t name_of(uint64_t i) { return 100 + i; }

// Backends that have names, and tickets that name them.
struct Homes : ParkWorld {
    explicit Homes(UpstreamRules rules, size_t count = 2, uint32_t slots = 1) : ParkWorld(with_names(rules)) {
        for (size_t i = 0; i < count; ++i)
            ids.push_back(ready_backend({.slots = slots, .identity = name_of(i), .spawned = true}));
    }
    static UpstreamRules with_names(UpstreamRules rules) {
        if (rules.affinity == Affinity::none) rules.affinity = Affinity::by_name;
        return rules;
    }
    std::unique_ptr<Request> arrive_at(uint64_t key) {
        auto r = request();
        r->ticket.key = key;
        admit(*r);
        return r;
    }
    std::vector<BackendId> ids;
};

TEST_CASE("a ticket goes to its home when that is free, and to any other at once when it is not") {
    Homes world({});
    auto a = world.arrive_at(name_of(1));
    CHECK(a->lease.backend() == world.ids[1]);
    CHECK(a->lease.had_home());
    auto b = world.arrive_at(name_of(1));
    REQUIRE(b->is_granted());
    CHECK(b->lease.backend() == world.ids[0]);
    CHECK(b->lease.had_home());
    world.finish(*a, Outcome::unused);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("with patience a ticket waits for its home, and takes it when it comes free") {
    Homes world({.patience = 5s});
    auto a = world.arrive_at(name_of(1));
    world.run(*a);
    auto b = world.arrive_at(name_of(1));
    REQUIRE(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 5s);
    world.now += 2s;
    world.finish(*a);
    world.collect(*b);
    REQUIRE(b->is_granted());
    CHECK(b->lease.backend() == world.ids[1]);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("when its patience ends a ticket takes any free backend") {
    Homes world({.patience = 5s});
    auto a = world.arrive_at(name_of(1));
    auto b = world.arrive_at(name_of(1));
    world.now += 4s;
    world.collect(*b);
    REQUIRE(b->is_waiting());
    CHECK(b->answer.wait_until == world.now + 1s);
    world.now += 1s;
    world.collect(*b);
    REQUIRE(b->is_granted());
    CHECK(b->lease.backend() == world.ids[0]);
    world.finish(*a, Outcome::unused);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("who waits for its home may be passed; who has lost patience may not") {
    Homes world({.patience = 5s});
    auto a = world.arrive_at(name_of(0));
    auto patient = world.arrive_at(name_of(0));
    REQUIRE(patient->is_waiting());
    auto b = world.arrive();  // any: passes
    REQUIRE(b->is_granted());
    world.now += 5s;
    world.collect(*patient);
    REQUIRE(patient->is_waiting());  // both are busy now
    auto c = world.arrive();
    REQUIRE(c->is_waiting());
    world.run(*b);
    world.finish(*b);
    world.collect(*c);
    CHECK(c->is_waiting());
    world.collect(*patient);
    CHECK(patient->is_granted());
    world.finish(*a, Outcome::unused);
    world.collect(*c);
    CHECK(c->is_granted());
    world.finish(*c, Outcome::unused);
    world.finish(*patient, Outcome::unused);
}

TEST_CASE("a patient newcomer stands behind those who wait for any backend") {
    Homes world({.patience = 5s});
    auto a = world.arrive_at(name_of(0));
    auto b = world.arrive_at(name_of(1));
    auto any = world.arrive();
    auto patient = world.arrive_at(name_of(1));
    world.finish(*b, Outcome::unused);
    world.collect(*any);
    REQUIRE(any->is_granted());
    CHECK(any->lease.backend() == world.ids[1]);
    world.collect(*patient);
    CHECK(patient->is_waiting());
    world.cancel(*patient);
    world.finish(*a, Outcome::unused);
    world.finish(*any, Outcome::unused);
}

TEST_CASE("when its home is lost a patient ticket takes another at once, and a retry has no patience") {
    Homes world({.patience = 5s}, 3);
    auto a = world.arrive_at(name_of(2));
    world.run(*a);
    auto b = world.arrive_at(name_of(2));
    REQUIRE(b->is_waiting());
    a->ticket.excluded.add(world.ids[2].index);
    world.retry(*a, Outcome::early_close);  // its home is Suspect now
    CHECK(a->is_granted());
    world.collect(*b);
    REQUIRE(b->is_granted());
    CHECK_FALSE(b->lease.backend() == world.ids[2]);
    CHECK_FALSE(b->lease.had_home());
    world.finish(*a, Outcome::unused);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("nobody is refused for patience: with a full queue, or none, it goes anywhere") {
    SUBCASE("none") {
        Homes world({.queue_size = 0, .patience = 5s});
        auto a = world.arrive_at(name_of(1));
        auto b = world.arrive_at(name_of(1));
        CHECK(b->is_granted());
        world.finish(*a, Outcome::unused);
        world.finish(*b, Outcome::unused);
    }
    SUBCASE("full") {
        Homes world({.queue_size = 1, .patience = 5s}, 3);
        auto a = world.arrive_at(name_of(1));
        auto b = world.arrive_at(name_of(1));
        REQUIRE(b->is_waiting());
        auto c = world.arrive_at(name_of(1));
        CHECK(c->is_granted());
        world.cancel(*b);
        world.finish(*a, Outcome::unused);
        world.finish(*c, Outcome::unused);
    }
}

TEST_CASE("patience does not outlast the queue's own time") {
    Homes world({.queue_timeout = 3s, .patience = 5s});
    auto a = world.arrive_at(name_of(1));
    auto b = world.arrive_at(name_of(1));
    CHECK(b->answer.wait_until == world.now + 3s);
    world.now += 3s;
    world.collect(*b);
    CHECK(b->refusal() == Refusal::queue_timeout);
    world.finish(*a, Outcome::unused);
}

TEST_CASE("a key that names nobody, or one that is not Ready, has no home and goes by the policy") {
    Homes world({.patience = 5s});
    auto a = world.arrive_at(4711);
    REQUIRE(a->is_granted());
    CHECK(a->lease.backend() == world.ids[0]);
    CHECK_FALSE(a->lease.had_home());
    world.finish(*a, Outcome::unused);
    world.tell(world.ids[1], Event::eject, 1, world.now + 60s);
    auto b = world.arrive_at(name_of(1));
    REQUIRE(b->is_granted());
    CHECK_FALSE(b->lease.had_home());
    world.finish(*b, Outcome::unused);
}

TEST_CASE("a backup is nobody's home while it need not serve") {
    ParkWorld world({.affinity = Affinity::by_hash});
    const BackendId first = world.ready_backend({.slots = 9, .identity = 1});
    const BackendId backup = world.ready_backend({.slots = 9, .identity = 2, .backup = true});
    std::vector<std::unique_ptr<Request>> all;
    for (uint64_t i = 0; i < 8; ++i) {
        auto r = world.request();
        r->ticket.key = hash(std::to_string(i));
        world.admit(*r);
        CHECK(r->lease.backend() == first);
        all.push_back(std::move(r));
    }
    for (auto& r : all) world.finish(*r, Outcome::unused);
    world.tell(first, Event::eject, 1, world.now + 60s);
    auto r = world.request();
    r->ticket.key = 5;
    world.admit(*r);
    CHECK(r->lease.backend() == backup);
    world.finish(*r, Outcome::unused);
}

TEST_CASE("a key's home is the same for every loop and at every time, and moves only when it leaves") {
    Homes world({.affinity = Affinity::by_hash}, 5, 4);
    for (uint64_t i = 0; i < 50; ++i) {
        const uint64_t key = hash(std::to_string(i));
        auto a = world.arrive_at(key);
        const BackendId home = a->lease.backend();
        world.finish(*a, Outcome::unused);
        const BackendId other = world.ids[(home.index + 1U) % 5];
        world.tell(other, Event::eject, 1, world.now + 1s);
        auto b = world.arrive_at(key);
        CHECK(b->lease.backend() == home);
        world.finish(*b, Outcome::unused);
        world.tell(other, Event::ready, 1);
        world.tell(home, Event::eject, 1, world.now + 1s);
        auto c = world.arrive_at(key);
        CHECK_FALSE(c->lease.backend() == home);
        world.finish(*c, Outcome::unused);
        world.tell(home, Event::ready, 1);
    }
}

TEST_CASE(
    "by_hash with a bound: beyond its share a home's tickets go on, or wait as long as their patience") {
    const auto run = [](Duration patience, size_t& away, size_t& waiting) {
        Homes world({.affinity = Affinity::by_hash, .patience = patience, .balance_factor = 150}, 4, 0);
        std::vector<std::unique_ptr<Request>> all;
        away = waiting = 0;
        BackendId home;
        for (int i = 0; i < 8; ++i) {
            all.push_back(world.arrive_at(hash("a conversation")));
            if (i == 0) home = all[0]->lease.backend();
            if (all.back()->is_waiting())
                ++waiting;
            else
                away += !(all.back()->lease.backend() == home);
        }
        for (auto& r : all)
            if (r->is_waiting())
                world.cancel(*r);
            else
                world.finish(*r, Outcome::unused);
    };
    size_t away = 0, waiting = 0;
    run(0s, away, waiting);
    CHECK(waiting == 0);
    CHECK(away == 5);  // ceil(1.5 x 8 / 4) = 3 stay
    run(1s, away, waiting);
    CHECK(away == 0);
    CHECK(waiting == 7);  // a share of 1, as long as it alone is in flight
}

TEST_CASE("by_hash with a bound: who waits goes home when a probe elsewhere makes everybody's share larger") {
    Homes world({.affinity = Affinity::by_hash, .patience = 5s, .balance_factor = 110}, 2, 0);
    const uint64_t key = hash("a conversation");
    auto a = world.arrive_at(key), b = world.arrive_at(key), c = world.arrive_at(key);
    const BackendId home = a->lease.backend();
    REQUIRE(b->lease.backend() == home);
    REQUIRE(c->is_waiting());
    world.tick();
    Lease probe = world.park.probe(world.ids[home == world.ids[0]], world.now);
    REQUIRE(probe);
    world.collect(*c);
    REQUIRE(c->is_granted());
    CHECK(c->lease.backend() == home);
    Wakes wakes;
    world.park.finish(probe, {Outcome::unused, Keep::closed}, world.now, wakes);
    for (auto* r : {&a, &b, &c}) world.finish(**r, Outcome::unused);
}

TEST_CASE("max_connections of a backend bounds its requests, and is no bound of the others") {
    ParkWorld world;
    const BackendId small = world.ready_backend({.slots = 0, .max_connections = 2});
    const BackendId large = world.ready_backend({.slots = 0});
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 8; ++i) all.push_back(world.arrive());
    CHECK(world.view(small).used == 2);
    CHECK(world.view(small).unfit == Unfit::own_connections);
    CHECK(world.view(large).used == 6);
    for (auto& r : all) world.finish(*r, Outcome::unused);
}

TEST_CASE("max_connections of a backend: an idle one of another loop is closed before one is opened") {
    ParkWorld world;
    world.ready_backend({.slots = 0, .max_connections = 1});
    auto a = world.arrive_running(0);
    world.finish(*a, Outcome::answered, Keep::idle);
    auto b = world.arrive(1);
    REQUIRE(b->is_granted());
    CHECK(b->lease.how() == Connect::wait);
    auto c = world.arrive(0);
    CHECK(c->is_waiting());
    CHECK(world.trim(0) == 1);
    CHECK(world.connect(*b) == Connect::dial);
    world.cancel(*c);
    world.finish(*b, Outcome::unused);
}

TEST_CASE("slow_start: a backend that comes back gets a growing part of its weight") {
    ParkWorld world({.slow_start = 10s, .balancing = Balancing::round_robin});
    const BackendId old = world.ready_backend({.slots = 0});
    world.now += 60s;
    world.tick();
    const BackendId young = world.ready_backend({.slots = 0});
    const auto young_of_100 = [&] {
        int count = 0;
        for (int i = 0; i < 100; ++i) {
            auto r = world.arrive();
            count += r->lease.backend() == young;
            world.finish(*r, Outcome::unused);
        }
        return count;
    };
    CHECK(young_of_100() <= 1);
    world.pass(2500ms);
    CHECK(young_of_100() == 20);  // 1/4 : 1
    world.pass(2500ms);
    CHECK(young_of_100() == 34);  // 1/2 : 1, and it began with the turn
    world.pass(5s);
    CHECK(young_of_100() == 50);
    CHECK(world.state(old) == BackendState::ready);
}

TEST_CASE("slow_start: a server that was really down starts anew, one that was wrongly suspected goes on") {
    ParkWorld world({.slow_start = 10s});
    const BackendId id = world.ready_backend({.slots = 4});
    world.pass(20s);
    const auto places = [&] {
        std::vector<std::unique_ptr<Request>> all;
        for (int i = 0; i < 5; ++i) all.push_back(world.arrive());
        const uint32_t used = world.view(id).used;
        for (auto& r : all)
            if (r->is_waiting())
                world.cancel(*r);
            else
                world.finish(*r, Outcome::unused);
        return used;
    };
    CHECK(places() == 4);
    world.tell(id, Event::suspect);
    world.tell(id, Event::alive);
    CHECK(places() == 4);
    world.tell(id, Event::suspect);
    world.tell(id, Event::probe_failed);
    world.tell(id, Event::alive);
    CHECK(places() == 1);
}

TEST_CASE("slow_start: a backend that has served before we came starts at once") {
    ParkWorld world({.slow_start = 10s});
    const BackendId id = world.backend({.slots = 4});
    world.tell(id, {.event = Event::ready, .generation = 1, .warm = true});
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 4; ++i) all.push_back(world.arrive());
    CHECK(world.view(id).used == 4);
    for (auto& r : all) world.finish(*r, Outcome::unused);
}

TEST_CASE("round_robin of a park gives nginx's sequence") {
    ParkWorld world({.balancing = Balancing::round_robin});
    for (const uint32_t weight : {5U, 1U, 1U}) world.ready_backend({.slots = 0, .weight = weight});
    std::string taken;
    for (int i = 0; i < 14; ++i) {
        auto r = world.arrive();
        taken += static_cast<char>('a' + r->lease.backend().index);
        world.finish(*r, Outcome::unused);
    }
    CHECK(taken == "aabacaaaabacaa");
}

}  // namespace
}  // namespace penstock
