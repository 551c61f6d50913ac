// A Channel is one connected (or connecting) stream socket with its input and its output. It knows no HTTP.
//
// In poll it reads into chunks and calls its user's fill(); in flush it writes everything it was given with
// one system call. It never calls its user otherwise: it marks it. The user owns the channel and frees it in
// reap, which closes the descriptor (closed earlier, its number could meet a stale event in the same batch).
//
// Reading is edge-triggered: a short read means that the socket is empty and saves the read that would say
// so. Once the other side has closed (fin), it reads on to the end. A paused channel leaves bytes in the
// socket and remembers that it is readable.
//
// With secure() it speaks TLS, and its user sees no difference: input is plaintext, output is sealed in
// flush, all of a turn at once. Counts and limits are of what travels.
//
// What a user sees of the other side's end, weakest first:
//   fin_seen()      it has shut its writing side (bytes may still lie in the socket)
//   at_end()        all its bytes are read, and it has shut its writing side; truncated() where TLS was not
//                   closed before that: what only the end completes is not complete
//   write_failed()  what we write is lost; there may be something to read nevertheless
//   dead()          reset, or both ways closed on a unix socket: nothing can come or go
#pragma once

#include <cstdint>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "base/turn.h"
#include "net/loop.h"
#include "net/socket.h"

namespace penstock {

class Tls;

// Who uses a channel: a task that also takes input as it comes.
class ChannelUser : public Task {
  public:
    // Bytes have come, or an end, or it is connected. In poll, or in advance from resume(): parse, fill
    // messages, set flags, mark; decide nothing, write nothing, close nothing.
    virtual void fill() = 0;

  protected:
    ~ChannelUser() = default;
};

class Channel final : public Output {
  public:
    static constexpr size_t most_output = 64 * 1024;  // a user adds nothing to a fuller one
    static constexpr size_t most_read_a_turn = 128 * 1024;

    Channel(Loop& loop, ChannelUser& user);
    ~Channel();  // closes the descriptor
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    void adopt(int fd, bool is_unix);  // an accepted socket
    // Goes on with another channel's connection, in advance: unread input, all that is known of the other
    // side and the counts come along; the descriptor stays open, and `from` is as if it never had one. What
    // `from` was given to write is out. Whoever takes over marks itself: what has come is in input().
    void take_over(Channel& from);
    // Starts to connect. `0` or EINPROGRESS: under way (or done); else why not. EAGAIN: call it again
    // soon, the backlog of a unix socket is full.
    int connect(const SocketAddress& address);
    // TLS from here on, in advance. Of an accepted channel: its unread input is the beginning of it. Of one
    // that is to connect: before connect(), and connecting() until the handshake is done. A handshake that
    // fails leaves a dead channel.
    void secure(std::unique_ptr<Tls> tls);
    const Tls* tls() const { return tls_.get(); }  // null: in clear
    bool handshaking() const { return handshaking_; }
    // The handshake has failed: the alert that says so goes out, and then as finish(). In clear from here on.
    void finish_handshake();
    bool is_open() const { return fd_ >= 0; }
    bool connecting() const { return connecting_ || handshaking_; }
    int error() const { return error_; }  // errno of what made it dead or failed
    int descriptor() const { return fd_; }
    bool is_unix() const { return is_unix_; }

    // --- input
    std::string_view input() const {
        return input_ ? std::string_view(input_->data() + begin_, end_ - begin_) : std::string_view();
    }
    const ChunkRef& input_chunk() const { return input_; }
    void consume(size_t bytes) { begin_ += static_cast<uint32_t>(bytes); }
    void discard_input() { begin_ = end_; }
    void pause() { paused_ = true; }
    void resume();  // in advance: reads at once if there is something, and calls fill()
    void expect_input() {
        readable_ = socket_readable_ = true;
    }  // bytes may have come of which no event told yet
    // A reset that came with bytes before it looks like nothing but bytes, and no event follows: where more
    // is waited for, ask. If so, writing has failed, and the channel is dead once what can be read is read.
    void look_for_reset();
    bool paused() const { return paused_; }
    bool readable() const { return readable_; }
    bool fin_seen() const { return fin_seen_; }
    bool at_end() const { return at_end_; }
    bool truncated() const { return truncated_; }
    bool write_failed() const { return write_failed_; }
    bool dead() const { return dead_; }
    uint32_t events() const { return events_; }  // how often there was input, or an end: none while pooled
    uint64_t bytes_read() const { return bytes_read_; }
    uint64_t bytes_written() const { return bytes_written_; }
    Time last_sent() const { return last_sent_; }  // the turn in which the kernel last took bytes

