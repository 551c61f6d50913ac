#include "proxy/client_h2.h"

#include <algorithm>
#include <cassert>

#include "proxy/data_loop.h"

namespace penstock {

namespace {
// After our last words: how long the client may take to close.
constexpr Duration finish_time = 2s;
// How long a request may have been on its way when we said that we go, where no PING tells.
constexpr Duration last_request_time = 1s;
// One connection does not own a turn: after so many new requests its further bytes wait for the next.
constexpr uint32_t most_new_streams = 64;
// So many bytes between two looks at that number: some three hundred of the smallest requests.
constexpr size_t slice_bytes = 4096;
}  // namespace

ClientH2::ClientH2(DataLoop& loop, ClientOrigin&& origin)
    : loop_(loop),
      channel_(loop.loop(), *this),
      session_(H2Role::server, loop.h2_limits(), loop.h2_memory(), loop.chunks(), *this),
      origin_(std::move(origin)),
      deadline_(*this),
      idle_since_(loop.turn().now()) {
    loop_.turn().mark(*this);  // arms the clock, and looks at what has come
}

ClientH2::ClientH2(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin)
    : ClientH2(loop, std::move(origin)) {
    channel_.adopt(fd, is_unix);
    if (loop_.draining()) channel_.expect_input();
}

ClientH2::ClientH2(DataLoop& loop, Channel& from, ClientOrigin&& origin) : ClientH2(loop, std::move(origin)) {
    channel_.take_over(from);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
    if (loop_.draining()) channel_.expect_input();
}

ClientH2::~ClientH2() {
    Link<MarkTag>::unlink();
    Link<GraveTag>::unlink();
    Link<FlushTag>::unlink();
}

void ClientH2::reap() {
    count_bytes();
    loop_.free(this);
}

// --- reading: in poll, or from resume() in advance

void ClientH2::fill() {
    loop_.turn().mark(*this);
    if (state_ == State::finishing || state_ == State::closed) return channel_.discard_input();
    const uint64_t begun = session_.heads_begun();
    while (!channel_.input().empty() && !crowded_) {
        std::string_view bytes = channel_.input().substr(0, slice_bytes);
        bool goes_on = session_.receive(bytes, loop_.turn().now());
        channel_.consume(bytes.size());
        if (!goes_on) channel_.discard_input();
        crowded_ = new_streams_ >= most_new_streams;
    }
    if (crowded_) channel_.pause();
    if (session_.heads_begun() != begun) head_began_ = loop_.turn().now();
    flush_later();
}

void ClientH2::request(int32_t id, const H2Head& request) {
    if (state_ == State::finishing || state_ == State::closed) return;
    served_ = true;
    ++new_streams_;
    ClientStream* stream = loop_.make_stream(*this);
    streams_.push_back(*stream);
    session_.bind(*stream, id);
    stream->begin(request);
}

void ClientH2::moved(H2Stream& stream) {
    static_cast<ClientStream&>(stream).note_moved(flushing_ ? loop_.turn().now() : never);
}

void ClientH2::closed(H2Stream& stream, H2Error code, bool by_them) {
    static_cast<ClientStream&>(stream).note_closed(code, by_them);
}

void ClientH2::said_reset(H2Error code) { loop_.stats().http2_reset(Wire::client, code); }

// What was on its way when we announced our end has come.
void ClientH2::answered() {
    if (state_ != State::leaving) return;
    announced_ = Time{};
    loop_.turn().mark(*this);
}

// --- its streams

void ClientH2::flush_later() { loop_.turn().flush_later(*this); }

void ClientH2::removed(ClientStream& stream) {
    stream.Link<StreamTag>::unlink();
    flush_later();
    if (!streams_.empty()) return;
    idle_since_ = loop_.turn().now();
    loop_.turn().mark(*this);
}

void ClientH2::leave_streams() {
    for (ClientStream* stream = streams_.front(); stream; stream = streams_.next(*stream)) stream->leave();
}

// --- writing

void ClientH2::flush(Time now) {
    if (state_ == State::closed) return;
    flushing_ = true;
    new_streams_ = 0;
    session_.send();
    flushing_ = false;
    if (crowded_) {
        crowded_ = false;
        loop_.turn().mark(*this);
    }
    if (goodbye_ && !session_.wants_send()) {
        goodbye_ = false;
        channel_.finish();
    }
    if (session_.wants_send()) channel_.tell_when_drained();
    channel_.unlink();  // it has its turn now; what it cannot send it asks for again
    channel_.flush(now);
    note_unsent(now);
    bool over = session_.is_over() && (state_ == State::open || state_ == State::leaving);
    if (over) loop_.turn().mark(*this);
}

// From when on we wait for the client to read.
void ClientH2::note_unsent(Time now) {
    if (channel_.output_bytes() == 0) {
        unsent_since_ = never;
        return;
    }
    channel_.tell_when_drained();
    if (unsent_since_ != never) return;
    unsent_since_ = now;
    loop_.turn().mark(*this);  // arms the clock
}

// --- its own marks and clocks

// The client is to have read something of what waits for it.
Time ClientH2::write_due() const {
    if (unsent_since_ == never) return never;
    return deadline_after(std::max(unsent_since_, channel_.last_sent()),
                          loop_.config().limits.client_write_timeout);
}

Time ClientH2::due() const {
    const Limits& limits = loop_.config().limits;
    if (state_ == State::finishing) return finish_by_;
    Time at = never;
    if (state_ == State::leaving && announced_ != never) at = announced_ + last_request_time;
    if (session_.is_reading_head())
        at = std::min(at, deadline_after(head_began_, limits.client_header_timeout));
    if (streams_.empty())
        at = std::min(at, deadline_after(idle_since_, served_ ? limits.client_idle_timeout
                                                              : limits.client_header_timeout));
    return std::min(at, write_due());
}

void ClientH2::run(Time now) {
    count_bytes();
    if (loop_.draining()) drain();  // it may have come when the others were told
    if (state_ == State::closed) return close();
    if (state_ == State::finishing) {
        if (channel_.finished()) return close();
        if (now >= finish_by_) {
            // Bytes still on their way out get their time; a client that never closes does not.
            Time patience = channel_.last_sent() + loop_.config().limits.client_write_timeout;
            if (channel_.output_bytes() == 0 || patience <= now) return close();
            finish_by_ = patience;
        }
        if (channel_.readable()) channel_.resume();
    } else {
        if (channel_.dead() || channel_.write_failed() || channel_.fin_seen()) return close();
        if (!crowded_) channel_.resume();
        look_for_reset();
        if (session_.failed() || session_.is_over()) return finish(now);
        if (now >= due()) on_time(now);
    }
    if (state_ == State::closed) return;
    flush_later();
    loop_.turn().arm(deadline_, due());
}

// Behind bytes of this turn a reset would not be seen, and those who wait in a queue have nothing to write
// that would tell of it.
void ClientH2::look_for_reset() {
    const bool came = channel_.bytes_read() != looked_at_;
    looked_at_ = channel_.bytes_read();
    if (came && !streams_.empty() && !channel_.readable()) channel_.look_for_reset();
}

void ClientH2::on_time(Time now) {
    if (state_ == State::leaving && announced_ != never && now >= announced_ + last_request_time)
        return say_last();
    if (now >= write_due()) {
        channel_.reset_on_close();
        return close();
    }
    // A head that does not come in time, or nothing to do: with a word, so that it is no riddle.
    session_.terminate(H2Error::no_error);
    finish(now);
}

void ClientH2::drain() {
    if (state_ != State::open) return;
    state_ = State::leaving;
    announced_ = loop_.turn().now();
    session_.announce_end();
    channel_.expect_input();  // a request that has come is served
    flush_later();
    loop_.turn().mark(*this);
}

void ClientH2::say_last() {
    announced_ = never;
    session_.end();
    flush_later();
}

void ClientH2::stop_now() { close(); }

// Our last words go out; the client gets a moment to read them.
void ClientH2::finish(Time now) {
    if (session_.flood() != H2Flood::none) loop_.stats().http2_flood(session_.flood());
    state_ = State::finishing;
    goodbye_ = true;
    leave_streams();
    flush_later();
    finish_by_ = now + finish_time;
    loop_.turn().arm(deadline_, finish_by_);
}

void ClientH2::close() {
    if (state_ != State::closed) {
        state_ = State::closed;
        deadline_.disarm();
        channel_.pause();
        leave_streams();
    }
    if (streams_.empty()) loop_.turn().bury(*this);
}

void ClientH2::count_bytes() {
    Stats& stats = loop_.stats();
    stats.bytes(Wire::client, Flow::in, channel_.bytes_read() - counted_in_);
    stats.bytes(Wire::client, Flow::out, channel_.bytes_written() - counted_out_);
    counted_in_ = channel_.bytes_read();
    counted_out_ = channel_.bytes_written();
}

}  // namespace penstock
