#include "proxy/backend_h1.h"

#include "codec/h1_writer.h"
#include "http/forward.h"
#include "http/upgrade.h"
#include "proxy/abandoned_work.h"
#include "proxy/backend_tls.h"
#include "proxy/data_loop.h"
#include "proxy/dialing.h"
#include "proxy/outlier.h"
#include "proxy/websocket.h"

namespace penstock {

BackendH1::BackendH1(DataLoop& loop, LiveUpstream& upstream, BackendId backend, uint32_t generation)
    : loop_(loop),
      upstream_(upstream),
      backend_(backend),
      generation_(generation),
      channel_(loop.loop(), *this),
      deadline_(*this) {
    loop_.stats().connection_opened(Wire::backend);
}

BackendH1::~BackendH1() {
    Task::unlink();
    Link<GraveTag>::unlink();
    loop_.stats().connection_closed(Wire::backend);
}

void BackendH1::reap() {
    count_bytes();
    loop_.free(this);
}

int BackendH1::dial(const SocketAddress& address, Time now) {
    dialed_ = address;
    secure_backend(channel_, loop_, upstream_, backend_);
    int error = channel_.connect(address);
    if (may_pass(error)) {
        loop_.turn().arm(deadline_, now + dial_again);
        return 0;
    }
    return error;
}

void BackendH1::bind(Exchange& exchange, Lease&& lease) {
    exchange_ = &exchange;
    lease_ = std::move(lease);
    reused = state_ == State::idle;
    deadline_.disarm();
    state_ = State::busy;
    connected = channel_.is_open() && !channel_.connecting();
    request_begun = answer_begun = false;
    outcome_ = Outcome::answered;
    reading_head_ = true;
    response_complete_ = request_complete_ = broken_ = false;
    reader_.reset();
    asked_ = {exchange.request.head.method, exchange.request.framing.upgrade};
    model_ = exchange.model();
    if (!connected) state_ = State::dialing;
    if (!channel_.is_open()) loop_.turn().arm(deadline_, loop_.loop().now() + dial_again);
}

bool BackendH1::is_usable() const {
    return channel_.events() == events_when_pooled_ && !channel_.dead() && !channel_.fin_seen() &&
           channel_.input().empty();
}

// --- reading: in poll, or from resume()

void BackendH1::fill() {
    switch (state_) {
        case State::dialing:
            if (channel_.dead()) {
                note_handshake(channel_, loop_, upstream_, backend_);
                fail(Cause::connect_failure);
            }
            if (!channel_.connecting() && !channel_.dead() && exchange_) loop_.turn().mark(*this);
            return;
        case State::busy:
        case State::abandoned: return read_response();
        case State::idle: return loop_.turn().mark(*this);  // whatever it is: it cannot be used any more
        case State::closed: return channel_.discard_input();
    }
}

void BackendH1::read_response() {
    if (!channel_.input().empty()) {
        answer_begun = true;
        upstream_.backend(backend_).note_byte(loop_.loop().now());
    }
    while (reading_head_ && !channel_.input().empty() && !broken_)
        if (!read_head()) break;
    if (!reading_head_ && !response_complete_ && !broken_) read_body();
    if (response_complete_ || broken_) {
        if (exchange_) loop_.turn().mark(*exchange_);
        loop_.turn().mark(*this);
    } else if (!channel_.readable()) {
        channel_.look_for_reset();  // behind a part of the answer, or behind what TLS says of itself
    }
    if (broken_ && !exchange_) channel_.discard_input();
    if ((channel_.at_end() || channel_.dead()) && !response_complete_ &&
        (channel_.input().empty() || reading_head_ || channel_.dead()))
        ended_by_backend();
}

// False: no more to be read now.
bool BackendH1::read_head() {
    Head head;
    switch (reader_.read(channel_.input(), loop_.response_limits(), asked_, loop_.field_room(), head)) {
        case ReadStep::need_more: return false;
        case ReadStep::failed: fail(Cause::bad_response); return false;
        case ReadStep::complete: break;
    }
    bool interim = is_interim(head.status) && head.status != 101;
    if (!request_begun) {  // an answer to nothing
        fail(Cause::bad_response);
        return false;
    }
    if (interim) {
        // 100 answers an Expect that we have answered ourselves.
        if (exchange_ && head.status != 100) {
            drop_response_hop(head, false);
            if (!exchange_->response.add_interim(head, exchange_->arena())) {
                fail(Cause::bad_response);
                return false;
            }
            loop_.turn().mark(*exchange_);
        }
        channel_.consume(reader_.consumed());
        reader_.reset();
        return true;
    }
    framing_ = reader_.framing();
    if (framing_.tunnel) upstream_.backend(backend_).tunnel_begins();
    // A tunnel into a protocol that nobody asked for.
    if (head.status == 101 && exchange_ && !accepts_upgrade(exchange_->request.head, head)) {
        fail(Cause::bad_response);
        return false;
    }
    // Who asked by extended CONNECT would take any success for the tunnel, and did not make the key.
    if (exchange_ && exchange_->request.framing.tunnel && head.status < 300 &&
        !(framing_.tunnel && accepts_websocket(exchange_->request.head, head))) {
        fail(Cause::bad_response);
        return false;
    }
    if (exchange_) {
        Message& response = exchange_->response;
        response.framing = framing_;
        response.head = copy_head(head, exchange_->arena());
        response.tunnel = framing_.tunnel;
        response.fill_to(Progress::head);
        loop_.turn().mark(*exchange_);
    }
    channel_.consume(reader_.consumed());
    reading_head_ = false;
    body_reader_.start(framing_);
    return false;
}

void BackendH1::read_body() {
    Message* response = exchange_ ? &exchange_->response : nullptr;
    bool moved = false;
    while (!response_complete_) {
        std::string_view bytes = channel_.input();
        if (!framing_.tunnel && body_reader_.is_complete()) {
            response_done();
            moved = true;
            break;
        }
        if (bytes.empty()) break;
        if (response && !response->body.has_room()) {
            channel_.pause();
            moved = true;
            break;
        }
        bytes = bytes.substr(0, large_chunk_bytes);
        BodyRead read{BodyStep::data, bytes.size(), bytes};
        if (!framing_.tunnel) read = body_reader_.read(bytes, loop_.response_limits());
        if (read.step == BodyStep::trailers) {
            channel_.consume(read.consumed);
            Head trailers;
            read = body_reader_.read_trailers(channel_.input(), loop_.response_limits(), loop_.field_room(),
                                              trailers);
            if (read.step == BodyStep::complete && response && trailers.field_count)
                response->trailers = copy_head(trailers, exchange_->arena());
            if (read.step == BodyStep::need_more) break;
        }
        if (read.step == BodyStep::failed) {
            fail(Cause::bad_response);
            return;
        }
        if (!read.data.empty() && response) {
            response->body.append(channel_.input_chunk(), read.data);
            if (response->filled() == Progress::head) response->fill_to(Progress::body);
            moved = true;
        }
        channel_.consume(read.consumed);
    }
    if (moved && exchange_) loop_.turn().mark(*exchange_);
}

void BackendH1::response_done() {
    response_complete_ = true;
    if (!exchange_) return;
    Message& response = exchange_->response;
    outcome_ = outcome_of(response.head, response.trailers);
    if (!response.is_complete()) response.fill_to(Progress::complete);
}

// Judged only when everything that it sent is read: complete where the end is what completes it. A reset
// completes nothing.
void BackendH1::ended_by_backend() {
    bool whole = !reading_head_ && !broken_ && !channel_.dead() &&
                 (framing_.tunnel || (body_reader_.finish() == BodyStep::complete && !channel_.truncated()));
    if (whole) {
        response_done();
        if (exchange_) loop_.turn().mark(*exchange_);
    } else {
        fail(answer_begun && reading_head_ && !broken_ && reader_.started() ? Cause::bad_response
                                                                            : Cause::backend_reset);
    }
    loop_.turn().mark(*this);
}

void BackendH1::fail(Cause cause) {
    broken_ = true;
    if (!exchange_) return loop_.turn().mark(*this);
    exchange_->response.fail(cause);
    loop_.turn().mark(*exchange_);
}

// --- writing: in advance

void BackendH1::wake(Time) {
    if (state_ != State::busy) return;
    Message& request = exchange_->request;
    Message& response = exchange_->response;
    if (!channel_.write_failed()) {
        if (request.sent() == Progress::nothing && !write_head()) return;
        // Bytes of a tunnel that is not there yet.
        bool undecided =
            request.framing.upgrade && !request.tunnel && (request.framing.tunnel || !request.is_complete());
        if (!request.is_sent() && !undecided) write_body();
    }
    if (channel_.paused() && response.body.wants_more()) channel_.resume();
}

bool BackendH1::write_head() {
    Message& request = exchange_->request;
    HeadEdit edit = exchange_->request_edit(loop_.loop().now());
    chunked_ = false;
    switch (request.framing.body) {
        case BodyKind::none:
            // 0 is said where a body is usual, as RFC 9110 8.6 asks for.
            if (request.framing.declared == BodyKind::length) edit.declare = BodyKind::length;
            break;
        case BodyKind::length:
            edit.declare = BodyKind::length;
            edit.length = request.framing.length;
            break;
        case BodyKind::chunked:
        case BodyKind::until_close:
            // What was collected whole is sent with its length: many GPU servers read no chunks.
            if (exchange_->body_is_collected() && request.is_complete() &&
                request.trailers.field_count == 0) {
                edit.declare = BodyKind::length;
                edit.length = request.body.total();
            } else {
                edit.declare = BodyKind::chunked;
                chunked_ = true;
            }
            break;
    }
    loop_.park().run(lease_, loop_.loop().now());
    request_begun = true;
    char* out = channel_.reserve(head_bound(request.head, edit));
    channel_.commit(static_cast<size_t>(write_request_head(request.head, edit, out) - out));
    request.send_to(Progress::head);
    return true;
}

void BackendH1::write_body() {
    Message& request = exchange_->request;
    while (request.body.unsent() > 0) {
        if (!channel_.has_room()) return channel_.tell_when_drained();
        upstream_.backend(backend_).note_byte(loop_.loop().now());
        Piece piece = request.body.next_piece();
        if (chunked_ && !request.tunnel) {
            char* out = channel_.reserve(chunk_head_bound);
            channel_.commit(static_cast<size_t>(write_chunk_head(piece.size(), out) - out));
            channel_.link(piece);
            channel_.write(chunk_end);
        } else {
            channel_.link(piece);
        }
        request.body.sent(piece.size());
        if (request.sent() == Progress::head && request.filled() > Progress::head)
            request.send_to(Progress::body);
    }
    if (!request.is_complete()) return;
    if (request.tunnel) {
        channel_.shut();
    } else if (chunked_) {
        if (request.trailers.field_count) {
            drop_trailer_hop(request.trailers, request.head);
            char* out = channel_.reserve(trailers_bound(request.trailers));
            channel_.commit(static_cast<size_t>(write_last_chunk(request.trailers, out) - out));
        } else {
            channel_.write(last_chunk);
        }
    }
    request.send_to(Progress::complete);
    request_complete_ = true;
}

// --- ends: in advance

void BackendH1::release(Time now) {
    exchange_ = nullptr;
    bool wanted = may_be_pooled();
    Wakes wakes;
    Ended ended = loop_.park().finish(lease_, {outcome_, wanted ? Keep::idle : Keep::closing}, now, wakes);
    pool_or_close(ended, wanted, now);
    loop_.post(wakes, now);
}

// Both messages ended cleanly, with nothing left over.
bool BackendH1::may_be_pooled() const {
    const Backend& backend = upstream_.backend(backend_);
    return response_complete_ && request_complete_ && framing_.keep_alive && !framing_.tunnel && !broken_ &&
           framing_.body != BodyKind::until_close && channel_.input().empty() && !channel_.fin_seen() &&
           !channel_.write_failed() && channel_.output_bytes() == 0 && !loop_.draining() &&
           upstream_.settings.pool.idle > Duration::zero() &&
           (backend.requests_per_connection == 0 || served_ + 1 < backend.requests_per_connection);
}

void BackendH1::pool_or_close(const Ended& ended, bool wanted, Time now) {
    ++served_;
    if (response_complete_) upstream_.backend(backend_).count_served();
    // The generation that the connection belongs to is over: nobody counts it any more.
    if (!wanted || !ended.keep) return close();
    state_ = State::idle;
    idle_since_ = now;
    events_when_pooled_ = channel_.events();
    loop_.pool().put(*this);
    loop_.turn().arm(deadline_, now + upstream_.settings.pool.idle);
    count_bytes();
}

BackendSide::Remains BackendH1::take_remains(bool tries_fresh, Time) {
    Outcome outcome = Outcome::early_close;
    if (channel_.handshaking() && !channel_.dead()) note_handshake(channel_, loop_, upstream_, backend_);
    if (!request_begun)
        outcome = connected && reused ? Outcome::unused : Outcome::connect_failed;
    else if (answer_begun)
        outcome = Outcome::cut;
    else if (tries_fresh && !upstream_.backend(backend_).spawned)
        // Closed as we used it: the fresh connection will tell whether the server lives. A worker of ours is
        // asked at once, and so is a server where none is tried, else those who come next meet the same end.
        outcome = Outcome::stale;
    exchange_ = nullptr;
    Remains remains{std::move(lease_), {outcome, Keep::closing}};
    close();
    return remains;
}

void BackendH1::cancel(Cause cause, Time now) {
    request_complete_ = request_complete_ || exchange_->request.is_sent();
    const Outcome so_far = exchange_->outcome_so_far(cause, now);
    exchange_ = nullptr;
    Wakes wakes;
    if (!request_begun) {
        loop_.park().finish(
            lease_,
            {cause == Cause::connect_failure ? Outcome::connect_failed : Outcome::unused, Keep::closing}, now,
            wakes);
        loop_.post(wakes, now);
        return close();
    }
    if (response_complete_ && !framing_.tunnel) return release(now);
    abandon(cause, so_far, now);
}

// Nobody waits for the answer; the worker may still be at it, so the slot stays taken until it has ended.
void BackendH1::abandon(Cause cause, Outcome so_far, Time now) {
    state_ = State::abandoned;
    abandoned_for_ = cause;
    OnAbandon how = upstream_.settings.on_abandon;
    bool framing_lost = broken_ || framing_.tunnel;
    bool close_it = how == OnAbandon::close || !request_complete_ || framing_lost;
    Abandon kind = close_it ? Abandon::close : how == OnAbandon::restart ? Abandon::restart : Abandon::drain;
    Wake to{static_cast<uint16_t>(loop_.loop().index()), loop_.handle(this)};
    Wakes wakes;
    loop_.park().abandon(lease_, kind, to, now, wakes, so_far);
    loop_.post(wakes, now);
    if (loop_.leaving()) return abandoned_work_is_over(Outcome::cut, now);
    if (close_it) channel_.shut();
    channel_.resume();
    loop_.turn().mark(*this);
}

void BackendH1::abandoned_work_is_over(Outcome outcome, Time now) {
    bool wanted = outcome == Outcome::answered && may_be_pooled() && !channel_.is_shut();
    Wakes wakes;
    Ended ended = loop_.park().finish(lease_, {outcome, wanted ? Keep::idle : Keep::closing}, now, wakes);
    count_abandoned(loop_, upstream_, {abandoned_for_, model_}, ended, outcome);
    pool_or_close(ended, wanted, now);
    loop_.post(wakes, now);
}

void BackendH1::close_idle(bool told) {
    loop_.pool().remove(*this);
    if (!told) {
        Wakes wakes;
        Time now = loop_.loop().now();
        loop_.park().idle_ended(backend_, generation_, static_cast<uint16_t>(loop_.loop().index()), now,
                                wakes);
        loop_.post(wakes, now);
    }
    close();
}

void BackendH1::close_uncounted() {
    counted_ = false;
    close();
}

void BackendH1::stop_now() {
    if (state_ == State::abandoned)
        abandoned_work_is_over(Outcome::cut, loop_.loop().now());
    else if (state_ == State::idle)
        close_idle(false);
}

void BackendH1::close() {
    if (state_ == State::closed) return;
    state_ = State::closed;
    if (framing_.tunnel) upstream_.backend(backend_).tunnel_ends();
    deadline_.disarm();
    channel_.pause();
    loop_.turn().bury(*this);
}

void BackendH1::count_bytes() {
    Stats& stats = loop_.stats();
    stats.bytes(Wire::backend, Flow::in, channel_.bytes_read() - counted_in_);
    stats.bytes(Wire::backend, Flow::out, channel_.bytes_written() - counted_out_);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
}

void BackendH1::run(Time now) {
    switch (state_) {
        case State::closed: return;
        case State::dialing:
            if (!channel_.is_open() && deadline_.expired()) {
                int error = channel_.connect(dialed_);
                if (may_pass(error)) return loop_.turn().arm(deadline_, now + dial_again);
                if (error != 0) return fail(Cause::connect_failure);
            }
            if (!channel_.is_open() || channel_.connecting()) return;
            if (channel_.dead()) return fail(Cause::connect_failure);
            note_handshake(channel_, loop_, upstream_, backend_);
            connected = true;
            state_ = State::busy;
            loop_.turn().mark(*exchange_);
            return;
        case State::busy:
            if (channel_.write_failed()) channel_.resume();  // its last words may lie there
            if (exchange_) loop_.turn().mark(*exchange_);
            if (!channel_.paused() && channel_.readable()) channel_.resume();
            return;
        case State::idle:
            if (deadline_.expired() || !is_usable()) close_idle(false);
            return;
        case State::abandoned:
            if (channel_.readable()) channel_.resume();
            if (loop_.park().is_over(lease_)) return abandoned_work_is_over(Outcome::cut, now);
            if (response_complete_) return abandoned_work_is_over(Outcome::answered, now);
            if (channel_.dead() || channel_.at_end()) return abandoned_work_is_over(Outcome::cut, now);
            if (broken_ && !channel_.is_shut()) channel_.shut();
            return;
    }
}

}  // namespace penstock
