#include "policy/outlier.h"

#include <doctest/doctest.h>
#include <vector>

namespace penstock {
namespace {

using Rate = OutlierRecord::Rate;

// What comes of these results, one after the other; the last one's answer.
std::optional<EjectReason> note_all(OutlierRecord& record, const OutlierRules& rules,
                                    std::initializer_list<TryResult> results) {
    std::optional<EjectReason> last;
    for (TryResult result : results) last = note(record, rules, result);
    return last;
}

constexpr auto good = TryResult::success;
constexpr auto e500 = TryResult::server_error;
constexpr auto e503 = TryResult::gateway_error;
constexpr auto local = TryResult::local_error;
constexpr auto nothing = TryResult::neutral;

const OutlierRules three{
    .consecutive_5xx = 3, .consecutive_gateway_errors = 0, .consecutive_local_errors = 3};

struct Records {
    explicit Records(std::initializer_list<Rate> rates,
                     Rate OutlierRecord::*series = &OutlierRecord::answers) {
        for (const Rate& rate : rates) (all.emplace_back().*series) = rate;
        for (OutlierRecord& record : all) pointers.push_back(&record);
    }
    std::vector<std::pair<size_t, EjectReason>> hits(const OutlierRules& rules) {
        std::vector<std::pair<size_t, EjectReason>> found;
        find_outliers(std::span<OutlierRecord* const>(pointers), rules,
                      [&](size_t i, EjectReason reason) { found.emplace_back(i, reason); });
        return found;
    }
    std::vector<OutlierRecord> all;
    std::vector<OutlierRecord*> pointers;
};

using Hits = std::vector<std::pair<size_t, EjectReason>>;

TEST_CASE("the fifth 5xx in a row ejects, not the fourth, and then the count begins anew") {
    const OutlierRules rules;
    OutlierRecord record;
    for (int round = 0; round < 2; ++round) {
        CHECK_FALSE(note_all(record, rules, {e500, e500, e500, e500}));
        CHECK(note(record, rules, e500) == EjectReason::consecutive_5xx);
    }
}

TEST_CASE("any answer below 500 ends a row of 5xx") {
    OutlierRecord record;
    CHECK_FALSE(note_all(record, three, {e500, e500, good, e500, e500}));
    CHECK(note(record, three, e500) == EjectReason::consecutive_5xx);
}

TEST_CASE("what says nothing neither counts nor ends a row") {
    OutlierRecord record;
    CHECK_FALSE(note_all(record, three, {e500, nothing, e500, nothing}));
    CHECK(note(record, three, e500) == EjectReason::consecutive_5xx);
    CHECK(record.answers.tries == 3);
}

TEST_CASE("502, 503 and 504 count as 5xx, and by themselves; another 5xx ends their own row only") {
    const OutlierRules rules{.consecutive_5xx = 4, .consecutive_gateway_errors = 2};
    OutlierRecord record;
    CHECK_FALSE(note_all(record, rules, {e503, e500, e503}));
    CHECK(note(record, rules, e503) == EjectReason::consecutive_gateway_errors);
    OutlierRecord other;
    CHECK_FALSE(note_all(other, rules, {e503, e500, e503}));
    CHECK(note(other, rules, e500) == EjectReason::consecutive_5xx);
}

TEST_CASE("local errors have a row of their own: any answer ends it, and it ends no row of 5xx") {
    OutlierRecord record;
    CHECK_FALSE(note_all(record, three, {local, local, e500, local, local}));
    CHECK(note(record, three, local) == EjectReason::consecutive_local_errors);
    CHECK_FALSE(note(record, three, e500));
    CHECK(note(record, three, e500) == EjectReason::consecutive_5xx);
}

TEST_CASE("a count of 0 is off") {
    const OutlierRules rules{
        .consecutive_5xx = 0, .consecutive_gateway_errors = 0, .consecutive_local_errors = 0};
    OutlierRecord record;
    for (int i = 0; i < 100; ++i) CHECK_FALSE(note_all(record, rules, {e500, e503, local}));
}

TEST_CASE("Envoy's example: among 50, 100, 100, 100, 100 percent the one below 52 is an outlier") {
    const OutlierRules rules{.success_rate = OutlierRules::SuccessRate{}};
    const Rate all_good{100, 0};
    Records records({{100, 50}, all_good, all_good, all_good, all_good});
    CHECK(success_rate_bound(std::span<OutlierRecord* const>(records.pointers), &OutlierRecord::answers,
                             *rules.success_rate) == doctest::Approx(52));
    CHECK(records.hits(rules) == Hits{{0, EjectReason::success_rate}});
}

TEST_CASE("success rates are compared only between backends with enough requests, and enough of those") {
    const OutlierRules rules{.success_rate = OutlierRules::SuccessRate{1.9, 5, 100}};
    const Rate all_good{100, 0};
    CHECK(Records({{99, 99}, all_good, all_good, all_good, all_good}).hits(rules).empty());
    CHECK(Records({{100, 50}, all_good, all_good, all_good}).hits(rules).empty());
    Records ejected({{100, 50}, all_good, all_good, all_good, all_good});
    ejected.pointers[1] = nullptr;
    CHECK(ejected.hits(rules).empty());
    // The one with too few requests is not compared, but the others are.
    CHECK(Records({{100, 50}, all_good, all_good, all_good, all_good, {10, 10}}).hits(rules) ==
          Hits{{0, EjectReason::success_rate}});
}

TEST_CASE("backends that are all equally bad are no outliers") {
    const OutlierRules rules{.success_rate = OutlierRules::SuccessRate{1.9, 3, 10}};
    CHECK(Records({{10, 9}, {10, 9}, {10, 9}}).hits(rules).empty());
}

TEST_CASE("a failure percentage at the threshold ejects, one below it does not") {
    const OutlierRules rules{.failure_percentage = OutlierRules::FailurePercentage{85, 2, 50}};
    CHECK(Records({{100, 85}, {100, 84}}).hits(rules) == Hits{{0, EjectReason::failure_percentage}});
    CHECK(Records({{49, 49}, {100, 0}}).hits(rules).empty());
    CHECK(Records({{100, 100}, {49, 0}}).hits(rules).empty());
}

TEST_CASE("both rates are watched for local errors apart") {
    const OutlierRules rules{.success_rate = OutlierRules::SuccessRate{1, 3, 10},
                             .failure_percentage = OutlierRules::FailurePercentage{50, 3, 10}};
    Records records({{10, 5}, {10, 0}, {10, 0}}, &OutlierRecord::connections);
    CHECK(records.hits(rules) ==
          Hits{{0, EjectReason::local_success_rate}, {0, EjectReason::local_failure_percentage}});
}

TEST_CASE("rates are those of one interval") {
    OutlierRecord record;
    note_all(record, three, {good, e500, local});
    CHECK(record.answers.tries == 2);
    CHECK(record.answers.failures == 1);
    CHECK(record.connections.tries == 3);
    CHECK(record.connections.failures == 1);
    next_interval(record, three, false, Time(10s));
    CHECK(record.answers.tries + record.connections.tries == 0);
    CHECK(record.server_errors == 1);  // rows go on
}

TEST_CASE("in pools of one to eight, min_healthy others must stay ready") {
    const OutlierRules rules{.max_ejection_percent = 100, .min_healthy = 1};
    for (uint32_t size = 1; size <= 8; ++size) {
        uint32_t ejected = 0;
        while (may_eject(rules, {.ejected = ejected, .ready = size - ejected - 1, .backends = size}) ==
               EjectVerdict::eject)
            ++ejected;
        CHECK(ejected == size - 1);
    }
}

TEST_CASE("the last one is ejected where the user says so: min_healthy 0") {
    const OutlierRules rules{.min_healthy = 0};
    CHECK(may_eject(rules, {.ejected = 0, .ready = 0, .backends = 1}) == EjectVerdict::eject);
    CHECK(may_eject(OutlierRules{}, {.ejected = 0, .ready = 0, .backends = 1}) == EjectVerdict::min_healthy);
}

TEST_CASE("those who are down are not ready: a backend beside dead ones stays") {
    CHECK(may_eject(OutlierRules{}, {.ejected = 0, .ready = 0, .backends = 3}) == EjectVerdict::min_healthy);
}

TEST_CASE("max_ejection_percent: how many of one to eight, and the first one always, unless it is 0") {
    const auto most = [](uint32_t percent, uint32_t size) {
        const OutlierRules rules{.max_ejection_percent = percent, .min_healthy = 0};
        uint32_t ejected = 0;
        while (ejected < size &&
               may_eject(rules, {.ejected = ejected, .ready = size - ejected - 1, .backends = size}) ==
                   EjectVerdict::eject)
            ++ejected;
        return ejected;
    };
    constexpr uint32_t half[] = {1, 1, 1, 2, 2, 3, 3, 4};
    for (uint32_t size = 1; size <= 8; ++size) {
        CHECK(most(50, size) == half[size - 1]);
        CHECK(most(10, size) == 1);
        CHECK(most(0, size) == 0);
        CHECK(most(100, size) == size);
    }
    CHECK(most(10, 30) == 3);
}

TEST_CASE("the n-th ejection lasts n times as long, up to the longest") {
    const OutlierRules rules{.base_ejection_time = 30s, .max_ejection_time = 100s};
    OutlierRecord record;
    for (const Duration expected : {30s, 60s, 90s, 100s, 100s}) CHECK(eject(record, rules, 7) == expected);
    CHECK(record.times == 5);  // grows while 30s x n < 130s, so that it shrinks again in reasonable time
    CHECK(eject(record, rules, 7) == 100s);
    CHECK(record.times == 5);
    CHECK(record.row == 6);
}

TEST_CASE("jitter makes an ejection longer, never shorter, by at most itself") {
    const OutlierRules rules{.base_ejection_time = 10s, .max_ejection_time = 10s, .ejection_jitter = 1s};
    bool differs = false;
    for (uint64_t random : {uint64_t{0}, uint64_t{12345678901}, UINT64_MAX}) {
        OutlierRecord record;
        const Duration time = eject(record, rules, random);
        CHECK(time >= 10s);
        CHECK(time <= 11s);
        differs = differs || time != 10s;
    }
    CHECK(differs);
}

TEST_CASE("each interval in service takes one from n, but the one in which it came back") {
    const OutlierRules rules{.interval = 10s};
    OutlierRecord record;
    eject(record, rules, 0);
    eject(record, rules, 0);
    next_interval(record, rules, true, Time(100s));
    CHECK(record.times == 2);
    returned(record, Time(105s));
    next_interval(record, rules, false, Time(110s));
    CHECK(record.times == 2);
    next_interval(record, rules, false, Time(120s));
    CHECK(record.times == 1);
    CHECK(record.row == 0);
    next_interval(record, rules, false, Time(130s));
    next_interval(record, rules, false, Time(140s));
    CHECK(record.times == 0);
}

TEST_CASE("who comes back begins its rows anew") {
    OutlierRecord record;
    note_all(record, three, {e500, e500, local, local});
    returned(record, Time(1s));
    CHECK_FALSE(note_all(record, three, {e500, e500, local, local}));
}

}  // namespace
}  // namespace penstock
