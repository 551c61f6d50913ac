#include <doctest/doctest.h>

#include "park_world.h"

namespace penstock {
namespace {

FailedTry reset_get() {
    return {
        .why = FailedTry::Why::reset, .request_begun = true, .replayable = true, .idempotent_method = true};
}

struct RetryWorld : ParkWorld {
    explicit RetryWorld(const RetryRules& retry, UpstreamRules rules = {}) : ParkWorld(with(rules, retry)) {}

    RetryVerdict fail(Request& r, const FailedTry& t = reset_get()) {
        const RetryAnswer answer = park.may_retry(r.ticket, t, now);
        retry_after = answer.retry_after;
        return answer.verdict;
    }
    CircuitView circuit(CircuitLimit limit) {
        ParkView view;
        park.describe(view, now);
        for (const CircuitView& c : view.upstreams.at(0).circuits)
            if (c.limit == limit) return c;
        return {};
    }
    // What the main thread is told to log at this moment.
    std::vector<CircuitChange> changes() {
        tick();
        return circuits;
    }
    static UpstreamRules with(UpstreamRules rules, const RetryRules& retry) {
        rules.retry = retry;
        return rules;
    }

    uint32_t retry_after = 0;
};

TEST_CASE("a backend's own max_connections is no circuit breaker: what is over it finds the queue full") {
    ParkWorld world({.queue_size = 0});
    const BackendId id = world.ready_backend({.slots = 0, .max_connections = 1});
    auto a = world.arrive_running();
    auto b = world.arrive();
    CHECK(b->refusal() == Refusal::queue_full);
    CHECK(b->answer.limit == CircuitLimit::none);
    CHECK(to_string(world.view(id).unfit) == "max_connections reached");
    world.finish(*a);
}

TEST_CASE("no more than max_retries are retries at once; the next one is refused and counted") {
    RetryWorld world({.attempts = 5, .max_retries = 2});
    world.ready_backend({.slots = 8, .spawned = true});
    auto a = world.request(), b = world.request(), c = world.request();
    CHECK(world.fail(*a) == RetryVerdict::again);
    CHECK(world.fail(*b) == RetryVerdict::again);
    CHECK(world.fail(*c) == RetryVerdict::over_limit);
    CHECK(world.retry_after >= 1);
    CHECK(world.circuit(CircuitLimit::retries).now == 2);
    CHECK(world.circuit(CircuitLimit::retries).breaker.refused() == 1);

    world.park.retry_answered(a->ticket, world.now);
    CHECK(world.fail(*c) == RetryVerdict::again);
    world.cancel(*b);
    world.cancel(*c);
    CHECK(world.circuit(CircuitLimit::retries).now == 0);
}

TEST_CASE("a retry that fails and is tried again is one retry, not two") {
    RetryWorld world({.attempts = 5, .max_retries = 1});
    world.ready_backend();
    auto a = world.request();
    FailedTry t = reset_get();
    for (t.attempts = 0; t.attempts < 5; ++t.attempts) {
        CHECK(world.fail(*a, t) == RetryVerdict::again);
        CHECK(world.circuit(CircuitLimit::retries).now == 1);
    }
    CHECK(world.fail(*a, t) == RetryVerdict::no);
    CHECK(world.circuit(CircuitLimit::retries).now == 0);
}

TEST_CASE("the budget is a share of what runs, waits and was answered in the last minute") {
    RetryWorld world({.attempts = 1, .budget = 0.2, .max_retries = 0});
    world.ready_backend({.slots = 0});
    for (int i = 0; i < 24; ++i) world.finish(*world.arrive_running());
    auto running = world.arrive_running();
    std::vector<std::unique_ptr<Request>> all;
    for (int i = 0; i < 5; ++i) {  // a fifth of 25
        all.push_back(world.request());
        CHECK(world.fail(*all.back()) == RetryVerdict::again);
    }
    all.push_back(world.request());
    CHECK(world.fail(*all.back()) == RetryVerdict::over_budget);
    CHECK(world.circuit(CircuitLimit::retry_budget).breaker.refused() == 1);
    for (auto& r : all) world.cancel(*r);
    world.now += 61s;
    for (int i = 0; i < 3; ++i) CHECK(world.fail(*all[i]) == RetryVerdict::again);
    CHECK(world.fail(*all[3]) == RetryVerdict::over_budget);
    for (auto& r : all) world.cancel(*r);
    world.finish(*running);
}

TEST_CASE("a refusal at the peek is counted like one at admission") {
    RetryWorld world({}, {.queue_size = 0, .max_requests = 1});
    world.ready_backend({.slots = 4, .spawned = true});
    auto a = world.arrive_running();
    CHECK(world.park.peek(world.upstream, 0, never, world.now).refusal == Refusal::circuit_open);
    CHECK(world.circuit(CircuitLimit::requests).breaker.refused() == 1);
    auto b = world.arrive();
    CHECK(b->refusal() == Refusal::circuit_open);
    CHECK(world.circuit(CircuitLimit::requests).breaker.refused() == 2);
    world.finish(*a);
}

TEST_CASE("what the breaker's bound of the queue refused is counted as pending, whatever fills the slots") {
    RetryWorld world({}, {.queue_size = 100, .max_pending = 1, .max_connections = 1});
    world.ready_backend({.slots = 0});
    auto a = world.arrive_running();
    auto b = world.arrive();
    auto c = world.arrive();
    CHECK(b->is_waiting());
    CHECK(c->refusal() == Refusal::circuit_open);
    CHECK(c->answer.limit == CircuitLimit::pending);
    world.cancel(*b);
    world.finish(*a);
}

TEST_CASE("an opening and a closing are told once each, with what was refused meanwhile") {
    RetryWorld world({}, {.queue_size = 0, .max_requests = 1});
    world.ready_backend({.slots = 4, .spawned = true});
    CHECK(world.changes().empty());
    auto a = world.arrive_running();
    for (int i = 0; i < 3; ++i) world.arrive();
    auto told = world.changes();
    REQUIRE(told.size() == 1);
    CHECK(told[0].limit == CircuitLimit::requests);
    CHECK(told[0].is_open);
    CHECK(told[0].bound == 1);

    world.now += 5s;  // still full: open, though nobody comes
    CHECK(world.changes().empty());
    world.finish(*a);
    told = world.changes();
    REQUIRE(told.size() == 1);
    CHECK_FALSE(told[0].is_open);
    CHECK(told[0].refused == 3);
    CHECK(told[0].lasted == 5s);
    CHECK(world.changes().empty());
}

TEST_CASE("the main thread is called when a limit opens") {
    RetryWorld world({}, {.queue_size = 0, .max_requests = 1});
    world.ready_backend({.slots = 4, .spawned = true});
    auto a = world.arrive_running();
    world.changes();
    auto b = world.request();
    Wakes w;
    world.park.admit(b->ticket, world.now, w);
    CHECK(w.main);
    world.finish(*a);
}

TEST_CASE("a worker whose connection broke is ended, alive, or not known yet") {
    ParkWorld world;
    const BackendId id = world.ready_backend();
    CHECK(world.park.fate(id, 1) == Fate::alive);
    world.tell(id, BackendNews::Event::suspect);
    CHECK(world.park.fate(id, 1) == Fate::unknown);
    world.tell(id, BackendNews::Event::alive);
    CHECK(world.park.fate(id, 1) == Fate::alive);
    world.tell(id, BackendNews::Event::exited);
    CHECK(world.park.fate(id, 1) == Fate::ended);
    world.tell(id, BackendNews::Event::starting, 2);
    CHECK(world.park.fate(id, 1) == Fate::ended);
}

TEST_CASE("a request that comes back after a pause stands before all who came after it") {
    ParkWorld world;
    world.ready_backend();
    auto first = world.arrive_running();
    auto second = world.arrive();
    world.finish(*first, Outcome::stale);  // its try failed; it pauses, and the slot goes on
    world.collect(*second);
    CHECK(second->is_granted());
    auto third = world.arrive();
    world.admit(*first);
    CHECK(first->is_waiting());
    world.finish(*second, Outcome::unused);
    world.collect(*first);
    CHECK(first->is_granted());
    world.finish(*first, Outcome::unused);
    world.collect(*third);
    CHECK(third->is_granted());
    world.finish(*third, Outcome::unused);
}

}  // namespace
}  // namespace penstock
