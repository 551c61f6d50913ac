#include "proxy/backend_h2.h"

#include <algorithm>

#include "base/log.h"
#include "proxy/backend_tls.h"
#include "proxy/data_loop.h"
#include "proxy/dialing.h"

namespace penstock {

namespace {

// Never more than this on one connection, whatever a backend allows: then another one is opened.
constexpr size_t most_streams = 1024;
// How long our goodbye may take to leave.
constexpr Duration leave_time = 2s;
// A connection that has not answered for so long, or not taken a byte of what waits for it, gets no new
// streams. Longer than any way and back; and what it costs a backend that was only busy is one more
// connection.
constexpr Duration answer_time = 1s;
constexpr Duration write_time = 5s;

}  // namespace

BackendH2::BackendH2(DataLoop& loop, BackendH2Pool& pool, LiveUpstream& upstream, BackendId backend,
                     uint32_t generation)
    : loop_(loop),
      pool_(pool),
      upstream_(upstream),
      backend_(backend),
      generation_(generation),
      channel_(loop.loop(), *this),
      deadline_(*this),
      session_(H2Role::client, loop.h2_limits(), loop.h2_memory(), loop.chunks(), *this) {
    loop_.stats().connection_opened(Wire::backend);
}

BackendH2::~BackendH2() {
    Task::unlink();
    Link<FlushTag>::unlink();
    Link<GraveTag>::unlink();
    Link<ConnectionsTag>::unlink();
    loop_.stats().connection_closed(Wire::backend);
}

void BackendH2::reap() {
    count_bytes();
    pool_.free(this);
}

int BackendH2::dial(const SocketAddress& address, Time now) {
    dialed_ = address;
    secure_backend(channel_, loop_, upstream_, backend_);
    int error = channel_.connect(address);
    if (may_pass(error)) {
        loop_.turn().arm(deadline_, now + dial_again);
        return 0;
    }
    if (error == 0) loop_.turn().mark(*this);
    return error;
}

// --- streams come and go: in advance

bool BackendH2::takes_more() const {
    if (state_ != State::dialing && state_ != State::open) return false;
    if (going_away_ || broken_ || channel_.write_failed() || is_silent(loop_.turn().now())) return false;
    uint32_t limit = upstream_.backend(backend_).requests_per_connection;
    if (limit && served_ >= limit) return false;
    // Before its SETTINGS have come, what the last connection to this backend learned from them.
    size_t allowed = session_.settings_came() ? session_.most_streams() : pool_.streams_allowed(backend_);
    return stream_count_ < std::min(allowed, most_streams);
}

bool BackendH2::is_silent(Time now) const {
    if (state_ != State::open) return false;  // while it dials, what waits is the handshake's
    if (asked_since_ != never && now - asked_since_ >= answer_time) return true;
    return channel_.output_bytes() > 0 && now - channel_.last_sent() >= write_time;
}

void BackendH2::add(BackendStream& stream) {
    streams_.push_back(stream);
    ++stream_count_;
    ++served_;
    watch();
}

// Arms the clock of an open connection.
void BackendH2::watch() {
    if (state_ != State::open) return;
    Time at = never;
    if (stream_count_ == 0)
        at = deadline_after(idle_since_, upstream_.settings.pool.idle);
    else if (asked_since_ != never && !upstream_.backend(backend_).spawned)
        at = deadline_after(asked_since_, upstream_.settings.abandon_grace);
    loop_.turn().arm(deadline_, at);
}

void BackendH2::remove(BackendStream& stream, Time now) {
    stream.Link<StreamsTag>::unlink();
    --stream_count_;
    session_.forget(stream);
    want_flush();
    if (stream_count_ > 0) return;
    if (state_ == State::dialing) return close();  // nobody waits for it any more
    if (state_ != State::open) return;
    Duration idle = upstream_.settings.pool.idle;
    if (!takes_more() || loop_.draining() || idle <= Duration::zero()) return leave();
    idle_since_ = now;
    watch();
    count_bytes();
}

void BackendH2::leave_if_idle() {
    if (stream_count_ > 0) return;
    if (state_ == State::open) leave();
    if (state_ == State::dialing) close();
}

void BackendH2::leave() {
    state_ = State::leaving;
    session_.end();
    loop_.turn().arm(deadline_, loop_.turn().now() + leave_time);
    loop_.turn().mark(*this);
    want_flush();
}

// nghttp2 sends it before all that waits: it is given to it once that is out.
uint64_t BackendH2::ask(Time now) {
    question_waits_ = true;
    if (asked_since_ == never) asked_since_ = now;
    watch();
    want_flush();
    return questions_ + 1;
}

void BackendH2::want_flush() {
    if (state_ != State::closed) loop_.turn().flush_later(*this);
}

// All that is on it ends as it stands.
void BackendH2::lose(Cause cause) {
    while (BackendStream* stream = streams_.pop_front()) {
        session_.forget(*stream);
        stream->connection_lost(cause);
    }
    stream_count_ = 0;
    close();
}

void BackendH2::close() {
    if (state_ == State::closed) return;
    if (channel_.handshaking() && !channel_.dead()) note_handshake(channel_, loop_, upstream_, backend_);
    state_ = State::closed;
    Link<ConnectionsTag>::unlink();
    deadline_.disarm();
    channel_.pause();
    loop_.turn().bury(*this);
}

void BackendH2::count_bytes() {
    Stats& stats = loop_.stats();
    stats.bytes(Wire::backend, Flow::in, channel_.bytes_read() - counted_in_);
    stats.bytes(Wire::backend, Flow::out, channel_.bytes_written() - counted_out_);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
}

// --- poll

void BackendH2::fill() {
    if (state_ == State::closed) return channel_.discard_input();
    if (state_ == State::dialing) return loop_.turn().mark(*this);
    if (!session_.receive(channel_.input(), loop_.loop().now())) broken_ = true;
    if (session_.settings_came()) pool_.learn_streams(backend_, session_.most_streams());
    channel_.discard_input();
    // Somebody waits for more than came now.
    if (stream_count_ > 0 && !channel_.readable() && !channel_.fin_seen()) channel_.look_for_reset();
    if (broken_ || channel_.dead() || channel_.at_end()) loop_.turn().mark(*this);
    want_flush();
}

bool BackendH2::response(H2Stream& stream, const H2Head& response) {
    return static_cast<BackendStream&>(stream).take_head(response);
}

void BackendH2::moved(H2Stream& stream) { static_cast<BackendStream&>(stream).moved(); }

void BackendH2::closed(H2Stream& stream, H2Error code, bool by_them) {
    static_cast<BackendStream&>(stream).ended(code, by_them);
}

void BackendH2::going_away(int32_t, H2Error) {
    going_away_ = true;
    loop_.turn().mark(*this);
}

void BackendH2::answered() {
    if (!question_is_out_) return;
    question_is_out_ = false;
    asked_since_ = question_waits_ ? loop_.loop().now() : never;
    for (BackendStream* at = streams_.front(); at; at = streams_.next(*at)) at->heard(questions_);
    watch();
    if (question_waits_) want_flush();
}

void BackendH2::said_reset(H2Error code) { loop_.stats().http2_reset(Wire::backend, code); }

// --- flush

void BackendH2::flush(Time now) {
    if (state_ == State::closed || state_ == State::dialing) return;
    bool good = session_.send();
    if (good && question_waits_ && !question_is_out_ && channel_.has_room()) {
        session_.ask();
        question_waits_ = false;
        question_is_out_ = true;
        ++questions_;
        good = session_.send();
    }
    if (!good || session_.is_over()) {  // it said GOAWAY for what it could not understand
        broken_ = true;
        loop_.turn().mark(*this);
    }
    if (!channel_.has_room()) channel_.tell_when_drained();
    // It has been given all that it gets in this turn.
    channel_.unlink();
    channel_.flush(now);
}

// --- advance

void BackendH2::run(Time now) {
    switch (state_) {
        case State::closed: return;
        case State::dialing:
            if (!channel_.is_open() && deadline_.expired()) {
                int error = channel_.connect(dialed_);
                if (may_pass(error)) return loop_.turn().arm(deadline_, now + dial_again);
                if (error != 0) return lose(Cause::connect_failure);
            }
            if (channel_.dead()) {
                note_handshake(channel_, loop_, upstream_, backend_);
                return lose(Cause::connect_failure);
            }
            if (!channel_.is_open() || channel_.connecting()) return;
            note_handshake(channel_, loop_, upstream_, backend_);
            return opened();
        case State::open: {
            // What was said before the end is still there, and then the end.
            if (channel_.write_failed() && !channel_.dead()) channel_.expect_input();
            if (channel_.readable() && !channel_.dead()) channel_.resume();
            if (channel_.dead() || channel_.at_end() || broken_) return lose(Cause::backend_reset);
            if (stream_count_ == 0 && (going_away_ || deadline_.expired())) return leave();
            if (deadline_.expired()) {
                log::warn("upstream {}: server {}: a connection has not answered for {}: closed",
                          upstream_.name(), upstream_.backend(backend_).name(),
                          format_duration(upstream_.settings.abandon_grace));
                return lose(Cause::backend_reset);
            }
            want_flush();  // there may be room again
            return;
        }
        case State::leaving: {
            bool out = !session_.wants_send() && channel_.output_bytes() == 0;
            if (out || channel_.dead() || channel_.at_end() || channel_.write_failed() || deadline_.expired())
                return close();
            channel_.tell_when_drained();
            return;
        }
    }
}

void BackendH2::opened() {
    state_ = State::open;
    watch();
    for (BackendStream* at = streams_.front(); at; at = streams_.next(*at)) at->connection_opened();
    if (stream_count_ == 0) leave_if_idle();
    channel_.resume();  // its settings may have come with the end of a handshake
    want_flush();
}

}  // namespace penstock
