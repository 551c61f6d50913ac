// What an exchange says of itself: in the head for the backend, in the head for the client, in the log.
#include <algorithm>
#include <fmt/format.h>

#include "http/forward.h"
#include "http/rules.h"
#include "proxy/affinity.h"
#include "proxy/data_loop.h"
#include "proxy/exchange.h"
#include "proxy/reply.h"

namespace penstock {

const HeadEdit& Exchange::request_edit(Time now) {
    if (has_request_edit_) {
        write_time_left(now);
        return request_edit_;
    }
    has_request_edit_ = true;
    Head& head = request.head;
    drop_request_hop(head, request.framing.upgrade);
    head.drop(FieldId::expect);  // we answered it
    std::string_view id = request_id();
    head.drop(FieldId::x_request_id);
    auto* lines = arena_.array<FieldLine>(max_forwarding_fields + 2);
    ClientFacts facts{client_info.address, client_address_, client_info.secure ? "https" : "http",
                      client_info.port, client_info.trusted};
    size_t count = forwarding_fields(head, facts, arena_, lines);
    lines[count++] = {"x-request-id", id};
    if (is_grpc_ && ticket_.deadline != never) {
        head.drop(FieldId::grpc_timeout);
        time_left_ = &lines[count++];
        *time_left_ = {"grpc-timeout", {arena_.array<char>(grpc_timeout_bound), grpc_timeout_bound}};
        write_time_left(now);
    }
    request_edit_.add = {lines, count};
    if (request.framing.upgrade) request_edit_.connection = ConnectionWord::upgrade;
    return request_edit_;
}

// Until its deadline, as it stands when a try is sent: the queue and earlier tries have taken their part.
void Exchange::write_time_left(Time now) {
    if (!time_left_) return;
    auto* text = const_cast<char*>(time_left_->value.data());
    time_left_->value = write_grpc_timeout(ticket_.deadline - now, text);
}

// The smaller of what the route allows and what the client waits.
Time Exchange::deadline_asked_for() const {
    Time ours = deadline_after(began_, route_->timeouts.request);
    auto theirs = is_grpc_ ? grpc_timeout(request.head) : std::nullopt;
    if (!theirs) return ours;
    return std::min(ours, deadline_after(began_, std::max<Duration>(*theirs, 1ns)));
}

GrpcStatus Exchange::grpc_status() const {
    return cause_ == Cause::none ? grpc_status_of(response.head, response.trailers) : grpc_status_of(cause_);
}

// The client's own where it can harm no log, else one of ours. What is refused has one too: it is what a user
// can quote.
std::string_view Exchange::request_id() {
    if (!request_id_.empty()) return request_id_;
    if (request.head.text) request_id_ = request.head.value_of(FieldId::x_request_id);
    if (is_request_id(request_id_)) return request_id_;
    char* made = arena_.array<char>(32);
    fmt::format_to(made, "{:016x}{:016x}", loop_.random(), loop_.random());
    return request_id_ = {made, 32};
}

// Its name is copied: the log says it at the end, when the backend may be forgotten.
void Exchange::meet(const Backend& backend) {
    backend_name_ = arena_.keep(backend.name());
    // HTTP/1.0 may have no Host, HTTP/1.1 needs one, and some (nginx) refuse an empty one.
    if (host_.empty() && !request.head.find(FieldId::host))
        request_edit_.host = is_host(backend_name_) ? backend_name_ : "localhost";
    const auto& sticky = upstream_->settings.balance.sticky;
    sticky_cookie_ = {};
    if (sticky && !lease_.had_home()) sticky_cookie_ = sticky_cookie(*sticky, backend.identity(), arena_);
}

HeadEdit Exchange::response_edit(Time now) {
    HeadEdit edit;
    auto* lines = arena_.array<FieldLine>(5);
    size_t count = 0;
    lines[count++] = {"x-request-id", request_id()};
    if (!sticky_cookie_.empty() && step_ != Step::answered) lines[count++] = {"set-cookie", sticky_cookie_};
    if (granted_ != Time{}) {
        char* timing = arena_.array<char>(64);
        Time answered = first_byte_ != Time{} ? first_byte_ : backend_done_ != Time{} ? backend_done_ : now;
        auto* end = fmt::format_to_n(timing, 64, "queue;dur={:.1f}, backend;dur={:.1f}",
                                     seconds(std::max(queued_, Duration::zero())) * 1e3,
                                     seconds(answered - granted_) * 1e3)
                        .out;
        lines[count++] = {"server-timing", {timing, static_cast<size_t>(end - timing)}};
    }
    if (limit_texts_ && !limit_texts_->state.empty()) {
        lines[count++] = {"ratelimit-policy", limit_texts_->policy};
        lines[count++] = {"ratelimit", limit_texts_->state};
    }
    edit.add = {lines, count};
    edit.drop.add(FieldId::x_request_id);
    return edit;
}

void Exchange::log(Time now) {
    const Head& head = request.head;
    uint16_t status = logged_status_ ? logged_status_ : response.head.status;
    RequestEnd ended;
    ended.upstream = upstream_ ? upstream_->label() : UpstreamLabel::none;
    ended.route = route_ ? route_->label : RouteLabel::none;
    ended.model = model_;
    ended.code = status;
    ended.whole = now - began_;
    ended.queue = queued_;
    if (granted_ != Time{}) {
        ended.backend = (backend_done_ == Time{} ? now : backend_done_) - granted_;
        if (first_byte_ != Time{}) ended.first_byte = first_byte_ - granted_;
    }
    loop_.stats().request_ended(ended);
    GrpcStatus grpc = is_grpc_ ? grpc_status() : GrpcStatus::ok;
    if (is_grpc_)
        loop_.stats().grpc_ended(ended.upstream, model_,
                                 {static_cast<uint8_t>(grpc), grpc_status_name(grpc)});
    if (upstream_ && is_retry()) {
        bool good = cause_ == Cause::none &&
                    !upstream_->settings.retry.on_status.has(logged_status_ ? logged_status_
                                                                            : status_at_head(response.head));
        loop_.stats().retry(ended.upstream, good ? RetryOutcome::succeeded : RetryOutcome::failed);
    }
    AccessLines* lines = loop_.access_log();
    if (!lines) return;
    AccessRecord record;
    record.unix_ns = std::chrono::duration_cast<Duration>(
                         std::chrono::system_clock::now().time_since_epoch() - (now - began_))
                         .count();
    record.client = client_address_.empty() ? client_info.address : client_address_;
    record.method = method_name(head.method);
    record.host = host_;
    record.target = head.text ? head.target() : std::string_view();
    record.protocol = head.version == Version::http2    ? "HTTP/2"
                      : head.version == Version::http10 ? "HTTP/1.0"
                                                        : "HTTP/1.1";
    record.status = status;
    if (is_grpc_) record.grpc_status = grpc_status_name(grpc);
    if (cause_ != Cause::none) record.reason = answer_to(cause_, rule, nullptr).reason;
    if (rule != Rule::ok) record.rule = rule_name(rule);
    if (limit_texts_) record.limit = limit_texts_->refused_by;
    if (upstream_) record.upstream = upstream_->name();
    record.backend = backend_name_;
    if (route_) record.route = route_->name;
    record.model = model_name_;
    record.request_id = request_id();
    if (cause_ != Cause::none) {
        record.ended_by = cause_ <= Cause::write_timeout ? "client"
                          : is_refusal(cause_)           ? "penstock"
                                                         : "backend";
        record.step = to_string(waiting_);
    }
    record.user_agent = head.text ? head.value_of(FieldId::user_agent) : std::string_view();
    record.referer = head.text ? head.value_of(FieldId::referer) : std::string_view();
    record.total = ended.whole;
    record.queue = ended.queue;
    record.backend_time = ended.backend;
    record.first_byte = ended.first_byte;
    record.request_bytes = request.body.total();
    record.response_bytes = response.body.total();
    record.attempts = granted_ == Time{} ? 0U : attempts_ + stale_retries_ + 1U;
    lines->add(record);
}

}  // namespace penstock
