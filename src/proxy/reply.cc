#include "proxy/reply.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

#include "codec/h1_writer.h"
#include "http/grpc.h"

namespace penstock {

Answer answer_to(Cause cause, Rule rule, const StatusCodes* codes) {
    static const StatusCodes defaults;
    const StatusCodes& code = codes ? *codes : defaults;
    switch (cause) {
        case Cause::none: break;
        case Cause::bad_request: {
            if (rule == Rule::http_on_tls_port)
                return {400, "bad_request", "plain HTTP was sent to a port that speaks TLS; use https://"};
            uint16_t status = rule_status(rule);
            return {status ? status : uint16_t{400}, "bad_request", "the request is malformed or ambiguous"};
        }
        case Cause::body_too_large: return {413, "bad_request", "the request body is too large"};
        case Cause::header_timeout: return {408, "header_timeout", "the request head did not come in time"};
        case Cause::body_timeout: return {408, "body_timeout", "the request body did not come in time"};
        case Cause::client_stall:
            return {408, "client_stall", "the client kept a backend waiting for too long"};
        case Cause::client_gone: return {499, "client_gone", "the client left"};
        case Cause::write_timeout: return {408, "write_timeout", "the client does not read"};
        case Cause::no_route: return {404, "no_route", "no route matches this request"};
        case Cause::rate_limited: return {429, "rate_limited", "a rate limit is reached"};
        case Cause::queue_full: return {code.queue_full, "queue_full", "the queue is full"};
        case Cause::queue_timeout:
            return {code.queue_timeout, "queue_timeout", "the request waited too long for a free backend"};
        case Cause::circuit_open: return {503, "circuit_open", "a limit of the circuit breaker is reached"};
        case Cause::no_backend: return {code.no_backend, "no_backend", "no backend is up"};
        case Cause::memory_full: return {503, "memory_full", "no memory is left for another body"};
        case Cause::draining: return {503, "draining", "the server is shutting down"};
        case Cause::internal_error: return {500, "internal_error", "the proxy failed"};
        case Cause::connect_failure: return {502, "connect_failure", "the backend could not be reached"};
        case Cause::backend_reset:
            return {502, "backend_reset", "the backend ended the connection before its answer was complete"};
        case Cause::bad_response: return {502, "bad_response", "the backend's answer is not valid"};
        case Cause::first_byte_timeout:
            return {code.request_timeout, "first_byte_timeout",
                    "the backend did not begin to answer in time"};
        case Cause::per_try_timeout:
            return {code.request_timeout, "per_try_timeout", "the backend did not begin to answer in time"};
        case Cause::error_status: return {502, "error_status", "the backend answered with an error"};
        case Cause::idle_timeout:
            return {code.request_timeout, "idle_timeout", "the backend stopped answering"};
        case Cause::request_timeout:
            return {code.request_timeout, "request_timeout", "the request took too long"};
    }
    return {500, "internal_error", "the proxy failed"};
}

void fill_answer(Message& response, Arena& arena, const Answer& answer, Rule rule, uint32_t retry_after) {
    char body[512];
    auto body_end = rule == Rule::ok
                        ? fmt::format_to_n(body, sizeof body,
                                           R"({{"error":{{"reason":"{}","message":"{}"}}}})"
                                           "\n",
                                           answer.reason, answer.message)
                        : fmt::format_to_n(body, sizeof body,
                                           R"({{"error":{{"reason":"{}","message":"{}","rule":"{}"}}}})"
                                           "\n",
                                           answer.reason, answer.message, rule_name(rule));
    std::string_view text(body, std::min(body_end.size, sizeof body));

    HeadBuilder head(arena);
    head.status(answer.status);
    head.reason(standard_reason(answer.status));
    head.add("content-type", "application/json");
    char seconds[12];
    head.add(
        "retry-after",
        {seconds, static_cast<size_t>(
                      std::to_chars(seconds, std::end(seconds), std::max(1U, retry_after)).ptr - seconds)});
    if (rule == Rule::ok) {
        head.add("x-penstock-reason", answer.reason);
    } else {
        char reason[128];
        auto end = fmt::format_to_n(reason, sizeof reason, "{}; rule={}", answer.reason, rule_name(rule));
        head.add("x-penstock-reason", {reason, std::min(end.size, sizeof reason)});
    }
    response.head = head.head();
    response.framing.body = response.framing.declared = BodyKind::length;
    response.framing.length = text.size();
    response.fill_to(Progress::head);
    // A few hundred bytes: where even they cannot be had, the head alone says it.
    if (response.body.open(text.size(), text.size(), false))
        response.body.copy(text);
    else
        response.framing.length = 0;
    response.fill_to(Progress::complete);
}

void fill_grpc_answer(Message& response, Arena& arena, const Answer& answer, Cause cause,
                      uint32_t retry_after) {
    retry_after = std::max(1U, retry_after);
    char text[3 * 128];
    HeadBuilder head(arena);
    head.status(200);
    head.reason(standard_reason(200));
    head.add("content-type", "application/grpc");
    head.add("grpc-status", fmt::format_int(static_cast<unsigned>(grpc_status_of(cause))).str());
    head.add("grpc-message", write_grpc_message(answer.message.substr(0, 128), text));
    head.add("x-penstock-reason", answer.reason);
    head.add("retry-after", fmt::format_int(retry_after).str());
    if (is_refusal(cause))
        head.add("grpc-retry-pushback-ms", fmt::format_int(uint64_t{retry_after} * 1000).str());
    response.head = head.head();
    response.framing.body = response.framing.declared = BodyKind::length;
    response.framing.length = 0;
    response.fill_to(Progress::head);
    response.fill_to(Progress::complete);
}

}  // namespace penstock
