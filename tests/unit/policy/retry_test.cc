#include "policy/retry.h"

#include <doctest/doctest.h>

namespace penstock {
namespace {

FailedTry reset_get() {
    return {
        .why = FailedTry::Why::reset, .request_begun = true, .replayable = true, .idempotent_method = true};
}
FailedTry refused_post() { return {.why = FailedTry::Why::connect_failure, .replayable = true}; }

RetryVerdict judge(const FailedTry& t, const RetryRules& rules = {}) { return judge_retry(rules, t, 0, 10); }

TEST_CASE("a connect failure is tried again whatever the method, as often as the settings say") {
    FailedTry t = refused_post();
    CHECK(judge(t) == RetryVerdict::again);
    t.attempts = 1;
    CHECK(judge(t) == RetryVerdict::no);
    CHECK(judge(t, {.attempts = 2}) == RetryVerdict::again);
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

TEST_CASE("nothing is sent again once a byte of an answer came, or a 1xx was passed on") {
    FailedTry t = reset_get();
    t.answer_begun = true;
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

TEST_CASE("rubbish and timeouts are not retried") {
    FailedTry t = reset_get();
    t.why = FailedTry::Why::other;
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
    CHECK(judge_retry(rules, refused_post(), 1, 1000) == RetryVerdict::again);
    CHECK(judge_retry(rules, refused_post(), 2, 1000) == RetryVerdict::spent);
    FailedTry t = reset_get();
    t.reused = true;
    CHECK(judge_retry(rules, t, 2, 1000) == RetryVerdict::fresh);
}

TEST_CASE("the budget bounds retries to a share of what is in flight, but not below three") {
    const RetryRules rules{.budget = 0.2, .max_retries = 0};
    CHECK(judge_retry(rules, refused_post(), 19, 100) == RetryVerdict::again);
    CHECK(judge_retry(rules, refused_post(), 20, 100) == RetryVerdict::spent);
    CHECK(judge_retry(rules, refused_post(), 2, 1) == RetryVerdict::again);
    CHECK(judge_retry(rules, refused_post(), 3, 1) == RetryVerdict::spent);
}

}  // namespace
}  // namespace penstock
