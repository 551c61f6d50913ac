#include "proxy/client_h1.h"

#include <algorithm>

#include "codec/h1_writer.h"
#include "http/forward.h"
#include "proxy/data_loop.h"

namespace penstock {

namespace {
// A refused request's rest that is worth reading for the sake of the connection.
constexpr uint64_t most_skipped = 64 * 1024;
// After our last words: how long the client may take to close.
constexpr Duration finish_time = 2s;
constexpr std::string_view h2_preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
}  // namespace

ClientH1::ClientH1(DataLoop& loop, ClientOrigin&& origin)
    : loop_(loop), channel_(loop.loop(), *this), deadline_(*this), origin_(std::move(origin)) {
    loop_.turn().mark(*this);  // arms the header clock, and looks at what has come
}

ClientH1::ClientH1(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin)
    : ClientH1(loop, std::move(origin)) {
    channel_.adopt(fd, is_unix);
    if (loop_.draining()) channel_.expect_input();
}

ClientH1::ClientH1(DataLoop& loop, Channel& from, ClientOrigin&& origin) : ClientH1(loop, std::move(origin)) {
    channel_.take_over(from);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
    if (loop_.draining()) channel_.expect_input();
}

ClientH1::~ClientH1() {
    Task::unlink();
    Link<GraveTag>::unlink();
}

void ClientH1::reap() {
    count_bytes();
    loop_.free(this);
}

// --- reading: in poll, or from resume() in advance

void ClientH1::fill() {
    note_end();
    if (state_ == State::head) fill_head();
    if (state_ == State::exchange) fill_body();
    if (state_ == State::skipping) fill_body();
    if (state_ == State::finishing || state_ == State::cutting || state_ == State::closed)
        channel_.discard_input();
}

// Dead is a hang-up, always. A FIN is one too where the request is incomplete, or where the configuration
// reads it so; over TCP it cannot be told from a client that only shut its writing side.
bool ClientH1::is_gone() const {
    if (channel_.dead() || channel_.write_failed()) return true;
    if (!channel_.fin_seen()) return false;
    if (exchange_ && exchange_->response.tunnel) return false;
    if (!channel_.is_unix() && loop_.config().limits.half_close == HalfClose::hangup) return true;
    return channel_.at_end() && exchange_ && !exchange_->request.is_complete() &&
           !exchange_->request.framing.upgrade;
}

void ClientH1::note_end() {
    if (!channel_.fin_seen() && !channel_.dead() && !channel_.write_failed()) return;
    if (exchange_ && is_gone()) {
        exchange_->client_left = true;
        loop_.turn().mark(*exchange_);
    }
    loop_.turn().mark(*this);
}

// A connection that begins with HTTP/2's preface, or with enough of it to be no request of ours.
bool ClientH1::is_http2() const {
    constexpr size_t telling = 3;  // no method begins with PRI
    std::string_view bytes = channel_.input();
    if (!first_ || bytes.size() < telling || !loop_.speaks_http2(origin_)) return false;
    size_t size = std::min(bytes.size(), h2_preface.size());
    return bytes.substr(0, size) == h2_preface.substr(0, size);
}

void ClientH1::fill_head() {
    std::string_view bytes = channel_.input();
    if (bytes.empty()) return;
    if (is_http2()) return loop_.turn().mark(*this);  // run() hands it over when the preface is whole
    Head head;
    switch (reader_.read(bytes, loop_.h1_limits(), loop_.field_room(), head)) {
        case ReadStep::need_more:
            if (!header_clock_) loop_.turn().mark(*this);  // the header clock starts with the first byte
            return;
        case ReadStep::failed: return refuse(Cause::bad_request, reader_.rule());
        case ReadStep::complete: return begin_exchange(head);
    }
}

void ClientH1::begin_exchange(const Head& head) {
    exchange_ = loop_.make_exchange(*this, origin_.info());
    Exchange& exchange = *exchange_;
    deadline_.disarm();
    state_ = State::exchange;
    http10_ = head.version == Version::http10;
    keep_ = continued_ = omit_body_ = looked_ = false;
    exchange.request.framing = reader_.framing();
    exchange.request.head = copy_head(head, exchange.arena());
    exchange.request.fill_to(Progress::head);
    channel_.consume(reader_.consumed());
    reader_.reset();
    body_reader_.start(exchange.request.framing);
    if (exchange.request.framing.body == BodyKind::none && !exchange.request.framing.upgrade)
        exchange.request.fill_to(Progress::complete);
    channel_.pause();                  // until the exchange has looked at the head
    exchange.client_left = is_gone();  // it may have hung up right behind its request
    loop_.turn().mark(exchange);
}

// A request without a head: it is answered and logged as any other.
void ClientH1::refuse(Cause cause, Rule rule) {
    exchange_ = loop_.make_exchange(*this, origin_.info());
    state_ = State::exchange;
    keep_ = continued_ = omit_body_ = http10_ = false;
    exchange_->rule = rule;
    exchange_->request.fail(cause);
    channel_.pause();
    loop_.turn().mark(*exchange_);
}

void ClientH1::fill_body() {
    Message* request = exchange_ ? &exchange_->request : nullptr;  // null: the rest is skipped
    if (request) {
        if (request->failed()) return channel_.pause();
        if (request->tunnel) {
            // below
        } else if (request->is_complete() || request->framing.upgrade) {
            return channel_.pause();  // a further request, or what an upgrade has not decided yet
        } else if (exchange_->step() == Exchange::Step::arrived) {
            return channel_.pause();
        }
    }
    bool moved = false;
    while (true) {
        std::string_view bytes = channel_.input();
        if (request && request->tunnel) {
            if (!bytes.empty() && !request->body.has_room()) {
                channel_.pause();
                break;
            }
            if (!bytes.empty()) {
                std::string_view part = bytes.substr(0, large_chunk_bytes);
                request->body.append(channel_.input_chunk(), part);
                channel_.consume(part.size());
                moved = true;
                continue;
            }
            if (channel_.at_end() && !request->is_complete()) {
                request->fill_to(Progress::complete);
                moved = true;
            }
            break;
        }
        if (body_reader_.is_complete()) {
            if (request && !request->is_complete()) request->fill_to(Progress::complete);
            moved = true;
            break;
        }
        if (bytes.empty()) break;
        if (request && !request->body.has_room()) {
            channel_.pause();
            moved = true;
            break;
        }
        BodyRead read = body_reader_.read(bytes.substr(0, large_chunk_bytes), loop_.h1_limits());
        if (read.step == BodyStep::trailers) {
            channel_.consume(read.consumed);
            Head trailers;
            read =
                body_reader_.read_trailers(channel_.input(), loop_.h1_limits(), loop_.field_room(), trailers);
            if (read.step == BodyStep::complete && request && trailers.field_count)
                request->trailers = copy_head(trailers, exchange_->arena());
            if (read.step == BodyStep::need_more) break;
        }
        if (read.step == BodyStep::failed) {
            if (request) {
                exchange_->rule = body_reader_.rule();
                request->fail(Cause::bad_request);
            } else {
                keep_ = false;
            }
            moved = true;
            break;
        }
        if (!read.data.empty()) {
            if (request) request->body.append(channel_.input_chunk(), read.data);
            if (request && request->filled() == Progress::head) request->fill_to(Progress::body);
            moved = true;
        }
        channel_.consume(read.consumed);
    }
    if (!moved) return;
    if (exchange_)
        loop_.turn().mark(*exchange_);
    else
        loop_.turn().mark(*this);
}

// --- writing: in advance, called by the exchange

void ClientH1::wake(Time now) {
    Message& request = exchange_->request;
    Message& response = exchange_->response;
    if (exchange_->step() == Exchange::Step::queued && !looked_) {
        looked_ = true;  // once: from here on it is paused, and told
        channel_.look_for_reset();
        note_end();
    }
    if (exchange_->send_continue && !continued_) {
        // Nobody waits for it any more once the body has begun to come by itself.
        if (!http10_ && request.body.total() == 0 && channel_.input().empty()) channel_.write(continue_head);
        continued_ = true;
    }
    write_interims();
    if (response.has_head() && response.sent() == Progress::nothing) {
        if (!write_head(now)) return;
        if (response.tunnel) {
            request.tunnel = true;
        } else if (request.framing.upgrade && !request.is_complete() && !request.failed()) {
            request.fill_to(Progress::complete);  // it was an ordinary request after all
        }
    }
    if (response.sent() != Progress::nothing && !response.is_sent()) write_body();
    if (channel_.paused() && !request.failed() && (!request.is_complete() || request.tunnel) &&
        request.body.wants_more() && (!request.framing.upgrade || request.tunnel))
        channel_.resume();
}

void ClientH1::write_interims() {
    Message& response = exchange_->response;
    while (const Head* interim = response.next_interim()) {
        if (!http10_) {
            HeadEdit edit;
            char* out = channel_.reserve(head_bound(*interim, edit));
            channel_.commit(static_cast<size_t>(write_response_head(*interim, edit, out) - out));
        }
        response.interim_sent();
    }
}

// Whether this connection can carry another request after this response.
bool ClientH1::keeps_connection() const {
    const Exchange& exchange = *exchange_;
    const Message& request = exchange.request;
    if (exchange.close_after || request.failed() || !request.framing.keep_alive || loop_.draining())
        return false;
    if (request.is_complete() || request.framing.upgrade) return true;
    return request.framing.body == BodyKind::length && body_reader_.remaining() <= most_skipped;
}

bool ClientH1::write_head(Time now) {
    if (!channel_.has_room()) {
        channel_.tell_when_drained();
        return false;
    }
    Message& response = exchange_->response;
    const Message& request = exchange_->request;
    HeadEdit edit = exchange_->response_edit(now);
    keep_ = keeps_connection();
    omit_body_ = has_no_body(response.head.status) || request.head.method == Method::head;
    if (response.tunnel) {
        edit.connection = ConnectionWord::upgrade;
        keep_ = false;
        framed_ = Framed::by_close;
    } else {
        const Framing& framing = response.framing;
        if (framing.declared == BodyKind::length && response.head.status != 204) {
            edit.declare = BodyKind::length;
            edit.length = framing.length;
            framed_ = Framed::by_length;
        } else if (omit_body_) {
            framed_ = Framed::by_length;
        } else if (http10_) {
            framed_ = Framed::by_close;
            keep_ = false;
        } else {
            edit.declare = BodyKind::chunked;
            framed_ = Framed::chunked;
        }
        if (!keep_)
            edit.connection = ConnectionWord::close;
        else if (http10_)
            edit.connection = ConnectionWord::keep_alive;
    }
    char* out = channel_.reserve(head_bound(response.head, edit));
    channel_.commit(static_cast<size_t>(write_response_head(response.head, edit, out) - out));
    response.send_to(Progress::head);
    return true;
}

void ClientH1::write_body() {
    Message& response = exchange_->response;
    while (response.body.unsent() > 0) {
        if (omit_body_ && !response.tunnel) {
            response.body.sent(response.body.next().size());
            continue;
        }
        if (!channel_.has_room()) return channel_.tell_when_drained();
        Piece piece = response.body.next_piece();
        if (framed_ == Framed::chunked) {
            char* out = channel_.reserve(chunk_head_bound);
            channel_.commit(static_cast<size_t>(write_chunk_head(piece.size(), out) - out));
            channel_.link(piece);
            channel_.write(chunk_end);
        } else {
            channel_.link(piece);
        }
        response.body.sent(piece.size());
        if (response.sent() == Progress::head) response.send_to(Progress::body);
    }
    if (response.is_complete()) write_end();
}

void ClientH1::write_end() {
    Message& response = exchange_->response;
    if (response.tunnel) {
        channel_.shut();
    } else if (framed_ == Framed::chunked && !omit_body_) {
        if (response.trailers.field_count) {
            drop_trailer_hop(response.trailers, response.head);
            char* out = channel_.reserve(trailers_bound(response.trailers));
            channel_.commit(static_cast<size_t>(write_last_chunk(response.trailers, out) - out));
        } else {
            channel_.write(last_chunk);
        }
    }
    response.send_to(Progress::complete);
}

// The response cannot be completed, and the client must be able to tell: what we have goes out, and then
// there is no final chunk, or too few bytes; where the end of the connection is the end of the body, a reset.
void ClientH1::cancel(Cause cause, Time now) {
    exchange_ = nullptr;
    bool takes_nothing = cause == Cause::write_timeout || cause == Cause::client_stall;
    if (framed_ != Framed::by_close && !takes_nothing) return finish(now);
    state_ = State::cutting;
    channel_.pause();
    channel_.tell_when_drained();
    if (takes_nothing || channel_.output_bytes() == 0) return close();
    loop_.turn().arm(deadline_, now + finish_time);
}

// The exchange is over. Its client may be gone, may want more, or has to be told goodbye.
void ClientH1::ended(Time now) {
    Exchange& exchange = *exchange_;
    exchange_ = nullptr;
    bool complete = exchange.request.is_complete();
    first_ = false;
    if (exchange.client_left || !exchange.response.is_sent()) {
        if (!channel_.dead() && !exchange.response.is_sent()) channel_.reset_on_close();
        return close();
    }
    // A request that was refused while its body was coming: the connection is kept if the rest is short.
    if (!keep_ || loop_.draining()) return finish(now, !complete || exchange.request.framing.keep_alive);
    if (complete || body_reader_.is_complete()) return next_request(now);
    state_ = State::skipping;
    loop_.turn().arm(deadline_, deadline_after(now, loop_.config().limits.client_body_timeout));
    loop_.turn().mark(*this);
}

void ClientH1::next_request(Time now) {
    state_ = State::head;
    reader_.reset();
    header_clock_ = false;
    loop_.turn().arm(deadline_, deadline_after(now, loop_.config().limits.client_idle_timeout));
    loop_.turn().mark(*this);
}

// A client that has said itself that this was its last request sends nothing more: waiting for its end would
// only cost a wake-up.
void ClientH1::finish(Time now, bool more_may_come) {
    state_ = State::finishing;
    channel_.finish(more_may_come);
    const Limits& limits = loop_.config().limits;
    Duration patience = channel_.output_bytes() > Channel::most_output / 4
                            ? std::max(finish_time, limits.client_write_timeout)
                            : finish_time;
    loop_.turn().arm(deadline_, now + patience);
    channel_.tell_when_drained();
}

void ClientH1::close() {
    if (state_ == State::closed) return;
    if (state_ == State::cutting) channel_.reset_on_close();
    state_ = State::closed;
    deadline_.disarm();
    channel_.pause();
    loop_.turn().bury(*this);
}

void ClientH1::drain() {
    if (state_ == State::head) {
        channel_.expect_input();  // a request that has come is served; run() ends the connection if none has
        loop_.turn().mark(*this);
    } else if (state_ == State::skipping) {
        close();
    }
}

void ClientH1::stop_now() {
    if (exchange_) {
        exchange_->client_left = true;
        loop_.turn().mark(*exchange_);
    } else {
        close();
    }
}

void ClientH1::count_bytes() {
    Stats& stats = loop_.stats();
    stats.bytes(Wire::client, Flow::in, channel_.bytes_read() - counted_in_);
    stats.bytes(Wire::client, Flow::out, channel_.bytes_written() - counted_out_);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
}

// --- its own marks: what the channel found, and the clocks between exchanges

void ClientH1::run(Time now) {
    count_bytes();
    switch (state_) {
        case State::closed: return;
        case State::exchange:
            loop_.turn().mark(*exchange_);  // room to write, or an end
            if (!channel_.paused() && channel_.readable()) channel_.resume();
            return;
        case State::finishing: {
            if (channel_.finished()) return close();
            if (deadline_.expired()) {
                // Bytes still on their way out get their time; a client that never closes does not.
                Time patience = channel_.last_sent() + loop_.config().limits.client_write_timeout;
                if (channel_.output_bytes() == 0 || patience <= now) return close();
                loop_.turn().arm(deadline_, patience);
            }
            if (channel_.readable()) channel_.resume();
            return;
        }
        case State::cutting:
            if (channel_.output_bytes() == 0 || channel_.dead() || channel_.write_failed() ||
                deadline_.expired())
                close();
            else
                channel_.tell_when_drained();
            return;
        case State::skipping:
            if (is_gone() || deadline_.expired()) return close();
            channel_.resume();
            if (state_ != State::skipping) return;
            if (!keep_) return finish(now);
            if (body_reader_.is_complete()) return next_request(now);
            return;
        case State::head: break;
    }
    const Limits& limits = loop_.config().limits;
    if (deadline_.expired()) {
        if (!reader_.started()) return close();  // idle for too long
        return refuse(Cause::header_timeout, Rule::ok);
    }
    channel_.resume();
    if (state_ != State::head) return;
    if (is_http2() && channel_.input().size() >= h2_preface.size()) {
        loop_.go_on_with_http2(channel_, std::move(origin_));
        return close();
    }
    if (channel_.dead() || channel_.at_end()) {
        // An end between requests is a goodbye; inside a head nobody is left to read an answer.
        return close();
    }
    bool head_begun = reader_.started();  // more than empty lines
    if (first_ && !deadline_.is_armed())
        loop_.turn().arm(deadline_, deadline_after(now, limits.client_header_timeout));
    if (head_begun && !header_clock_) {
        header_clock_ = true;
        if (!first_) loop_.turn().arm(deadline_, deadline_after(now, limits.client_header_timeout));
    }
    if (loop_.draining() && !head_begun) finish(now);
}

}  // namespace penstock
