#include "policy/retry_after.h"

#include <doctest/doctest.h>

namespace penstock {
namespace {

MeanHold mean_of(Duration d) {
    MeanHold mean;
    mean.add(d);
    return mean;
}
Load load(uint64_t ahead, uint64_t slots, MeanHold mean) {
    return {.ahead = ahead, .slots = slots, .mean = mean, .oldest = {}, .to_ready = {}, .queue_timeout = 30s};
}

TEST_CASE("the wait is one mean hold per slot for everybody ahead and for oneself") {
    CHECK(expected_wait(load(0, 1, mean_of(20s))) == 20s);
    CHECK(expected_wait(load(4, 1, mean_of(20s))) == 100s);
    CHECK(expected_wait(load(4, 2, mean_of(20s))) == 50s);
}

TEST_CASE("a work that runs longer than the mean raises the estimate to its age") {
    Load l = load(1, 1, mean_of(1s));
    l.oldest = 60s;
    CHECK(expected_wait(l) == 120s);
}

TEST_CASE("the time until a backend is ready is added") {
    Load l = load(0, 1, mean_of(2s));
    l.to_ready = 10s;
    CHECK(expected_wait(l) == 12s);
}

TEST_CASE("before any sample half the queue timeout is assumed") {
    CHECK(expected_wait(load(7, 1, {})) == 15s);
}

TEST_CASE("an estimate without bounds stays within a day") {
    CHECK(expected_wait(load(UINT64_MAX - 1, 1, mean_of(Duration::max() / 2))) == 24h);
}

TEST_CASE("Retry-After is whole seconds, rounded up, from 1 to 3600") {
    CHECK(retry_after(0s, 0) == 1);
    CHECK(retry_after(1ms, 0) == 1);
    CHECK(retry_after(1001ms, 0) == 2);
    CHECK(retry_after(24h, UINT64_MAX) == 3600);
}

TEST_CASE("Retry-After spreads by up to a fifth") {
    CHECK(retry_after(100s, 0) == 100);
    CHECK(retry_after(100s, UINT64_MAX) == 120);
    CHECK(retry_after(100s, uint64_t{7} << 60) == 109);
}

TEST_CASE("the mean is that of all samples while they are few, then follows the newer ones") {
    MeanHold mean;
    CHECK_FALSE(mean.has_samples());
    mean.add(1s);
    mean.add(3s);
    CHECK(mean.value() == 2s);
    for (int i = 0; i < 100; ++i) mean.add(10s);
    CHECK(mean.value() > 9900ms);
    mean.add(26s);  // one odd one moves it by a sixteenth of the difference
    CHECK(mean.value() < 11100ms);
}

}  // namespace
}  // namespace penstock
