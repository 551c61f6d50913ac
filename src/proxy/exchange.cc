#include "proxy/exchange.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <fmt/format.h>

#include "http/forward.h"
#include "http/target.h"
#include "proxy/affinity.h"
#include "proxy/data_loop.h"
#include "proxy/reply.h"

namespace penstock {

namespace {

Cause cause_of(Refusal refusal) {
    switch (refusal) {
        case Refusal::queue_full: return Cause::queue_full;
        case Refusal::queue_timeout: return Cause::queue_timeout;
        case Refusal::no_backend: return Cause::no_backend;
        case Refusal::circuit_open: return Cause::circuit_open;
        case Refusal::draining: return Cause::draining;
        case Refusal::request_timeout: return Cause::request_timeout;
        case Refusal::none: break;
    }
    return Cause::internal_error;
}

// A backend that speaks HTTP/2 has no Upgrade: the request is an ordinary one, as RFC 9110 7.8 has it. Not
// ok: nothing but a tunnel would do.
Rule forgo_upgrade(Message& request) {
    if (request.framing.tunnel) return Rule::method_unknown;  // 501
    if (!request.framing.upgrade) return Rule::ok;
    request.framing.upgrade = false;
    if (!request.is_complete()) request.fill_to(Progress::complete);
    return Rule::ok;
}

}  // namespace

Exchange::Exchange(DataLoop& loop, ClientSide& client, const ClientInfo& info)
    : request(loop.chunks(), loop.memory()),
      response(loop.chunks(), loop.memory()),
      client_info(info),
      loop_(loop),
      client_(&client),
      absolute_(*this),
      step_deadline_(*this),
      arena_(loop.chunks(), inline_, sizeof inline_) {}

Exchange::~Exchange() { Link<MarkTag>::unlink(); }

void Exchange::reap() { loop_.free(this); }

void Exchange::woken() {
    woken_ = true;
    loop_.turn().mark(*this);
}

void Exchange::run(Time now) {
    if (step_ == Step::ended) return;
    if (client_left && !(response.is_sent() && backend_is_done())) return hang_up(now);
    if (step_ == Step::arrived && !held_) arrive(now);
    if (step_deadline_.expired() || absolute_.expired()) on_deadline(now);
    if (step_ == Step::ended) return;
    if (step_ == Step::arrived) return watch(now);  // held back
    if (is_grpc_) streams_ = may_stream();
    if (step_ == Step::collecting) collect(now);
    if (step_ == Step::queued && woken_) look_again(now);
    if (step_ == Step::connecting) connect(now);
    if (step_ == Step::relaying) relay(now);
    if (step_ == Step::ended) return;
    size_t unsent = response.body.unsent();
    client_->wake(now);
    if (backend_ && response.body.unsent() < unsent) backend_->wake(now);  // there is room again
    if (response.is_sent() && !backend_ && !lease_) return end(now);
    watch(now);
}

// --- from the head to a slot

void Exchange::arrive(Time now) {
    began_ = moved_at_ = waiting_since_ = now;
    is_grpc_ = is_grpc(request.head);
    if (request.failed()) return answer(request.failure(), now);
    if (!find_route(now)) return;
    ticket_.upstream = upstream_->id();
    ticket_.deadline = deadline_asked_for();
    loop_.turn().arm(absolute_, ticket_.deadline);
    const Limits& limits = loop_.config().limits;
    if (limits.body && request.framing.body == BodyKind::length && request.framing.length > limits.body)
        return answer(Cause::body_too_large, now);
    if (passes_limits(now)) enter(now);
}

void Exchange::enter(Time now) {
    uint64_t length =
        request.framing.body == BodyKind::length ? request.framing.length : Body::unknown_length;
    if (request.framing.body == BodyKind::none && !request.framing.upgrade) length = 0;
    // What would be refused now is refused now, before its body is uploaded.
    uint64_t expected =
        std::min(length == Body::unknown_length ? 0 : length, upstream_->settings.buffer.request);
    Admission peeked = loop_.park().peek(upstream_->id(), expected, ticket_.deadline, now);
    if (peeked.kind == Admission::Kind::refused) {
        cause_ = cause_of(peeked.refusal);
        return answer(cause_, now, peeked.retry_after);
    }
    if (!request.body.open(upstream_->settings.buffer.request, length, true) ||
        !response.body.open(upstream_->settings.buffer.response, Body::unknown_length, false,
                            response_certain_bytes))
        return answer(Cause::memory_full, now);
    send_continue = request.framing.expect_continue;
    // Where slots are limited, a slow uploader must hold neither a slot nor a place in the queue. And where
    // requests in flight are counted, none is to be begun that may not come whole: no end of it proves
    // anything.
    counted_ = static_cast<bool>(ticket_.units);
    collected_ = upstream_->is_limited() || counted_;
    step_ = Step::collecting;
    client_->wake(now);  // it may fill the body from here on
}

bool Exchange::find_route(Time now) {
    auto refuse = [&](Cause cause) {
        answer(cause, now);
        return false;
    };
    Head& head = request.head;
    Target target;
    rule = parse_target(head.method, head.target(), target);
    if (rule == Rule::ok && head.method == Method::connect)
        rule = Rule::target_form;  // we are no forward proxy
    char* path = arena_.array<char>(target.path.size() + 2);
    size_t size = 0;
    if (rule == Rule::ok) rule = routing_path(target.path.empty() ? "/" : target.path, path, size);
    if (rule != Rule::ok) return refuse(Cause::bad_request);
    host_ = target.form == Target::Form::absolute ? target.authority : head.value_of(FieldId::host);

    path_ = {path, size};
    client_address_ = client_info.address;
    if (client_info.trusted)
        client_address_ = client_address(head, client_info.address, Snapshot::trusts_text, &loop_.snapshot());

    Snapshot::Destination to;
    if (!loop_.snapshot().find(head, host_of(host_), {path, size}, to)) return refuse(Cause::no_route);
    route_ = to.route;
    upstream_ = to.upstream;
    if (!to.model.empty()) {
        model_ = loop_.stats().model(upstream_->label(), to.model);
        model_name_ = to.model;
    }
    ticket_.key = affinity_key(upstream_->settings.balance,
                               {request.head, {path, size}, target.query, client_address_});
    request_edit_.target = target.origin;
    if (route_->settings->strip_prefix)
        request_edit_.target = strip_prefix(target, {path, size}, route_->settings->match.prefix, arena_);
    if (target.form == Target::Form::absolute) request_edit_.host = target.authority;
    if (upstream_->settings.protocol == Protocol::http2) rule = forgo_upgrade(request);
    if (rule != Rule::ok) return refuse(Cause::bad_request);
    return true;
}

// False: refused, or held back; then on_deadline() goes on.
bool Exchange::passes_limits(Time now) {
    const RateLimits& limits = loop_.snapshot().rate_limits();
    if (limits.empty()) return true;
    const LimitedRequest asked{request.head, host_of(host_), path_, client_address_, route_->number};
    LimitVerdict verdict =
        limits.admit(*loop_.shared().limiter, asked, arena_, now, ticket_.deadline, ticket_.units);
    limit_texts_ = verdict.texts;
    if (verdict.cause == Cause::bad_request) rule = Rule::cost_invalid;
    if (verdict.cause != Cause::none) {
        answer(verdict.cause, now, verdict.retry_after);
        return false;
    }
    held_ = verdict.wait > Duration::zero();
    if (held_) loop_.turn().arm(step_deadline_, now + verdict.wait);
    return !held_;
}

void Exchange::collect(Time now) {
    if (request.failed()) return answer(request.failure(), now);
    bool ready = !collected_ || request.is_complete() || request.framing.upgrade ||
                 !request.body.has_room() || streams_;
    if (ready) ask(now);
}

void Exchange::ask(Time now) {
    queue_begins(now);
    ticket_.bytes = request.body.unsent();
    ticket_.set_wake({static_cast<uint16_t>(loop_.loop().index()), loop_.handle(this)});
    Wakes wakes;
    Admission admission = loop_.park().admit(ticket_, now, wakes);
    park_wakes(wakes, now);
    take(std::move(admission), now);
}

void Exchange::look_again(Time now) {
    Wakes wakes;
    Admission admission = loop_.park().collect(ticket_, now, wakes);
    park_wakes(wakes, now);
    take(std::move(admission), now);
}

void Exchange::take(Admission&& admission, Time now) {
    woken_ = false;
    switch (admission.kind) {
        case Admission::Kind::granted:
            granted_ = now;
            backend_done_ = {};
            stalled_ = {};
            queue_ends(now);
            lease_ = std::move(admission.lease);
            step_ = Step::connecting;
            return;
        case Admission::Kind::waiting:
            step_ = Step::queued;
            loop_.turn().arm(step_deadline_, admission.wait_until);
            return;
        case Admission::Kind::refused:
            if (step_ == Step::queued) queue_ends(now);
            // A request that was to be tried again, and cannot be: what failed first is the truth. An answer
            // that was dropped cannot be had back.
            bool has_failed = tried_ != Cause::none && tried_ != Cause::error_status;
            return answer(has_failed ? tried_ : cause_of(admission.refusal), now, admission.retry_after);
    }
}

// A lease may say that a pooled connection is its own: it is taken here and now, before anything else on this
// loop looks at the pool. So whoever is granted a lease connects in the same run.
void Exchange::connect(Time now) {
    while (step_ == Step::connecting && lease_ && !is_connecting(now)) {
    }
}

// False: that was nothing, and there may be another lease to try.
bool Exchange::is_connecting(Time now) {
    if (lease_.how() == Connect::wait) {
        if (!woken_ && waiting_ == Waiting::connect) return true;
        woken_ = false;
        Wakes wakes;
        Connect how = loop_.park().connect(lease_, now, wakes);
        park_wakes(wakes, now);
        if (how == Connect::wait) return true;
    }
    Outcome outcome = Outcome::unused;
    if (lease_.how() != Connect::lost) {
        on_ = lease_.backend();
        on_generation_ = lease_.generation();
        meet(upstream_->backend(on_));
        backend_ = loop_.connector().open(*this, lease_, outcome, now);
        if (backend_) {
            step_ = Step::relaying;
            return true;
        }
        if (lease_.how() == Connect::wait) return true;
    }
    not_connected(outcome, now);
    return false;
}

// --- with a backend

void Exchange::relay(Time now) {
    if (request.failed()) {
        // Its client's fault: it sent rubbish, or too much, in a body that was streamed.
        Cause cause = request.failure();
        return fail(cause, now);
    }
    if (backend_) backend_->wake(now);
    if (response.failed()) return backend_failed(now);
    if (response.has_head() && first_byte_ == Time{}) {
        if (drops_answer(now)) return;
        if (is_retry()) loop_.park().retry_answered(ticket_, now);
        first_byte_ = now;
        drop_response_hop(response.head, response.framing.tunnel);
        // A response has begun: the request will not be sent again.
        request.body.stop_keeping();
    }
    if (backend_ && backend_is_done()) {
        backend_done_ = now;
        BackendSide* done = backend_;
        backend_ = nullptr;
        // An answer that came before the whole request was sent: nobody reads the rest any more.
        if (!request.is_sent()) request.body.discard();
        done->release(now);
    }
}

// --- ends

void Exchange::answer(Cause cause, Time now, uint32_t retry_after) {
    if (cause_ == Cause::none) cause_ = cause;
    if (cause == Cause::client_gone) return hang_up(now);
    leave_backend(cause, now);
    const StatusCodes* codes = upstream_ ? &upstream_->settings.status : nullptr;
    if (response.filled() != Progress::nothing || response.failed())
        response.reset();
    else
        response.body.clear();
    if (cause == Cause::bad_request && rule == Rule::ok) rule = Rule::truncated;
    if (cause == Cause::body_too_large) rule = Rule::body_too_long;
    if (cause != Cause::bad_request && cause != Cause::body_too_large) rule = Rule::ok;  // broken as it ended
    Answer words = answer_to(cause, rule, codes);
    if (is_grpc_)
        fill_grpc_answer(response, arena_, words, cause, retry_after);
    else
        fill_answer(response, arena_, words, rule, retry_after);
    if (upstream_ || cause == Cause::no_route)
        loop_.stats().rejected(upstream_ ? upstream_->label() : UpstreamLabel::none, model_,
                               {static_cast<uint8_t>(cause), words.reason});
    // Where the request's framing is in doubt, or the client is too slow to be trusted with another one.
    close_after |= cause == Cause::bad_request || cause == Cause::body_too_large ||
                   cause == Cause::header_timeout || cause == Cause::body_timeout ||
                   cause == Cause::client_stall || cause == Cause::draining;
    if (request.framing.expect_continue && !request.is_complete()) close_after = true;
    send_continue = false;
    request.body.discard();
    step_ = Step::answered;
}

// An answer where the client has not seen the head of another one yet; interim ones do not count.
void Exchange::fail(Cause cause, Time now, uint32_t retry_after) {
    response.sent() == Progress::nothing ? answer(cause, now, retry_after) : cut(cause, now);
}

// The response has begun, and cannot be completed: the client must be able to tell.
void Exchange::cut(Cause cause, Time now) {
    if (cause_ == Cause::none) cause_ = cause;
    leave_backend(cause, now);
    ClientSide* client = client_;
    client_ = nullptr;
    client->cancel(cause, now);
    end(now);
}

// Whatever this exchange holds of the park goes back, or goes on without it.
void Exchange::leave_backend(Cause cause, Time now) {
    Wakes wakes;
    loop_.park().cancel(ticket_, now, wakes);
    assert(!lease_ || lease_.how() != Connect::reuse);  // connect() has taken that connection
    if (lease_) loop_.park().finish(lease_, {Outcome::unused, Keep::closed}, now, wakes);
    park_wakes(wakes, now);
    if (!backend_) return;
    if (backend_done_ == Time{}) backend_done_ = now;
    BackendSide* side = backend_;
    backend_ = nullptr;
    side->cancel(cause, now);
}

void Exchange::hang_up(Time now) {
    if (cause_ == Cause::none) cause_ = Cause::client_gone;
    logged_status_ = 499;
    if (began_ == Time{}) began_ = now;
    if (step_ == Step::queued) queue_ends(now);
    leave_backend(Cause::client_gone, now);
    end(now);
}

void Exchange::end(Time now) {
    absolute_.disarm();
    step_deadline_.disarm();
    log(now);
    step_ = Step::ended;
    if (ClientSide* client = client_) {
        client_ = nullptr;
        client->ended(now);
    }
    request.body.clear();
    response.body.clear();
    arena_.clear();
    loop_.turn().bury(*this);
}

void Exchange::park_wakes(Wakes& wakes, Time now) { loop_.post(wakes, now); }

}  // namespace penstock
