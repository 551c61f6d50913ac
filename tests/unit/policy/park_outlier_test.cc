// Ejection as the park does it: in the very call that ends the try which decides.
#include <doctest/doctest.h>

#include "park_tries.h"

namespace penstock {
namespace {

using Event = BackendNews::Event;
using Kind = BackendChange::Kind;

UpstreamRules with(OutlierRules outlier) {
    UpstreamRules rules;
    rules.queue_timeout = 100s;
    rules.outlier = outlier;
    return rules;
}

const OutlierRules five{.interval = 10s, .base_ejection_time = 30s, .max_ejection_time = 300s};

TEST_CASE("the fifth 5xx in a row ejects in the call that ends it: no grant slips through") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 8});
    const BackendId other = world.ready_backend({.slots = 1});
    tries(world, bad, 4, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::ready);
    auto busy = granted(world, other);
    one_try(world, bad, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::resting);
    CHECK(world.view(bad).ejections[0] == 1);
    auto next = world.arrive();
    CHECK(next->is_waiting());  // though seven of its slots are free
    const auto told = changes(world);
    REQUIRE(told.size() == 1);
    CHECK(told[0].kind == Kind::ejected);
    CHECK(told[0].reason == EjectReason::consecutive_5xx);
    CHECK(told[0].time == 30s);
    world.cancel(*next);
    world.finish(*busy, Outcome::unused);
}

TEST_CASE("it is back after exactly its time, through one probing request") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 8});
    const BackendId other = world.ready_backend({.slots = 1});
    tries(world, bad, 5, Outcome::bad_answer);
    changes(world);
    const Time ejected = world.now;
    auto busy = world.arrive_running();
    CHECK(busy->lease.backend() == other);
    auto first = world.arrive();
    auto second = world.arrive();
    world.pass(30s - 1ns);
    world.collect(*first);
    CHECK(first->is_waiting());
    CHECK(world.next_tick == ejected + 30s);
    world.pass(1ns);
    world.collect(*first);
    REQUIRE(first->is_granted());
    CHECK(first->lease.backend() == bad);
    world.collect(*second);
    CHECK(second->is_waiting());
    world.run(*first);
    world.finish(*first);
    CHECK(world.state(bad) == BackendState::ready);
    world.collect(*second);
    CHECK(second->is_granted());
    const auto told = changes(world);
    REQUIRE(told.size() == 2);
    CHECK(told[0].kind == Kind::probed);
    CHECK(told[0].time == 30s);
    CHECK(told[1].kind == Kind::back);
    world.finish(*second, Outcome::unused);
    world.finish(*busy);
}

TEST_CASE("a probing request that fails ejects again, for longer, and counts") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    tries(world, bad, 5, Outcome::cut);
    for (const Duration rest : {60s, 90s, 120s}) {
        world.pass(world.view(bad).until - world.now);
        one_try(world, bad, Outcome::gateway_error);
        CHECK(world.view(bad).until == world.now + rest);
    }
    CHECK(world.view(bad).ejections[static_cast<size_t>(EjectReason::consecutive_local_errors)] == 1);
    CHECK(world.view(bad).ejections[static_cast<size_t>(EjectReason::probing_request)] == 3);
    CHECK(world.view(bad).ejected_in_row == 4);
}

TEST_CASE("in pools of one to eight, where all fail, the last one stays in service") {
    for (int size = 1; size <= 8; ++size) {
        OutlierRules all = five;
        all.max_ejection_percent = 100;
        ParkWorld world(with(all));
        std::vector<BackendId> pool;
        for (int i = 0; i < size; ++i) pool.push_back(world.ready_backend({.slots = 4}));
        for (BackendId id : pool) tries(world, id, 5, Outcome::bad_answer);
        int ready = 0;
        for (BackendId id : pool) ready += world.state(id) == BackendState::ready;
        CHECK(ready == 1);
        CHECK(world.state(pool.back()) == BackendState::ready);
        CHECK(world.view(pool.back()).kept_by_min_healthy == 1);
        const auto told = changes(world);
        CHECK(told.back().kind == Kind::kept);
        CHECK(told.back().verdict == EjectVerdict::min_healthy);
    }
}

