// One request on a backend's HTTP/2 connection.
#include <utility>

#include "http/forward.h"
#include "proxy/abandoned_work.h"
#include "proxy/backend_h2.h"
#include "proxy/data_loop.h"
#include "proxy/outlier.h"

namespace penstock {

BackendStream::BackendStream(DataLoop& loop, BackendH2Pool& pool, LiveUpstream& upstream,
                             BackendH2& connection, Exchange& exchange, Lease&& lease)
    : loop_(loop),
      pool_(pool),
      upstream_(upstream),
      connection_(&connection),
      exchange_(&exchange),
      lease_(std::move(lease)),
      asked_{exchange.request.head.method, false},
      model_(exchange.model()) {
    connected = connection.is_open();
    reused = connected && connection.was_idle();
    incoming = &exchange.response;
    outgoing = &exchange.request;
    arena = &exchange.arena();
    connection.add(*this);
}

BackendStream::~BackendStream() {
    Task::unlink();
    Link<GraveTag>::unlink();
    Link<StreamsTag>::unlink();
}

void BackendStream::reap() { pool_.free(this); }

Time BackendStream::last_sent() const { return connection_ ? connection_->last_sent() : last_sent_; }

// --- what its connection says

void BackendStream::connection_opened() {
    connected = true;
    if (exchange_) loop_.turn().mark(*exchange_);
}

void BackendStream::connection_lost(Cause cause) {
    last_sent_ = connection_->last_sent();
    connection_ = nullptr;
    ended_ = true;
    fail(cause);
}

void BackendStream::fail(Cause cause) {
    if (!exchange_) return loop_.turn().mark(*this);
    exchange_->response.fail(cause);
    loop_.turn().mark(*exchange_);
}

bool BackendStream::take_head(const H2Head& from) {
    answer_begun = true;
    upstream_.backend(lease_.backend()).note_byte(loop_.loop().now());
    if (!exchange_) return true;
    Message& response = exchange_->response;
    Head head = from.head;
    bool good = from.rule == Rule::ok && head.status != 101;
    if (good && is_interim(head.status)) {
        if (head.status == 100) return true;  // it answers an Expect that we have answered ourselves
        drop_response_hop(head, false);
        good = response.add_interim(head, exchange_->arena());
    } else if (good) {
        Framing framing;
        good = frame_h2_response(head, asked_, from.end, framing) == Rule::ok;
        if (good) {
            response.framing = framing;
            response.head = copy_head(head, exchange_->arena());
            response.fill_to(Progress::head);
        }
    }
    if (!good) response.fail(Cause::bad_response);
    loop_.turn().mark(*exchange_);
    return good;
}

void BackendStream::moved() {
    upstream_.backend(lease_.backend()).note_byte(loop_.loop().now());
    if (exchange_) loop_.turn().mark(*exchange_);
}

void BackendStream::ended(H2Error code, bool by_them) {
    ended_ = true;
    whole_ = code == H2Error::no_error && !by_them;
    by_us_ = code != H2Error::no_error && !by_them;
    refused_ = code == H2Error::refused_stream && !answer_begun;
    if (refused_) {
        request_begun = false;
        reused = true;  // it says nothing about the backend
    }
    fail(Cause::backend_reset);  // where the response is complete, this does nothing
}

void BackendStream::heard(uint64_t number) {
    if (state_ != State::abandoned || question_ == 0 || question_ > number) return;
    heard_ = true;
    loop_.turn().mark(*this);
}

// --- what its exchange says: in advance

void BackendStream::wake(Time now) {
    if (state_ != State::live || !connected || !connection_ || ended_) return;
    H2Session& session = connection_->session();
    if (exchange_->request.sent() == Progress::nothing)
        open(now);
    else
        session.pump(*this);
    if (exchange_->response.body.wants_more()) session.refill(*this);
    connection_->want_flush();
}

void BackendStream::open(Time now) {
    Message& request = exchange_->request;
    HeadEdit edit = exchange_->request_edit(now);
    if (request.framing.declared == BodyKind::length) {
        edit.declare = BodyKind::length;
        edit.length = request.framing.length;
    }
    std::string_view authority = edit.host.empty() ? request.head.value_of(FieldId::host) : edit.host;
    std::string_view scheme = upstream_.settings.tls ? "https" : "http";
    if (!connection_->session().open(*this, edit, scheme, authority)) {
        // The backend takes fewer streams than it said, or none any more: as if this one had never been.
        ended_ = true;
        reused = true;
        return fail(Cause::backend_reset);
    }
    loop_.park().run(lease_, now);
    ran_ = request_begun = true;
}

void BackendStream::release(Time now) {
    // An answer that came before the whole request was sent: nobody reads the rest any more.
    if (!ended_ && connection_) connection_->session().reset(*this, H2Error::cancel);
    const Outcome outcome = outcome_of(exchange_->response.head, exchange_->response.trailers);
    unbind(now);
    Wakes wakes;
    loop_.park().finish(lease_, {outcome, Keep::closed}, now, wakes);
    loop_.post(wakes, now);
    upstream_.backend(lease_.backend()).count_served();
    close();
}

BackendSide::Remains BackendStream::take_remains(bool tries_fresh, Time now) {
    Outcome outcome = Outcome::early_close;
    if (!ran_)
        outcome = connected ? Outcome::unused : Outcome::connect_failed;
    else if (refused_ || (reused && !answer_begun && (connection_ || tries_fresh) &&
                          !upstream_.backend(lease_.backend()).spawned))
        outcome = Outcome::stale;  // where it has only reset the stream, it lives
    else if (answer_begun)
        outcome = Outcome::cut;
    if (!connected) note_not_connected();
    if (!ended_ && connection_) connection_->session().reset(*this, H2Error::cancel);
    unbind(now);
    Remains remains{std::move(lease_), {outcome, Keep::closed}};
    close();
    return remains;
}

void BackendStream::cancel(Cause cause, Time now) {
    bool request_sent = exchange_->request.is_sent();
    bool complete = exchange_->response.is_complete();
    if (!ran_ || refused_) {
        if (cause == Cause::connect_failure) note_not_connected();
        Outcome outcome = ran_                              ? Outcome::stale
                          : cause == Cause::connect_failure ? Outcome::connect_failed
                                                            : Outcome::unused;
        unbind(now);
        Wakes wakes;
        loop_.park().finish(lease_, {outcome, Keep::closed}, now, wakes);
        loop_.post(wakes, now);
        return close();
    }
    if (complete) return release(now);
    abandon(cause, request_sent, exchange_->outcome_so_far(cause, now), now);
}

// Others would wait for it just as long.
void BackendStream::note_not_connected() {
    if (connection_ && !connection_->is_open()) connection_->retire();
}

// Nobody waits for the answer; the worker may still be at it, so the slot stays taken until it has ended, or
// has heard that it is to end.
void BackendStream::abandon(Cause cause, bool request_sent, Outcome so_far, Time now) {
    state_ = State::abandoned;
    abandoned_for_ = cause;
    exchange_ = nullptr;
    incoming = outgoing = nullptr;
    OnAbandon how = upstream_.settings.on_abandon;
    bool close_it = how == OnAbandon::close || !request_sent || cause == Cause::bad_response;
    Abandon kind = close_it ? Abandon::close : how == OnAbandon::restart ? Abandon::restart : Abandon::drain;
    Wake to{static_cast<uint16_t>(loop_.loop().index()), loop_.handle(this)};
    Wakes wakes;
    loop_.park().abandon(lease_, kind, to, now, wakes, so_far);
    loop_.post(wakes, now);
    if ((ended_ && !by_us_) || !connection_ || loop_.leaving())
        return abandoned_work_is_over(whole_ ? Outcome::answered : Outcome::cut, now);
    H2Session& session = connection_->session();
    if (close_it || ended_) {
        session.reset(*this, H2Error::cancel);
        question_ = connection_->ask(now);
    } else {
        discards = true;
        session.refill(*this);
        connection_->ask(now);
    }
    connection_->want_flush();
}

void BackendStream::run(Time now) {
    if (state_ != State::abandoned) return;
    if (loop_.park().is_over(lease_) || heard_)
        abandoned_work_is_over(Outcome::cut, now);
    else if (ended_ && question_ == 0)
        abandoned_work_is_over(whole_ ? Outcome::answered : Outcome::cut, now);
    else if (!connection_)
        abandoned_work_is_over(Outcome::cut, now);
}

void BackendStream::stop_now() {
    if (state_ == State::abandoned) abandoned_work_is_over(Outcome::cut, loop_.loop().now());
}

void BackendStream::abandoned_work_is_over(Outcome outcome, Time now) {
    if (!ended_ && connection_) connection_->session().reset(*this, H2Error::cancel);
    unbind(now);
    Wakes wakes;
    Ended ended = loop_.park().finish(lease_, {outcome, Keep::closed}, now, wakes);
    count_abandoned(loop_, upstream_, {abandoned_for_, model_}, ended, outcome);
    if (whole_) upstream_.backend(lease_.backend()).count_served();
    loop_.post(wakes, now);
    close();
}

// --- its end

void BackendStream::unbind(Time now) {
    exchange_ = nullptr;
    incoming = outgoing = nullptr;
    if (BackendH2* connection = std::exchange(connection_, nullptr)) connection->remove(*this, now);
}

void BackendStream::close() {
    state_ = State::over;
    loop_.turn().bury(*this);
}

}  // namespace penstock
