#include "policy/retry.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <vector>

namespace penstock {
namespace {

FailedTry reset_get() {
    return {
        .why = FailedTry::Why::reset, .request_begun = true, .replayable = true, .idempotent_method = true};
}
FailedTry refused_post() { return {.why = FailedTry::Why::connect_failure, .replayable = true}; }
FailedTry answered_get(uint16_t status) {
    return {.why = FailedTry::Why::status,
            .status = status,
            .request_begun = true,
            .answer_begun = true,
            .replayable = true,
            .idempotent_method = true};
}

RetryVerdict judge(const FailedTry& t, const RetryRules& rules = {}, const RetryLoad& load = {.work = 10}) {
    return judge_retry(rules, t, load);
}

TEST_CASE("what could not be sent goes back to its place whatever the method, and that is no attempt") {
    FailedTry t = refused_post();
    CHECK(judge(t) == RetryVerdict::unsent);
    t.attempts = 1;
    CHECK(judge(t) == RetryVerdict::unsent);
    CHECK(judge(t, {.max_retries = 1}, {.at_once = 1}) == RetryVerdict::unsent);
    CHECK(judge(refused_post(), {.on_connect_failure = false}) == RetryVerdict::no);
    CHECK(judge(refused_post(), {.attempts = 0}) == RetryVerdict::no);
}

TEST_CASE("a GET whose connection was reset before any answer is tried again, a POST is not") {
    FailedTry t = reset_get();
    CHECK(judge(t) == RetryVerdict::again);
    t.idempotent_method = false;
    CHECK(judge(t) == RetryVerdict::no);
    CHECK(judge(t, {.idempotent = true}) == RetryVerdict::again);
    t.request_begun = false;
    CHECK(judge(t) == RetryVerdict::again);
    CHECK(judge(reset_get(), {.on_reset_before_response = false}) == RetryVerdict::no);
}

TEST_CASE("attempts are counted") {
    FailedTry t = reset_get();
    t.attempts = 1;
    CHECK(judge(t) == RetryVerdict::no);
    CHECK(judge(t, {.attempts = 2}) == RetryVerdict::again);
    CHECK(judge(reset_get(), {.attempts = 0}) == RetryVerdict::no);
}

TEST_CASE("nothing is sent again once a byte of an answer came, or a 1xx was passed on") {
    FailedTry t = reset_get();
    t.answer_begun = true;
    CHECK(judge(t) == RetryVerdict::no);
    t.reused = true;
    CHECK(judge(t) == RetryVerdict::no);
    t = reset_get();
    t.passed_on = true;
    CHECK(judge(t) == RetryVerdict::no);
    t.reused = true;
    CHECK(judge(t) == RetryVerdict::no);
}

TEST_CASE("a request of which a part has been let go is not sent again") {
    FailedTry t = refused_post();
    t.replayable = false;
    CHECK(judge(t) == RetryVerdict::no);
}

TEST_CASE("rubbish and timeouts of the whole are not retried") {
    FailedTry t = reset_get();
    t.why = FailedTry::Why::other;
    CHECK(judge(t) == RetryVerdict::no);
}

TEST_CASE("an answer is dropped for another try only where its status is named and nothing was passed on") {
    RetryRules rules;
    CHECK(judge(answered_get(503), rules) == RetryVerdict::no);
    rules.on_status.add(503);
    CHECK(judge(answered_get(503), rules) == RetryVerdict::again);
    CHECK(judge(answered_get(500), rules) == RetryVerdict::no);
    FailedTry t = answered_get(503);
    t.passed_on = true;
    CHECK(judge(t, rules) == RetryVerdict::no);
    t = answered_get(503);
    t.idempotent_method = false;
    CHECK(judge(t, rules) == RetryVerdict::no);
    rules.idempotent = true;
    CHECK(judge(t, rules) == RetryVerdict::again);
}

TEST_CASE("statuses outside 400 to 599 are never in the set") {
    RetriableStatuses set;
    for (unsigned status : {0U, 200U, 399U, 600U, 65535U}) {
        set.add(status);
        CHECK_FALSE(set.has(status));
    }
    CHECK(set.empty());
    set.add(400);
    set.add(599);
    CHECK(set.has(400));
    CHECK(set.has(599));
}

TEST_CASE("a try that took longer than per_try_timeout is followed by another where that is safe") {
    FailedTry t = reset_get();
    t.why = FailedTry::Why::timeout;
    CHECK(judge(t) == RetryVerdict::again);
    t.reused = true;
    CHECK(judge(t) == RetryVerdict::again);
    t.idempotent_method = false;
    CHECK(judge(t) == RetryVerdict::no);
}

TEST_CASE("a stale pooled connection is replaced once by a fresh one, and that is no attempt") {
    FailedTry t = reset_get();
    t.reused = true;
    t.attempts = 1;
    CHECK(judge(t) == RetryVerdict::fresh);
    CHECK(judge(t, {.attempts = 0}) == RetryVerdict::fresh);
    t.was_stale = true;
    CHECK(judge(t) == RetryVerdict::no);
    t.attempts = 0;
    CHECK(judge(t) == RetryVerdict::again);
}

TEST_CASE("a POST that may have been read from a stale connection is not sent again") {
    FailedTry t = reset_get();
    t.reused = true;
    t.idempotent_method = false;
    CHECK(judge(t) == RetryVerdict::no);
    t.request_begun = false;
    CHECK(judge(t) == RetryVerdict::fresh);
}

TEST_CASE("max_retries bounds the retries at once, and a fresh connection for a stale one is none") {
    const RetryRules rules{.max_retries = 2};
    CHECK(judge(reset_get(), rules, {.at_once = 1, .work = 1000}) == RetryVerdict::again);
    CHECK(judge(reset_get(), rules, {.at_once = 2, .work = 1000}) == RetryVerdict::over_limit);
    FailedTry t = reset_get();
    t.reused = true;
    CHECK(judge(t, rules, {.at_once = 2}) == RetryVerdict::fresh);
}

TEST_CASE("the budget bounds retries to a share of the work, but not below three at once") {
    const RetryRules rules{.budget = 0.2, .max_retries = 0};
    CHECK(judge(reset_get(), rules, {.at_once = 9, .lately = 19, .work = 100}) == RetryVerdict::again);
    CHECK(judge(reset_get(), rules, {.at_once = 9, .lately = 20, .work = 100}) == RetryVerdict::over_budget);
    CHECK(judge(reset_get(), rules, {.at_once = 2, .lately = 20, .work = 100}) == RetryVerdict::again);
    CHECK(judge(reset_get(), rules, {.at_once = 3, .lately = 3, .work = 1}) == RetryVerdict::over_budget);
}

TEST_CASE("the budget looks back over the last minute, in steps of five seconds") {
    RetryBudget budget;
    Time now{100s};
    budget.answered(now);
    budget.retried(now);
    now += 30s;
    budget.answered(now);
    CHECK(budget.answered_lately(now) == 2);
    CHECK(budget.retried_lately(now) == 1);
    now = Time{159999ms};
    CHECK(budget.answered_lately(now) == 2);
    now = Time{160s};
    CHECK(budget.answered_lately(now) == 1);
    CHECK(budget.retried_lately(now) == 0);
    now += 1h;
    CHECK(budget.answered_lately(now) == 0);
    budget.answered(now);
    CHECK(budget.answered_lately(now) == 1);
    CHECK(budget.answered_lately(now - 10s) == 1);  // a clock that was read earlier
}

TEST_CASE("the budget counts each request once whatever the steps of the clock") {
    RetryBudget budget;
    Time now{1s};
    uint64_t random = 1;
    std::vector<Time> all;
    for (int i = 0; i < 2000; ++i) {
        random = random * 6364136223846793005 + 1442695040888963407;
        now += std::chrono::milliseconds(random >> 33 & (i % 100 == 0 ? 0x1FFFF : 0x3FF));
        all.push_back(now);
        budget.answered(now);
        const Time first = Time{(now.time_since_epoch() / 5s - 11) * Duration{5s}};
        const auto expected = std::ranges::count_if(all, [&](Time t) { return t >= first; });
        REQUIRE(budget.answered_lately(now) == static_cast<uint64_t>(expected));
    }
}

TEST_CASE("the pause before a retry is random, doubles with each attempt, and is bounded") {
    CHECK(retry_backoff(0s, 1s, 1, 12345) == 0s);
    auto longest = [](uint32_t attempt) {
        Duration most{};
        uint64_t random = 1;
        for (int i = 0; i < 20000; ++i) {
            random = random * 6364136223846793005 + 1442695040888963407;
            most = std::max(most, retry_backoff(25ms, 250ms, attempt, random >> 8));
        }
        return most;
    };
    const Duration bounds[] = {25ms, 50ms, 100ms, 200ms, 250ms, 250ms};
    for (uint32_t attempt = 1; attempt <= 6; ++attempt) {
        CHECK(longest(attempt) <= bounds[attempt - 1]);
        CHECK(longest(attempt) > bounds[attempt - 1] * 99 / 100);
    }
    CHECK(retry_backoff(25ms, 250ms, 1000000, 0) == 0s);
}

}  // namespace
}  // namespace penstock