TEST_CASE("with min_healthy 0 the only one is ejected, and requests wait until it is back") {
    OutlierRules rules = five;
    rules.min_healthy = 0;
    ParkWorld world(with(rules));
    const BackendId id = world.ready_backend({.slots = 1});
    tries(world, id, 5, Outcome::bad_answer);
    CHECK(world.serving() == Serving::coming);
    auto waits = world.arrive();
    CHECK(waits->is_waiting());
    world.pass(30s);
    world.collect(*waits);
    CHECK(waits->is_granted());
    world.finish(*waits, Outcome::unused);
}

TEST_CASE("one that is down is not healthy: the last that is up stays in service") {
    ParkWorld world(with(five));
    const BackendId dead = world.ready_backend({.slots = 1, .spawned = true});
    const BackendId bad = world.ready_backend({.slots = 1});
    world.tell(dead, Event::exited, 1, world.now + 1s);
    tries(world, bad, 5, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::ready);
    // The row began anew: once the other is up again, another five are needed.
    world.tell(dead, Event::starting, 2);
    world.tell(dead, Event::ready, 2);
    tries(world, bad, 4, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::ready);
    one_try(world, bad, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::resting);
}

TEST_CASE(
    "the probing request of the last one that is up may fail: it is in service, not left out for longer") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 1});
    const BackendId other = world.ready_backend({.slots = 1, .spawned = true});
    tries(world, bad, 5, Outcome::bad_answer);
    world.tell(other, Event::exited, 1, world.now + 100s);
    world.pass(30s);
    one_try(world, bad, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::ready);
}

TEST_CASE("max_ejection_percent: of four at 50 percent two are ejected, the third is not") {
    ParkWorld world(with(five));
    std::vector<BackendId> pool;
    for (int i = 0; i < 4; ++i) pool.push_back(world.ready_backend({.slots = 4}));
    for (BackendId id : pool) tries(world, id, 5, Outcome::bad_answer);
    CHECK(world.state(pool[1]) == BackendState::resting);
    CHECK(world.state(pool[2]) == BackendState::ready);
    CHECK(world.view(pool[2]).kept_by_percent == 1);
}

TEST_CASE("that it is full, a client that left, a connection that was stale: neither counts nor ends a row") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 8});
    const BackendId other = world.ready_backend({.slots = 8});
    tries(world, bad, 4, Outcome::bad_answer);
    tries(world, bad, 3, Outcome::full);
    tries(world, bad, 3, Outcome::stale);
    tries(world, bad, 3, Outcome::unused);
    std::vector<std::unique_ptr<Request>> left;
    for (int i = 0; i < 3; ++i) {
        left.push_back(running(world, bad));
        world.abandon(*left.back(), Abandon::drain);
    }
    CHECK(world.state(bad) == BackendState::ready);
    one_try(world, bad, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::resting);
    CHECK(world.state(other) == BackendState::ready);
    for (auto& r : left) world.finish(*r);
}

TEST_CASE("requests that were given up as too slow are local errors, when they are given up") {
    ParkWorld world(with({.consecutive_local_errors = 2}));
    const BackendId slow = world.ready_backend({.slots = 4});
    world.ready_backend({.slots = 4});
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 2; ++i) {
        all.push_back(running(world, slow));
    }
    world.abandon(*all[0], Abandon::drain, Outcome::cut);
    CHECK(world.state(slow) == BackendState::ready);
    world.abandon(*all[1], Abandon::drain, Outcome::cut);
    CHECK(world.state(slow) == BackendState::resting);
    for (auto& r : all) world.finish(*r);
    CHECK(world.state(slow) == BackendState::resting);
}

