// A try that failed: again, elsewhere if there is an elsewhere, or is that the end of it?
#include "proxy/data_loop.h"
#include "proxy/exchange.h"

namespace penstock {

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
    Admission admission = loop_.park().retry(lease_, {outcome, Keep::closed}, ticket_, now, wakes);
    park_wakes(wakes, now);
    take(std::move(admission), now);
}

bool Exchange::may_retry(const BackendSide& side, Cause cause) const {
    const Retry& retry = upstream_->settings.retry;
    if (response.has_head() || response.interims_sent() > 0 || client_left || !request.body.replayable())
        return false;
    // Nothing was sent, so it was no attempt; the queue's and the request's time bound it.
    if (cause == Cause::connect_failure) return retry.on_connect_failure && retry.attempts > 0;
    if (cause != Cause::backend_reset || side.answer_begun) return false;
    bool idempotent = is_idempotent(request.head.method) || retry.idempotent;
    if (!side.request_begun) return stale_retries_ == 0 || attempts_ < retry.attempts;
    if (!idempotent) return false;
    // A pooled connection that the backend closed as we used it says nothing about the backend.
    if (side.reused && stale_retries_ == 0) return true;
    return retry.on_reset_before_response && attempts_ < retry.attempts;
}

void Exchange::backend_failed(Time now) {
    Cause cause = response.failure();
    // Rubbish proves nothing: who sent it may still be at work, so its side keeps the lease until the end.
    if (!backend_ || cause == Cause::bad_response) return fail(cause, now);
    bool again = may_retry(*backend_, cause);
    tried_ = cause;
    bool stale = cause == Cause::backend_reset && backend_->reused && stale_retries_ == 0;
    BackendSide* side = backend_;
    backend_ = nullptr;
    BackendSide::Remains remains = side->take_remains(now);
    Lease& lease = remains.lease;
    const End ending = remains.end;
    uint16_t index = lease ? lease.backend().index : uint16_t{0};
    Wakes wakes;
    auto give_up = [&](Cause why) {
        loop_.park().finish(lease, ending, now, wakes);
        park_wakes(wakes, now);
        return fail(why, now);
    };
    if (!again) return give_up(cause);
    if (stale) {
        ++stale_retries_;
        ticket_.fresh = true;
    } else {
        if (cause != Cause::connect_failure) ++attempts_;
        ticket_.excluded.add(index);
    }
    request.send_again();
    response.reset();
    if (!response.body.open(upstream_->settings.buffer.response, Body::unknown_length, false,
                            response_certain_bytes))
        return give_up(Cause::memory_full);
    first_byte_ = {};
    Admission admission = loop_.park().retry(lease, ending, ticket_, now, wakes);
    park_wakes(wakes, now);
    take(std::move(admission), now);
    connect(now);
    loop_.turn().mark(*this);
}

}  // namespace penstock
