// A try that failed: again, elsewhere if there is an elsewhere, or is that the end of it? What may be
// repeated is policy/retry's to say, how many at once the park's. Here is what that means for an exchange:
// its request is as before the first try, its ticket keeps number and deadline, and between two tries it may
// pause.
#include "proxy/data_loop.h"
#include "proxy/exchange.h"

namespace penstock {

namespace {

// The exit of a worker whose connection broke is seen within a few milliseconds, or it has not ended.
constexpr Duration fate_known_after = 1s;
constexpr Duration ask_fate_again = 5ms;

bool is_over(const RetryAnswer& answer) {
    return answer.verdict == RetryVerdict::over_limit || answer.verdict == RetryVerdict::over_budget;
}

}  // namespace

// Its generation has ended, or the dial failed at once: nothing was sent, and the place is kept.
void Exchange::not_connected(Outcome outcome, Time now) {
    Wakes wakes;
    const Retry& retry = upstream_->settings.retry;
    bool again = outcome == Outcome::unused || (retry.on_connect_failure && retry.attempts > 0);
    if (!again) {
        loop_.park().finish(lease_, {outcome, Keep::closed}, now, wakes);
        park_wakes(wakes, now);
        return answer(Cause::connect_failure, now);
    }
    if (outcome != Outcome::unused) {
        tried_ = Cause::connect_failure;
        ticket_.excluded.add(lease_.backend().index);
    }
    backend_done_ = now;
    queue_begins(now);
    Admission admission = loop_.park().retry(lease_, {outcome, Keep::closed}, ticket_, now, wakes);
    park_wakes(wakes, now);
    take(std::move(admission), now);
}

RetryAnswer Exchange::may_retry(FailedTry::Why why, Time now) {
    if (ticket_.deadline <= now) return {};  // it came in the very turn in which its time was over
    FailedTry t;
    t.why = why;
    t.status = status_at_head(response.head);
    t.request_begun = backend_->request_begun;
    t.answer_begun = backend_->answer_begun || response.has_head();
    t.passed_on = response.interims_sent() > 0 || response.sent() != Progress::nothing;
    t.reused = backend_->reused;
    t.replayable = request.body.replayable() && !client_left;
    t.idempotent_method = is_idempotent(request.head.method);
    t.attempts = attempts_;
    t.was_stale = stale_retries_ > 0;
    RetryAnswer answer = loop_.park().may_retry(ticket_, t, now);
    bool sent_again = answer.verdict == RetryVerdict::again || answer.verdict == RetryVerdict::fresh;
    if (sent_again && is_retry()) loop_.stats().retry(upstream_->label(), RetryOutcome::failed);
    if (is_over(answer)) loop_.stats().retry(upstream_->label(), RetryOutcome::refused);
    switch (answer.verdict) {
        case RetryVerdict::again: ++attempts_; [[fallthrough]];
        case RetryVerdict::unsent: ticket_.excluded.add(on_.index); break;
        case RetryVerdict::fresh:
            ++stale_retries_;
            ticket_.fresh = true;
            break;
        default: break;
    }
    return answer;
}

// The connection failed before any of its answer was passed on.
void Exchange::backend_failed(Time now) {
    Cause cause = response.failure();
    // Rubbish proves nothing: who sent it may still be at work, so its side keeps the lease until the end.
    if (!backend_ || cause == Cause::bad_response) return fail(cause, now);
    auto why = FailedTry::Why::other;
    if (cause == Cause::connect_failure) why = FailedTry::Why::connect_failure;
    if (cause == Cause::backend_reset) why = FailedTry::Why::reset;
    bool was_running = backend_->request_begun;
    RetryAnswer answer = may_retry(why, now);
    tried_ = cause;
    BackendSide* side = backend_;
    backend_ = nullptr;
    backend_done_ = now;
    BackendSide::Remains remains = side->take_remains(answer.verdict == RetryVerdict::fresh, now);
    if (answer.verdict == RetryVerdict::no || is_over(answer) || !start_over()) {
        Wakes wakes;
        loop_.park().finish(remains.lease, remains.end, now, wakes);
        park_wakes(wakes, now);
        if (is_over(answer)) return fail(Cause::circuit_open, now, answer.retry_after);
        return fail(answer.verdict == RetryVerdict::no ? cause : Cause::memory_full, now);
    }
    if (was_running && upstream_->backend(on_).spawned && fallen_count_ < fallen_.size())
        fallen_[fallen_count_++] = {on_, on_generation_};
    try_again(answer.verdict == RetryVerdict::again, &remains, now);
}

// An answer has come whose status says that another backend may do better. False: it is passed on.
bool Exchange::drops_answer(Time now) {
    const Retry& retry = upstream_->settings.retry;
    if (!retry.on_status.has(status_at_head(response.head)) || !backend_) return false;
    if (counted_) return false;  // two tries at work would be two in flight, and it counts for one
    if (may_retry(FailedTry::Why::status, now).verdict != RetryVerdict::again) return false;
    drop_try(Cause::error_status, now);
    return true;
}

void Exchange::try_timed_out(Time now) {
    RetryAnswer answer;
    if (!counted_) answer = may_retry(FailedTry::Why::timeout, now);
    if (answer.verdict == RetryVerdict::again) return drop_try(Cause::per_try_timeout, now);
    leave_backend(Cause::per_try_timeout, now);
    fail(is_over(answer) ? Cause::circuit_open : Cause::per_try_timeout, now, answer.retry_after);
}

// Nobody wants this try's answer any more. Its work may go on, and holds its slot until it has ended.
void Exchange::drop_try(Cause cause, Time now) {
    tried_ = cause;
    BackendSide* side = backend_;
    backend_ = nullptr;
    backend_done_ = now;
    side->cancel(cause, now);
    if (!start_over()) return fail(Cause::memory_full, now);
    try_again(true, nullptr, now);
}

// The request is as it was before its first try. False: there is no memory for another answer.
bool Exchange::start_over() {
    request.send_again();
    response.reset();
    first_byte_ = {};
    return response.body.open(upstream_->settings.buffer.response, Body::unknown_length, false,
                              response_certain_bytes);
}

// With the lease of the failed try, where that has ended; its place is taken before the slot is given away,
// unless it pauses.
void Exchange::try_again(bool backs_off, BackendSide::Remains* remains, Time now) {
    const Retry& retry = upstream_->settings.retry;
    Duration pause{};
    if (backs_off) pause = retry_backoff(retry.backoff, retry.max_backoff, attempts_, loop_.random());
    if (ticket_.deadline != never && now + pause >= ticket_.deadline) pause = {};  // now or never
    bool waits = pause > Duration::zero() || fallen_count_ == fallen_.size();
    Wakes wakes;
    if (remains && waits) ticket_.units = std::move(remains->lease.units);
    if (remains && waits) loop_.park().finish(remains->lease, remains->end, now, wakes);
    if (waits) {
        step_ = Step::pausing;
        asked_ = now;
        loop_.turn().arm(step_deadline_, now + pause);
    } else {
        queue_begins(now);
        Admission admission = remains ? loop_.park().retry(remains->lease, remains->end, ticket_, now, wakes)
                                      : loop_.park().admit(ticket_, now, wakes);
        take(std::move(admission), now);
    }
    park_wakes(wakes, now);
    connect(now);
    loop_.turn().mark(*this);
}

void Exchange::after_pause(Time now) {
    if (fallen_count_ == fallen_.size() && !may_go_on(now)) return;
    ask(now);
}

// A request that ran on two workers when they ended is not given a third one. The second end may not have
// been seen yet: until it is, the request waits.
bool Exchange::may_go_on(Time now) {
    bool is_late = now - asked_ >= fate_known_after;
    bool is_known = true;
    uint8_t kept = 0;
    for (const Fallen& one : fallen_) {
        Fate fate = loop_.park().fate(one.backend, one.generation);
        if (fate == Fate::alive || (fate == Fate::unknown && is_late)) continue;
        is_known = is_known && fate == Fate::ended;
        fallen_[kept++] = one;
    }
    fallen_count_ = kept;
    if (kept < fallen_.size()) return true;
    if (is_known)
        fail(Cause::backend_reset, now);
    else
        loop_.turn().arm(step_deadline_, now + ask_fate_again);
    return false;
}

}  // namespace penstock