TEST_CASE("an answer that is dropped counts by its status when it is dropped, and once") {
    ParkWorld world(with({.consecutive_5xx = 2, .consecutive_local_errors = 2}));
    const BackendId bad = world.ready_backend({.slots = 8});
    world.ready_backend({.slots = 8});
    auto drop = [&](Outcome said) {
        auto dropped = running(world, bad);
        world.abandon(*dropped, Abandon::drain, said);
        return dropped;
    };
    auto busy = drop(Outcome::full);
    auto first = drop(Outcome::bad_answer);
    auto still_busy = drop(Outcome::full);
    CHECK(world.state(bad) == BackendState::ready);
    world.finish(*busy, Outcome::cut);
    world.finish(*first, Outcome::cut);
    world.finish(*still_busy);
    CHECK(world.state(bad) == BackendState::ready);
    auto second = drop(Outcome::gateway_error);
    CHECK(world.state(bad) == BackendState::resting);
    CHECK(world.view(bad).ejected_for == EjectReason::consecutive_5xx);
    world.finish(*second);
}

TEST_CASE("a probing request whose answer is dropped is judged by its status") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    tries(world, bad, 5, Outcome::bad_answer);
    world.pass(30s);
    auto full = running(world, bad);
    world.abandon(*full, Abandon::drain, Outcome::full);
    CHECK(world.state(bad) == BackendState::resting);
    CHECK(world.view(bad).ejected_in_row == 1);
    world.finish(*full);
    auto failed = running(world, bad);
    world.abandon(*failed, Abandon::drain, Outcome::bad_answer);
    CHECK(world.view(bad).ejected_in_row == 2);
    world.finish(*failed);
}

TEST_CASE("connect failures eject too: Suspect it was, Resting it is") {
    ParkWorld world(with({.consecutive_local_errors = 2}));
    const BackendId dead = world.ready_backend({.slots = 4});
    world.ready_backend({.slots = 4});
    one_try(world, dead, Outcome::connect_failed);
    CHECK(world.state(dead) == BackendState::suspect);
    world.tell(dead, Event::alive);
    one_try(world, dead, Outcome::connect_failed);
    CHECK(world.state(dead) == BackendState::resting);
    world.tell(dead, Event::alive);  // says nothing about its failures
    CHECK(world.state(dead) == BackendState::resting);
}

TEST_CASE("what was sent before an ejection and fails after it changes nothing") {
    ParkWorld world(with(five));
    const BackendId bad = world.ready_backend({.slots = 16});
    world.ready_backend({.slots = 16});
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 16; ++i) {
        all.push_back(running(world, bad));
    }
    for (auto& r : all) world.finish(*r, Outcome::bad_answer);
    CHECK(world.view(bad).until == world.now + 30s);
    CHECK(world.view(bad).ejected_in_row == 1);
}

TEST_CASE("success rates are judged as an interval ends, under the same guard") {
    OutlierRules rules = five;
    rules.consecutive_5xx = 0;
    rules.success_rate = OutlierRules::SuccessRate{1, 3, 10};
    ParkWorld world(with(rules));
    std::vector<BackendId> pool;
    for (int i = 0; i < 3; ++i) pool.push_back(world.ready_backend({.slots = 4}));
    world.tick();
    for (BackendId id : pool) tries(world, id, 10, Outcome::answered);
    tries(world, pool[1], 5, Outcome::bad_answer);
    world.pass(10s - 1ns);
    CHECK(world.state(pool[1]) == BackendState::ready);
    world.pass(1ns);
    CHECK(world.state(pool[1]) == BackendState::resting);
    CHECK(world.view(pool[1]).ejected_for == EjectReason::success_rate);
    CHECK(world.state(pool[0]) == BackendState::ready);
    // The next interval has nothing of this one.
    tries(world, pool[0], 9, Outcome::bad_answer);
    world.pass(10s);
    CHECK(world.state(pool[0]) == BackendState::ready);
}

