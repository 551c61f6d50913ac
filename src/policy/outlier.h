// Outlier detection: a backend that fails is left out for a while. Envoy's algorithm (its "split" mode: what
// a backend answered and whether it could be reached at all are judged apart), as pure functions over plain
// records; the park keeps a record for each backend and does what comes out.
//
//     note(record, rules, TryResult)       as each try ends: a number of failures in a row decides at once
//     find_outliers(records, rules, hit)   as each interval ends: rates, against the others' or a threshold
//     may_eject(rules, pool)               both only ask; the pool has the last word
//     ejection_time(record, rules, r)      base x n; n grows with each ejection and shrinks in good intervals
//
// Different from Envoy on purpose: an ejection lasts exactly its time, whatever `interval` is, and ends with
// one probing request instead of full traffic; `min_healthy` counts backends, because with one to eight of
// them percentages are coarse; and max_ejection_percent never forbids to eject a first one, unless it is 0.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/time.h"

namespace penstock {

// What the end of a try says about its backend.
enum class TryResult : uint8_t {
    neutral,  // nothing: our own refusal, the client left, the backend says that it is full
    success,
    server_error,   // answered with 5xx
    gateway_error,  // with 502, 503 or 504: counts as a 5xx too
    local_error,    // no connection, no answer in time, an answer cut off or no HTTP
};

enum class EjectReason : uint8_t {
    consecutive_5xx,
    consecutive_gateway_errors,
    consecutive_local_errors,
    success_rate,
    local_success_rate,
    failure_percentage,
    local_failure_percentage,
    probing_request,  // it was ejected already, and its probing request failed
};
constexpr size_t eject_reasons = 8;
std::string_view to_string(EjectReason);

// A count of 0 switches it off.
struct OutlierRules {
    struct SuccessRate {
        double stdev_factor = 1.9;
        uint32_t min_backends = 5;
        uint32_t min_requests = 100;
    };
    struct FailurePercentage {
        uint32_t threshold = 85;
        uint32_t min_backends = 5;
        uint32_t min_requests = 50;
    };

    uint32_t consecutive_5xx = 5;
    uint32_t consecutive_gateway_errors = 0;
    uint32_t consecutive_local_errors = 5;
    Duration interval = 10s;
    Duration base_ejection_time = 30s;
    Duration max_ejection_time = 300s;
    Duration ejection_jitter{};  // up to so much longer, at random
    uint32_t max_ejection_percent = 50;
    uint32_t min_healthy = 1;
    std::optional<SuccessRate> success_rate{};
    std::optional<FailurePercentage> failure_percentage{};
    uint32_t restart_after = 0;  // ejections of one of ours in a row
};

struct OutlierRecord {
    struct Rate {
        uint32_t tries = 0, failures = 0;
    };

    uint32_t server_errors = 0, gateway_errors = 0, local_errors = 0;  // in a row
    Rate answers;        // of this interval: 5xx among the answers
    Rate connections;    // local errors among all tries
    uint32_t times = 0;  // Envoy's multiplier, n: up with each ejection, down with each good interval
    uint32_t row = 0;    // ejections without a good interval between them
    Time returned_at{};  // from the last ejection
};

// Counts it. A reason: the number in a row that is reached now (the count begins anew).
std::optional<EjectReason> note(OutlierRecord&, const OutlierRules&, TryResult);

// What is known of the backends beside the one in question.
struct Others {
    uint32_t ejected = 0;
    uint32_t ready = 0;
    uint32_t backends = 0;  // in all, and it included
};
enum class EjectVerdict : uint8_t { eject, min_healthy, max_ejection_percent };
EjectVerdict may_eject(const OutlierRules&, const Others&);

// The next ejection of this backend: counts it and says how long. `random` is any number.
Duration eject(OutlierRecord&, const OutlierRules&, uint64_t random);
// It is back: what it did before its ejection counts no more.
void returned(OutlierRecord&, Time now);

// An interval has ended. A null pointer stands for a backend that is ejected (or not there); `hit(index,
// reason)` comes for each that should be ejected. Then next_interval() for each record, ejected or not.
template <class Hit>
void find_outliers(std::span<OutlierRecord* const> records, const OutlierRules& rules, Hit hit);
void next_interval(OutlierRecord&, const OutlierRules&, bool is_ejected, Time now);

// --- for find_outliers

// Success rates (0 to 100) below this are outliers; nothing: too few backends had enough requests.
std::optional<double> success_rate_bound(std::span<OutlierRecord* const>,
                                         OutlierRecord::Rate OutlierRecord::*,
                                         const OutlierRules::SuccessRate&);
bool has_enough(std::span<OutlierRecord* const>, OutlierRecord::Rate OutlierRecord::*,
                const OutlierRules::FailurePercentage&);
double success_rate(const OutlierRecord::Rate&);

template <class Hit>
void find_outliers(std::span<OutlierRecord* const> records, const OutlierRules& rules, Hit hit) {
    struct Series {
        OutlierRecord::Rate OutlierRecord::*rate;
        EjectReason by_rate, by_percentage;
    };
    constexpr std::array<Series, 2> all{
        {{&OutlierRecord::answers, EjectReason::success_rate, EjectReason::failure_percentage},
         {&OutlierRecord::connections, EjectReason::local_success_rate,
          EjectReason::local_failure_percentage}}};
    for (const Series& series : all) {
        // The bounds first: a hit may change who is ejected.
        std::optional<double> bound;
        if (rules.success_rate) bound = success_rate_bound(records, series.rate, *rules.success_rate);
        const bool by_percentage =
            rules.failure_percentage && has_enough(records, series.rate, *rules.failure_percentage);
        for (size_t i = 0; i < records.size(); ++i) {
            if (!records[i]) continue;
            const OutlierRecord::Rate& rate = records[i]->*series.rate;
            if (bound && rate.tries >= rules.success_rate->min_requests && success_rate(rate) < *bound)
                hit(i, series.by_rate);
            if (by_percentage && rate.tries >= rules.failure_percentage->min_requests &&
                100 - success_rate(rate) >= rules.failure_percentage->threshold)
                hit(i, series.by_percentage);
        }
    }
}

}  // namespace penstock