    // --- output: in advance
    bool has_room() const { return output_bytes() < most_output; }
    size_t output_bytes() const { return output_.size() + sealed_bytes(); }
    char* reserve(size_t bytes) { return output_.reserve(loop_.chunks(), bytes); }
    void commit(size_t bytes);
    void write(std::string_view bytes);
    void link(const Piece& piece);
    // Marks the user when the output has run half empty, or is empty and shut.
    void tell_when_drained() { tell_when_drained_ = true; }

    // Shuts our writing side once the output is out. The reading side goes on.
    void shut();
    bool is_shut() const { return shut_; }
    // As shut(), and from here on the input is thrown away, up to 1 MiB, until the other side has closed;
    // then `finished()`. Without it a client that still uploads sees a reset instead of our last words. Where
    // nothing more can come, it is over with the output, and closing is all that the other side sees.
    void finish(bool more_may_come = true);
    bool finished() const {
        return dead_ || (finishing_ && (write_failed_ || (shut_done_ && (at_end_ || nothing_comes_)) ||
                                        discarded_ > most_discarded));
    }
    void reset_on_close() {
        if (fd_ >= 0) penstock::reset_on_close(fd_);
        cut_ = true;
    }

    void flush(Time now) override;

  private:
    static constexpr size_t most_discarded = 1 << 20;

    static void on_event(int fd, short what, void* self);
    void read_some();
    ssize_t receive(uint32_t room);
    ssize_t receive_sealed(uint32_t room);
    bool seal();
    void say_goodbye();
    size_t sealed_bytes() const { return tls_ ? sealed_output().size() : 0; }
    Bytes& sealed_output() const;
    Bytes& wire_output() { return tls_ ? sealed_output() : output_; }
    bool make_room();
    void compact();
    void watch(short what);
    void fail(int error);
    void want_flush() { loop_.turn().flush_later(*this); }

    Loop& loop_;
    ChannelUser& user_;
    event event_{};
    int fd_ = -1;
    int error_ = 0;
    ChunkRef input_;
    uint32_t begin_ = 0;
    uint32_t end_ = 0;
    Bytes output_;
    std::unique_ptr<Tls> tls_;
    uint64_t bytes_read_ = 0;
    uint64_t bytes_written_ = 0;
    Time last_sent_{};
    uint32_t events_ = 0;
    uint32_t discarded_ = 0;
    short watching_ = 0;
    bool is_unix_ : 1 = false;
    bool connecting_ : 1 = false;
    bool readable_ : 1 = false;
    bool writable_ : 1 = false;
    bool paused_ : 1 = false;
    bool fin_seen_ : 1 = false;
    bool at_end_ : 1 = false;
    bool dead_ : 1 = false;
    bool reset_ : 1 = false;
    bool write_failed_ : 1 = false;
    bool shut_ : 1 = false;
    bool shut_done_ : 1 = false;
    bool finishing_ : 1 = false;
    bool nothing_comes_ : 1 = false;  // but what the other side has said it would not send
    bool tell_when_drained_ : 1 = false;
    bool filling_ : 1 = false;
    bool socket_readable_ : 1 = false;  // readable_, but for what TLS holds
    bool handshaking_ : 1 = false;
    bool truncated_ : 1 = false;
    bool cut_ : 1 = false;  // closing it is to look like a cut
};

}  // namespace penstock