TEST_CASE("one of ours that is ejected n times in a row is restarted, when what runs on it has ended") {
    OutlierRules rules = five;
    rules.restart_after = 2;
    ParkWorld world(with(rules));
    const BackendId bad = world.ready_backend({.slots = 8, .spawned = true});
    world.ready_backend({.slots = 8, .spawned = true});
    auto last = running(world, bad);
    tries(world, bad, 5, Outcome::bad_answer);
    world.pass(30s);
    CHECK(world.tick().empty());
    one_try(world, bad, Outcome::bad_answer);
    CHECK(world.view(bad).restarting);
    CHECK(world.tick().empty());
    world.finish(*last);
    const auto actions = world.tick();
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].kind == Action::Kind::restart);
    CHECK(actions[0].why == RestartWhy::ejected);
    world.pass(60s - 1ns);
    CHECK(world.view(bad).unfit == Unfit::resting);
    world.pass(1ns);
    CHECK(world.view(bad).unfit == Unfit::restarting);  // no probing request: it is to be another one
    world.tell(bad, Event::exited, 1, world.now + 1s);
    world.tell(bad, Event::starting, 2);
    world.tell(bad, Event::ready, 2);
    CHECK(world.state(bad) == BackendState::ready);
    CHECK(world.view(bad).ejected_in_row == 0);
    CHECK(world.view(bad).ejections[0] == 1);  // what is counted stays counted
}

TEST_CASE("an ejection's restart comes even if the work that it was stuck at ends by itself") {
    for (const bool stuck_first : {true, false}) {
        OutlierRules rules = five;
        rules.restart_after = 1;
        ParkWorld world({.abandon_limit = 10s, .outlier = rules});
        const BackendId bad = world.ready_backend({.slots = 8, .spawned = true});
        world.ready_backend({.slots = 8, .spawned = true});
        auto live = running(world, bad);
        auto lost = running(world, bad);
        std::vector<std::unique_ptr<Request>> failing;
        for (int i = 0; i < 5; ++i) failing.push_back(running(world, bad));
        world.abandon(*lost, Abandon::drain);
        const auto eject_it = [&] {
            for (auto& r : failing) world.finish(*r, Outcome::bad_answer);
            CHECK(world.state(bad) == BackendState::resting);
        };
        if (!stuck_first) eject_it();
        world.pass(10s);
        world.tick();
        if (stuck_first) eject_it();
        CHECK(world.view(bad).restarting);
        world.finish(*lost);
        CHECK(world.view(bad).restarting);
        world.finish(*live);
        const auto actions = world.tick();
        REQUIRE(actions.size() == 1);
        CHECK(actions[0].kind == Action::Kind::restart);
        CHECK(actions[0].why == RestartWhy::ejected);
    }
}

TEST_CASE("after a late tick the next interval is a whole one") {
    ParkWorld world(with(five));
    world.ready_backend({.slots = 1});
    world.tick();
    world.pass(25s);
    CHECK(world.next_tick == world.now + 1s);  // which it comes for anyway
}

TEST_CASE("another's server is not restarted, however often it is ejected") {
    OutlierRules rules = five;
    rules.restart_after = 1;
    ParkWorld world(with(rules));
    const BackendId bad = world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    tries(world, bad, 5, Outcome::bad_answer);
    CHECK(world.tick().empty());
    CHECK_FALSE(world.view(bad).restarting);
}

TEST_CASE("without rules nothing is ejected") {
    ParkWorld world;
    const BackendId bad = world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    tries(world, bad, 100, Outcome::bad_answer);
    CHECK(world.state(bad) == BackendState::ready);
}

TEST_CASE("more changes than there is room for are counted") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    for (int i = 0; i < 40; ++i) {
        world.tell(id, Event::suspect);
        world.tell(id, Event::alive);
        world.tell(id, Event::suspect);  // told only once a second
        world.tell(id, Event::alive);
        world.pass(1s);
    }
    const BackendChanges all = world.park.changes();
    CHECK(all.count == BackendChanges::capacity);
    CHECK(all.lost == 80 - BackendChanges::capacity);
    CHECK(world.park.changes().count == 0);
}

}  // namespace
}  // namespace penstock
