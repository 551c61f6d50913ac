// What an exchange waits for when nothing is to be done, for how long, and whose fault it is when that is
// over.
#include <algorithm>

#include "proxy/data_loop.h"
#include "proxy/exchange.h"
#include "proxy/outlier.h"

namespace penstock {

std::string_view to_string(Waiting waiting) {
    switch (waiting) {
        case Waiting::nothing: return "";
        case Waiting::rate_limit: return "rate_limit";
        case Waiting::client_bytes: return "client_bytes";
        case Waiting::slot: return "slot";
        case Waiting::connect: return "connect";
        case Waiting::backend_bytes: return "backend_bytes";
        case Waiting::backend_drain: return "backend_drain";
        case Waiting::client_drain: return "client_drain";
        case Waiting::tunnel: return "tunnel";
        case Waiting::either_message: return "either_message";
        case Waiting::backoff: return "backoff";
    }
    return "";
}

Waiting Exchange::waiting() const {
    switch (step_) {
        case Step::arrived:
            if (held_) return Waiting::rate_limit;
            [[fallthrough]];
        case Step::collecting: return Waiting::client_bytes;
        case Step::queued: return Waiting::slot;
        case Step::pausing: return Waiting::backoff;
        case Step::connecting: return Waiting::connect;
        case Step::answered: return Waiting::client_drain;
        case Step::ended: return Waiting::nothing;
        case Step::relaying: break;
    }
    if (response.tunnel && backend_) return Waiting::tunnel;
    if (response.is_complete() || !backend_) return Waiting::client_drain;
    if (!backend_->connected) return Waiting::connect;
    if (response.body.unsent() > 0 && response.sent() != Progress::nothing) return Waiting::client_drain;
    if (streams_ && request.body.unsent() == 0) return Waiting::either_message;
    if (!request.is_sent() && !response.has_head() && !request.framing.upgrade)
        return request.body.unsent() > 0 || request.sent() == Progress::nothing ? Waiting::backend_drain
                                                                                : Waiting::client_bytes;
    return Waiting::backend_bytes;
}

Duration Exchange::timeout_of(Waiting what) const {
    const Limits& limits = loop_.config().limits;
    switch (what) {
        case Waiting::client_bytes: return limits.client_body_timeout;
        case Waiting::client_drain: return limits.client_write_timeout;
        case Waiting::connect: return route_->timeouts.connect;
        case Waiting::either_message:
        case Waiting::backend_bytes:
            return response.has_head() ? route_->timeouts.idle : route_->timeouts.first_byte;
        case Waiting::backend_drain:
        case Waiting::tunnel: return route_->timeouts.idle;
        case Waiting::nothing:
        case Waiting::rate_limit:
        case Waiting::backoff:
        case Waiting::slot: break;
    }
    return Duration::zero();
}

// A call that sends its messages one by one gets its slot with the first: the next may be an answer to what
// its backend says to that.
bool Exchange::may_stream() {
    if (request.is_complete()) return false;
    std::array<char, grpc_prefix_bytes> prefix;
    if (streams_ || !request.body.copy_start(prefix)) return streams_;
    return request.body.total() >= grpc_message_bytes(prefix);
}

// Time in which a slot waits for its client is bounded. Where there are no slots nobody loses by it.
Duration Exchange::most_stall() const {
    return upstream_->is_limited() ? route_->timeouts.client_stall : Duration::zero();
}

bool Exchange::waits_for_client() const {
    return waiting_ == Waiting::client_bytes || waiting_ == Waiting::client_drain;
}

// An answer that is dropped says what its status says. The whole took too long: the fault of who had it for
// longer, the backend or the queue before it.
Outcome Exchange::outcome_so_far(Cause cause, Time now) const {
    if (cause == Cause::error_status) return outcome_of(response.head, response.trailers);
    const bool has_turns = waiting_ == Waiting::either_message || waiting_ == Waiting::tunnel;
    if (has_turns && (cause == Cause::idle_timeout || cause == Cause::request_timeout))
        return Outcome::unused;
    const bool is_backends_fault = cause == Cause::request_timeout ? now - granted_ > granted_ - began_
                                                                   : cause >= Cause::connect_failure;
    return is_backends_fault ? Outcome::cut : Outcome::unused;
}

// per_try_timeout: from the grant to the first byte, but for the time in which it waited for its client.
Time Exchange::try_ends() const {
    if (!backend_ || response.has_head() || streams_) return never;
    return deadline_after(granted_ + stalled_, upstream_->settings.retry.per_try_timeout);
}

// Arms the deadline of what it waits for now: since that began, or since something last moved.
void Exchange::watch(Time now) {
    Waiting what = waiting();
    uint64_t moved = request.body.total() + response.body.total() + request.body.unsent() +
                     response.body.unsent() + (static_cast<uint64_t>(request.sent()) << 56) +
                     (static_cast<uint64_t>(response.sent()) << 60);
    const bool all_taken = response.body.total() - response.body.unsent() >= offered_;
    offered_ = response.body.total();
    if (what != waiting_ || (what == Waiting::client_drain && all_taken && moved != moved_)) {
        // What was taken at the end of the same turn has stalled nobody.
        const bool at_once = loop_.turn().number() - waiting_since_turn_ <= 1;
        if (backend_ && waits_for_client() && !at_once) stalled_ += now - waiting_since_;
        waiting_since_ = moved_at_ = now;
        waiting_since_turn_ = loop_.turn().number();
    } else if (moved != moved_) {
        moved_at_ = now;
    }
    waiting_ = what;
    moved_ = moved;
    // The limiter armed it, or take() with what the park said, or try_again() with its pause.
    if (what == Waiting::rate_limit || what == Waiting::slot || what == Waiting::backoff) return;
    // First byte counts from the grant, the others from the last thing that moved.
    Time since = what == Waiting::backend_bytes && !response.has_head() ? granted_ : moved_at_;
    Time at = deadline_after(since, timeout_of(what));
    if (backend_ && waits_for_client() && most_stall() > Duration::zero())
        at = std::min(at, waiting_since_ + std::max(Duration::zero(), most_stall() - stalled_));
    if (what != Waiting::client_bytes) at = std::min(at, try_ends());
    loop_.turn().arm(step_deadline_, at);
}

void Exchange::on_deadline(Time now) {
    if (absolute_.expired()) {
        absolute_.disarm();
        step_deadline_.disarm();
        if (step_ == Step::answered || backend_is_done()) return;
        if (step_ == Step::queued) queue_ends(now);
        return fail(Cause::request_timeout, now);
    }
    step_deadline_.disarm();
    Waiting what = waiting();
    if (what == Waiting::rate_limit) {
        held_ = false;
        return enter(now);
    }
    if (what == Waiting::slot) {
        woken_ = true;  // the park knows whether it is over; a grant that came meanwhile wins
        return;
    }
    if (what == Waiting::backoff) return after_pause(now);
    if (what != waiting_) return;  // something moved in this very turn
    if (what != Waiting::client_bytes && try_ends() <= now) return try_timed_out(now);
    bool stalled = backend_ && waits_for_client() && most_stall() > Duration::zero() &&
                   stalled_ + (now - waiting_since_) >= most_stall();
    if (what == Waiting::client_drain && !stalled) moved_at_ = std::max(moved_at_, client_->last_sent());
    Time since = what == Waiting::backend_bytes && !response.has_head() ? granted_ : moved_at_;
    if (!stalled && deadline_after(since, timeout_of(what)) > now)
        return;  // bytes left meanwhile: watch() arms anew
    Cause cause = Cause::idle_timeout;
    if (stalled)
        cause = Cause::client_stall;
    else if (what == Waiting::client_bytes)
        cause = Cause::body_timeout;
    else if (what == Waiting::client_drain)
        cause = Cause::write_timeout;
    else if (what == Waiting::connect)
        cause = Cause::connect_failure;
    else if (what == Waiting::backend_bytes && !response.has_head())
        cause = Cause::first_byte_timeout;
    if (cause == Cause::connect_failure && backend_) {
        response.fail(cause);  // retried, where that is allowed
        return;
    }
    if (what == Waiting::client_drain) return cut(cause, now);
    fail(cause, now);
}

}  // namespace penstock
