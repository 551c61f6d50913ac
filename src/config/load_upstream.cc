#include <algorithm>

#include "config/load_parts.h"

namespace penstock {

namespace {

constexpr uint64_t most_requests = 1'000'000;  // at a time: far more than anybody's machine takes

void read_tls(Section& s, BackendTls& out) {
    s.flag("verify", out.verify);
    s.text("ca", out.ca);
    s.text("server_name", out.server_name);
    s.text("certificate", out.certificate);
    s.text("key", out.key);
    if (out.certificate.empty() != out.key.empty()) {
        s.error(out.key.empty() ? "certificate" : "key", "stands alone; give certificate and key together");
    }
}

void read_queue(Section& s, Queue& out) {
    s.number("size", out.size, 0, most_requests);
    s.duration("timeout", out.timeout);
    s.size("bytes", out.bytes);
    s.duration("start_timeout", out.start_timeout);
    s.flag("refuse_hopeless", out.refuse_hopeless);
}

void read_status(Section& s, StatusCodes& out) {
    s.number("queue_full", out.queue_full, 400, 599);
    s.number("queue_timeout", out.queue_timeout, 400, 599);
    s.number("request_timeout", out.request_timeout, 400, 599);
    s.number("no_backend", out.no_backend, 400, 599);
}

void read_circuit_breaker(Section& s, CircuitBreaker& out) {
    s.number("max_connections", out.max_connections);
    s.number("max_pending_requests", out.max_pending_requests);
    s.number("max_requests", out.max_requests);
    s.number("max_retries", out.max_retries);
    s.number("max_requests_per_connection", out.max_requests_per_connection);
}

void read_success_rate(Section& s, SuccessRate& out) {
    if (auto value = s.value("stdev_factor")) {
        auto text = value->text();
        auto factor = text ? parse_decimal(*text) : std::nullopt;
        if (factor) out.stdev_factor = *factor;
        if (text && !factor)
            value->error(fmt::format("\"{}\" is not a factor; write one such as 1.9", *text));
    }
    s.number("min_backends", out.min_backends, 1);
    s.number("min_requests", out.min_requests, 1);
}

void read_failure_percentage(Section& s, FailurePercentage& out) {
    s.number("threshold", out.threshold, 1, 100);
    s.number("min_backends", out.min_backends, 1);
    s.number("min_requests", out.min_requests, 1);
}

void read_outlier_detection(Section& s, OutlierDetection& out) {
    s.number("consecutive_5xx", out.consecutive_5xx);
    s.number("consecutive_gateway_errors", out.consecutive_gateway_errors);
    s.number("consecutive_local_errors", out.consecutive_local_errors);
    s.duration("interval", out.interval, 1ms);
    s.duration("base_ejection_time", out.base_ejection_time, 1ms);
    s.duration("max_ejection_time", out.max_ejection_time, 1ms);
    s.number("max_ejection_percent", out.max_ejection_percent, 0, 100);
    s.number("min_healthy", out.min_healthy);
    s.duration("ejection_jitter", out.ejection_jitter);
    s.section("success_rate",
              [&out](Section& inner) { read_success_rate(inner, out.success_rate.emplace()); });
    s.section("failure_percentage",
              [&out](Section& inner) { read_failure_percentage(inner, out.failure_percentage.emplace()); });
    if (out.max_ejection_time < out.base_ejection_time) {
        s.error(s.has("max_ejection_time") ? "max_ejection_time" : "base_ejection_time",
                fmt::format("base_ejection_time {} is longer than max_ejection_time {}; make it at most that",
                            format_duration(out.base_ejection_time), format_duration(out.max_ejection_time)));
    }
}

void read_health_check(Section& s, HealthCheck& out) {
    bool tcp = false;
    s.flag("tcp", tcp);
    s.text("path", out.path);
    s.duration("interval", out.interval, 1ms);
    s.duration("timeout", out.timeout, 1ms);
    s.number("healthy", out.healthy, 1, 100);
    s.number("unhealthy", out.unhealthy, 1, 100);
    s.number("expect", out.expect, 200, 599);
    s.percent("jitter", out.jitter);
    if (!out.path.starts_with('/')) {
        s.error("path", fmt::format("\"{}\" does not begin with /; write /{}", out.path, out.path));
    }
    if (s.has("grpc")) s.text_or_empty("grpc", out.grpc.emplace());
    if (tcp && out.grpc) s.error("grpc", "is given beside tcp, which asks for nothing; keep one of them");
    if (!tcp && !out.grpc) return;
    for (std::string_view key : {"path", "expect"})
        if (s.has(key))
            s.error(key, fmt::format("is given beside {}; keep one of them",
                                     tcp ? "tcp, which asks for nothing" : "grpc"));
    out.path.clear();
}

// A condition by its name, or the status of an answer.
void read_retry_on(const Value& item, Retry& out) {
    enum class On : uint8_t { connect_failure, reset_before_response, gateway_error, any_5xx };
    auto text = item.text();
    if (text && !text->empty() && text->find_first_not_of("0123456789") == text->npos) {
        if (auto status = item.number(400, 599)) out.on_status.add(static_cast<unsigned>(*status));
        return;
    }
    auto on = item.choice<On>({{"connect_failure", On::connect_failure},
                               {"reset_before_response", On::reset_before_response},
                               {"gateway_error", On::gateway_error},
                               {"5xx", On::any_5xx}});
    if (!on) return;
    switch (*on) {
        case On::connect_failure: out.on_connect_failure = true; return;
        case On::reset_before_response: out.on_reset_before_response = true; return;
        case On::gateway_error:
            for (unsigned status : {502, 503, 504}) out.on_status.add(status);
            return;
        case On::any_5xx:
            for (unsigned status = 500; status < 600; ++status) out.on_status.add(status);
    }
}

void read_retry(Section& s, Retry& out) {
    s.number("attempts", out.attempts, 0, 10);
    if (s.has("on")) out.on_connect_failure = out.on_reset_before_response = false;
    s.list("on", "[connect_failure, reset_before_response]",
           [&out](const Value& item) { read_retry_on(item, out); });
    s.duration("backoff", out.backoff);
    out.max_backoff = std::max(out.max_backoff, out.backoff);
    s.duration("max_backoff", out.max_backoff);
    if (out.max_backoff < out.backoff) {
        s.error("max_backoff", fmt::format("{} is shorter than backoff {}; make it at least that",
                                           format_duration(out.max_backoff), format_duration(out.backoff)));
    }
    s.duration("per_try_timeout", out.per_try_timeout);
    s.percent("budget", out.budget);
    s.flag("idempotent", out.idempotent);
}

}  // namespace

void read_upstream(Section& s, Upstream& out) {
    s.section("workers", [&out](Section& inner) { read_workers(inner, out.workers.emplace()); });
    bool has_concurrency = s.has("concurrency");
    // A GPU worker takes one request at a time unless somebody says more; of other people's servers we
    // know nothing, so they are not limited.
    out.concurrency = out.workers ? 1 : 0;
    s.number("concurrency", out.concurrency, 0, most_requests);
    s.list("servers", "[{address: 10.0.0.5:8000}]", [&](const Value& item) {
        read_server(item, has_concurrency ? out.concurrency : 0, out.servers.emplace_back());
    });
    s.choice("protocol", out.protocol, {{"http1", Protocol::http1}, {"http2", Protocol::http2}});
    s.section("tls", [&out](Section& inner) { read_tls(inner, out.tls.emplace()); });
    if (auto balance = s.value("balance")) read_balance(*balance, out.balance);
    s.section("queue", [&out](Section& inner) { read_queue(inner, out.queue); });
    s.section("timeouts", [&out](Section& inner) {
        inner.duration("connect", out.timeouts.connect);
        inner.duration("first_byte", out.timeouts.first_byte);
        inner.duration("idle", out.timeouts.idle);
        inner.duration("client_stall", out.timeouts.client_stall);
        inner.duration("request", out.timeouts.request);
    });
    s.section("buffer", [&out](Section& inner) {
        inner.size("request", out.buffer.request);
        inner.size("response", out.buffer.response);
    });
    out.on_abandon = out.has_slots() ? OnAbandon::drain : OnAbandon::close;
    s.choice("on_abandon", out.on_abandon,
             {{"drain", OnAbandon::drain}, {"close", OnAbandon::close}, {"restart", OnAbandon::restart}});
    s.duration("abandon_grace", out.abandon_grace);
    s.duration("abandon_limit", out.abandon_limit);
    s.section("pool", [&out](Section& inner) { inner.duration("idle", out.pool.idle); });
    s.section("status", [&out](Section& inner) { read_status(inner, out.status); });
    bool has_max_retries = false;
    s.section("circuit_breaker", [&](Section& inner) {
        has_max_retries = inner.has("max_retries");
        read_circuit_breaker(inner, out.circuit_breaker);
    });
    s.section("outlier_detection",
              [&out](Section& inner) { read_outlier_detection(inner, out.outlier_detection.emplace()); });
    s.section("health_check",
              [&out](Section& inner) { read_health_check(inner, out.health_check.emplace()); });
    s.duration("slow_start", out.slow_start);
    s.section("retry", [&](Section& inner) {
        // Who gives a budget wants it to decide, and the few that are allowed without one never reach it.
        if (inner.has("budget") && !has_max_retries) out.circuit_breaker.max_retries = 0;
        read_retry(inner, out.retry);
    });
}

}  // namespace penstock
