// Where a request goes that has failed at one backend: to another one, if there is one, within reason.
#include <doctest/doctest.h>

#include "park_tries.h"

namespace penstock {
namespace {

UpstreamRules with(Duration queue_timeout) {
    UpstreamRules rules;
    rules.queue_timeout = queue_timeout;
    return rules;
}

// It failed where it was, and asks again.
void try_again(ParkWorld& world, Request& r, Outcome outcome = Outcome::bad_answer) {
    r.ticket.excluded.add(r.lease.backend().index);
    world.retry(r, outcome);
}

TEST_CASE("who has tried all primaries goes to a backup, though they are Ready") {
    ParkWorld world(with(3s));
    const BackendId primary = world.ready_backend({.slots = 1});
    const BackendId backup = world.ready_backend({.slots = 1, .backup = true});
    auto failed = world.arrive_running();
    CHECK(failed->lease.backend() == primary);
    try_again(world, *failed);
    REQUIRE(failed->is_granted());
    CHECK(failed->lease.backend() == backup);
    auto next = world.arrive();
    CHECK(next->lease.backend() == primary);
    world.finish(*failed, Outcome::unused);
    world.finish(*next, Outcome::unused);
}

TEST_CASE("a backup is not for who has a primary left, busy as that is") {
    ParkWorld world(with(3s));
    world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1, .backup = true});
    auto one = world.arrive_running();
    auto other = world.arrive_running();
    const BackendId of_other = other->lease.backend();
    try_again(world, *one);
    CHECK(one->is_waiting());
    world.finish(*other);
    world.collect(*one);
    REQUIRE(one->is_granted());
    CHECK(one->lease.backend() == of_other);
    world.finish(*one, Outcome::unused);
}

TEST_CASE("a retry that waits takes the backup as it comes free, before newcomers who may not") {
    ParkWorld world(with(3s));
    world.ready_backend({.slots = 1});
    const BackendId backup = world.ready_backend({.slots = 1, .backup = true});
    auto first = world.arrive_running();
    try_again(world, *first);
    CHECK(first->lease.backend() == backup);
    world.run(*first);
    auto second = world.arrive_running();
    try_again(world, *second);
    CHECK(second->is_waiting());
    auto third = world.arrive_running();  // the primary is free: only who tried it waits
    auto fourth = world.arrive();
    CHECK(fourth->is_waiting());
    world.finish(*first);
    world.collect(*second);
    REQUIRE(second->is_granted());
    CHECK(second->lease.backend() == backup);
    world.collect(*fourth);
    CHECK(fourth->is_waiting());
    world.cancel(*fourth);
    world.finish(*second, Outcome::unused);
    world.finish(*third);
}

TEST_CASE("a retry waits for a busy other one, but not for ever beside one that is free") {
    ParkWorld world(with(10s));
    const BackendId tried = world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    auto failed = world.arrive_running();
    auto busy = world.arrive_running();
    CHECK(failed->lease.backend() == tried);
    try_again(world, *failed);
    CHECK(failed->is_waiting());
    CHECK(failed->answer.wait_until == world.now + 1s);
    world.now += 1s;
    world.collect(*failed);
    REQUIRE(failed->is_granted());
    CHECK(failed->lease.backend() == tried);
    world.finish(*failed, Outcome::unused);
    world.finish(*busy);
}

TEST_CASE("it waits as long as a request takes, and never longer than half of what is left") {
    ParkWorld world(with(10s));
    world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    auto sample = world.arrive_running();
    world.now += 3s;
    world.finish(*sample);
    auto failed = world.arrive();
    auto busy = world.arrive_running();
    world.run(*failed);
    failed->ticket.deadline = world.now + 100s;
    world.now += 3s;
    try_again(world, *failed);
    CHECK(failed->answer.wait_until == world.now + 3s);
    world.cancel(*failed);
    world.finish(*busy);

    failed = world.arrive_running();
    busy = world.arrive_running();
    failed->ticket.deadline = world.now + 4s;
    try_again(world, *failed);
    CHECK(failed->answer.wait_until == world.now + 2s);
    world.cancel(*failed);
    world.finish(*busy);
}

TEST_CASE("after its patience it stands in its place for any, and newcomers do not overtake it") {
    ParkWorld world(with(10s));
    world.ready_backend({.slots = 1});
    world.ready_backend({.slots = 1});
    auto failed = world.arrive_running();
    auto busy = world.arrive_running();
    try_again(world, *failed);
    auto newcomer = world.arrive();
    REQUIRE(newcomer->is_granted());  // what the retry has tried is free
    auto last = world.arrive();
    CHECK(last->is_waiting());
    world.now += 1s;
    world.collect(*failed);
    CHECK(failed->is_waiting());
    world.finish(*newcomer, Outcome::unused);
    world.collect(*failed);
    CHECK(failed->is_granted());
    world.collect(*last);
    CHECK(last->is_waiting());
    world.finish(*failed, Outcome::unused);
    world.collect(*last);
    world.finish(*last, Outcome::unused);
    world.finish(*busy);
}

}  // namespace
}  // namespace penstock
