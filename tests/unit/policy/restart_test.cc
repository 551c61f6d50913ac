#include "policy/restart.h"

#include <doctest/doctest.h>
#include <vector>

using namespace penstock;

namespace {

const Time start = Time(100s);

Duration wait_after(RestartBackoff& backoff, Time ready_since = never, double random = 0) {
    return backoff.failed(start, ready_since, random) - start;
}

}  // namespace

TEST_CASE("the wait before a restart doubles with each failure in a row up to the longest") {
    RestartBackoff backoff({.backoff = 500ms, .max_backoff = 3s});
    std::vector<Duration> waits;
    for (int i = 0; i < 6; ++i) waits.push_back(wait_after(backoff));
    CHECK(waits == std::vector<Duration>{500ms, 1s, 2s, 3s, 3s, 3s});
    CHECK(backoff.failures() == 6);
}

TEST_CASE("jitter shortens a wait by less than a third and never lengthens it") {
    for (double random : {0.0, 0.25, 0.5, 0.999999}) {
        RestartBackoff backoff({.backoff = 10s, .max_backoff = 10s});
        Duration wait = wait_after(backoff, never, random);
        CHECK(wait > 6900ms);
        CHECK(wait <= 10s);
    }
    RestartBackoff one({.backoff = 10s}), other({.backoff = 10s});
    CHECK(wait_after(one, never, 0.1) != wait_after(other, never, 0.9));
}

TEST_CASE("a worker that was ready long enough starts with the shortest wait again") {
    RestartBackoff backoff({.backoff = 1s, .max_backoff = 20s});
    for (int i = 0; i < 4; ++i) wait_after(backoff);
    CHECK(wait_after(backoff, start - 20s) == 1s);
    CHECK(backoff.failures() == 1);
}

TEST_CASE("a worker that becomes ready and dies soon after stays in its crash loop") {
    RestartBackoff backoff({.backoff = 1s, .max_backoff = 20s});
    CHECK(wait_after(backoff, start - 19s) == 1s);
    CHECK(wait_after(backoff, start - 19s) == 2s);
    CHECK(wait_after(backoff, start) == 4s);
    CHECK(backoff.failures() == 3);
}

TEST_CASE("it gives up after so many failures in a row and an operator can make it try again") {
    RestartBackoff backoff({.give_up_after = 3});
    CHECK(backoff.failed(start, never, 0) != never);
    CHECK(backoff.failed(start, never, 0) != never);
    CHECK_FALSE(backoff.gave_up());
    CHECK(backoff.failed(start, never, 0) == never);
    CHECK(backoff.gave_up());

    backoff.forgive();
    CHECK_FALSE(backoff.gave_up());
    CHECK(wait_after(backoff) == 500ms);
}

TEST_CASE("without give_up_after it never gives up and its waits never overflow") {
    RestartBackoff backoff({.backoff = 1h, .max_backoff = 24h * 365 * 100});
    for (int i = 0; i < 1000; ++i) {
        Duration wait = wait_after(backoff);
        REQUIRE(wait >= 1h);
        REQUIRE(wait <= 24h * 365 * 100);
    }
}

TEST_CASE("a back-off of zero still does not restart faster than twenty times a second") {
    RestartBackoff backoff({.backoff = Duration::zero(), .max_backoff = Duration::zero()});
    for (int i = 0; i < 5; ++i) CHECK(wait_after(backoff, never, 0.9) == RestartBackoff::shortest);
}

TEST_CASE("a longest wait below the first wait bounds it") {
    RestartBackoff backoff({.backoff = 10s, .max_backoff = 2s});
    CHECK(wait_after(backoff) == 2s);
    CHECK(wait_after(backoff) == 2s);
}
