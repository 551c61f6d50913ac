#include "policy/health.h"

#include <doctest/doctest.h>

namespace penstock {
namespace {

using enum CheckResult;

bool turns(Health& health, std::initializer_list<CheckResult> results) {
    bool turned = false;
    for (CheckResult result : results) turned = health.note(HealthRules{}, result);
    return turned;
}

TEST_CASE("three failures in a row make it unhealthy, two that passed healthy again") {
    Health health;
    CHECK_FALSE(turns(health, {failed, failed}));
    CHECK(health.is_healthy());
    CHECK(turns(health, {failed}));
    CHECK_FALSE(health.is_healthy());
    CHECK_FALSE(turns(health, {passed}));
    CHECK(turns(health, {passed}));
    CHECK(health.is_healthy());
}

TEST_CASE("one that passes ends a row of failures, and one that fails a row of those that passed") {
    Health health;
    CHECK_FALSE(turns(health, {failed, failed, passed, failed, failed}));
    CHECK(turns(health, {failed}));
    CHECK_FALSE(turns(health, {passed, failed, passed}));
    CHECK(turns(health, {passed}));
}

TEST_CASE("busy is not dead: it ends a row of failures, and brings nobody back") {
    Health health;
    CHECK_FALSE(turns(health, {failed, failed, busy, failed, failed, busy, busy, busy, busy}));
    CHECK(health.is_healthy());
    CHECK(turns(health, {failed, failed, failed}));
    CHECK_FALSE(turns(health, {busy, busy, busy, passed, busy}));
    CHECK(turns(health, {passed}));
}

TEST_CASE("a check that was skipped says nothing") {
    Health health;
    CHECK_FALSE(turns(health, {failed, skipped, failed, skipped}));
    CHECK(turns(health, {failed}));
}

TEST_CASE("checks come in the interval, give or take the jitter; the first ones are spread over that") {
    const HealthRules rules{.interval = 10s, .jitter = 0.1};
    CHECK(next_check(rules, 0) == 9s);
    CHECK(next_check(rules, 0.5) == 10s);
    CHECK(next_check(rules, 1) == 11s);
    CHECK(first_check(rules, 0) == 0s);
    CHECK(first_check(rules, 1) == 1s);
    CHECK(next_check({.interval = 10s, .jitter = 0}, 0.9) == 10s);
}

TEST_CASE("a backend is at work as long as its oldest work may take, and not without any") {
    CHECK_FALSE(is_at_work(never, 10s, Time(100s)));
    CHECK(is_at_work(Time(100s), 10s, Time(100s)));
    CHECK(is_at_work(Time(100s), 10s, Time(110s) - 1ns));
    CHECK_FALSE(is_at_work(Time(100s), 10s, Time(110s)));
    CHECK(is_at_work(Time(100s), 0s, Time(100000s)));
}

TEST_CASE("a worker is hung when its oldest work and its last byte are both too long ago") {
    CHECK(hung_at(never, Time(5s), 10s) == never);
    CHECK(hung_at(Time(100s), Time(5s), 10s) == Time(110s));
    CHECK(hung_at(Time(100s), Time(130s), 10s) == Time(140s));
    CHECK(hung_at(Time(100s), Time(130s), 0s) == never);
}

}  // namespace
}  // namespace penstock
