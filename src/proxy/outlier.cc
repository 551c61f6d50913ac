#include "proxy/outlier.h"

#include "config/config.h"
#include "http/grpc.h"

namespace penstock {

Outcome outcome_of(const Head& response, const Head& trailers) {
    uint16_t status = response.status;
    if (status == 200 && is_grpc(response)) status = http_status_of(grpc_status_of(response, trailers));
    if (status == 429) return Outcome::full;
    if (status < 500) return Outcome::answered;
    if (status == 503 && (response.find("retry-after") || response.find("x-penstock-reason")))
        return Outcome::full;
    return status >= 502 && status <= 504 ? Outcome::gateway_error : Outcome::bad_answer;
}

std::optional<OutlierRules> outlier_rules_of(const Upstream& settings) {
    if (!settings.outlier_detection) return std::nullopt;
    const OutlierDetection& from = *settings.outlier_detection;
    OutlierRules rules;
    rules.consecutive_5xx = from.consecutive_5xx;
    rules.consecutive_gateway_errors = from.consecutive_gateway_errors;
    rules.consecutive_local_errors = from.consecutive_local_errors;
    rules.interval = from.interval;
    rules.base_ejection_time = from.base_ejection_time;
    rules.max_ejection_time = from.max_ejection_time;
    rules.ejection_jitter = from.ejection_jitter;
    rules.max_ejection_percent = from.max_ejection_percent;
    rules.min_healthy = from.min_healthy;
    if (const auto& rate = from.success_rate)
        rules.success_rate = {rate->stdev_factor, rate->min_backends, rate->min_requests};
    if (const auto& percentage = from.failure_percentage)
        rules.failure_percentage = {percentage->threshold, percentage->min_backends,
                                    percentage->min_requests};
    if (settings.workers) rules.restart_after = settings.workers->restart.after_ejections;
    return rules;
}

}  // namespace penstock
