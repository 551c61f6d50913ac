#include "net/channel.h"

#include <cassert>
#include <cerrno>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

#include "net/tls.h"

namespace penstock {

namespace {
// One write takes at most this many pieces; 64 KiB of output are rarely more.
constexpr int most_pieces = 64;
// A chunk with less room than this behind its input is not worth a read: take the next one.
constexpr uint32_t least_read = 2048;
}  // namespace

Channel::Channel(Loop& loop, ChannelUser& user) : loop_(loop), user_(user) {}

Channel::~Channel() {
    unlink();
    if (fd_ < 0) return;
    if (watching_) event_del(&event_);
    if (tls_) say_goodbye();
    ::close(fd_);
}

void Channel::adopt(int fd, bool is_unix) {
    assert(fd_ < 0);
    fd_ = fd;
    is_unix_ = is_unix;
    writable_ = true;
    // On TCP one edge-triggered event for everything costs one wake-up a request. On a unix socket every read
    // by the other end would raise a write event, so there it is watched only while a write waits.
    watch(is_unix ? EV_READ | EV_CLOSED : EV_READ | EV_WRITE | EV_CLOSED);
}

void Channel::take_over(Channel& from) {
    assert(fd_ < 0 && from.fd_ >= 0 && !from.connecting_);
    assert(from.output_.empty() && !from.shut_);
    from.unlink();
    fd_ = std::exchange(from.fd_, -1);
    // The new event before the old one goes: libevent sees one watcher throughout and makes no system call.
    // All that the kernel has told so far comes along below.
    watch(from.watching_);
    if (std::exchange(from.watching_, short{0})) event_del(&from.event_);
    is_unix_ = from.is_unix_;
    error_ = from.error_;
    tls_ = std::move(from.tls_);
    if (sealed_bytes() > 0) want_flush();
    input_ = std::move(from.input_);
    begin_ = std::exchange(from.begin_, 0);
    end_ = std::exchange(from.end_, 0);
    events_ = from.events_;
    bytes_read_ = from.bytes_read_;
    bytes_written_ = from.bytes_written_;
    last_sent_ = from.last_sent_;
    readable_ = from.readable_;
    socket_readable_ = from.socket_readable_;
    handshaking_ = from.handshaking_;
    truncated_ = from.truncated_;
    writable_ = from.writable_;
    fin_seen_ = from.fin_seen_;
    at_end_ = from.at_end_;
    dead_ = from.dead_;
    reset_ = from.reset_;
    write_failed_ = from.write_failed_;
}

int Channel::connect(const SocketAddress& address) {
    assert(fd_ < 0);
    auto [fd, error] = dial(address);
    if (error != 0 && error != EINPROGRESS) {
        if (fd >= 0) ::close(fd);  // it was in no event base: no stale event can meet its number
        return error_ = error;
    }
    fd_ = fd;
    is_unix_ = address.is_unix();
    connecting_ = error == EINPROGRESS;
    writable_ = !connecting_;
    watch(is_unix_ && !connecting_ ? EV_READ | EV_CLOSED : EV_READ | EV_WRITE | EV_CLOSED);
    if (tls_ && !connecting_) receive_sealed(0);  // begins the handshake
    return error_ = 0;
}

void Channel::watch(short what) {
    if (watching_ == what) return;
    if (watching_) event_del(&event_);
    watching_ = what;
    event_assign(&event_, loop_.base(), fd_, static_cast<short>(what | EV_ET | EV_PERSIST), on_event, this);
    event_add(&event_, nullptr);
}

void Channel::on_event(int, short what, void* arg) {
    auto& self = *static_cast<Channel*>(arg);
    // One that only says "writable" says nothing: the kernel repeats it for bytes that came while we read and
    // were read with those before them. A reset or an end is shown as input as well.
    if (what & (EV_READ | EV_CLOSED)) ++self.events_;
    if (self.connecting_) {
        int error = socket_error(self.fd_);
        if (error != 0) {
            self.fail(error);
            return self.user_.fill();
        }
        if (!(what & EV_WRITE)) return;
        self.connecting_ = false;
        if (self.tls_)
            self.receive_sealed(0);  // begins the handshake
        else
            self.loop_.turn().mark(self.user_);
    }
    if (what & EV_WRITE) {
        self.writable_ = true;
        if (self.output_bytes() > 0 || (self.shut_ && !self.shut_done_)) self.want_flush();
    }
    if (what & EV_CLOSED) {
        self.fin_seen_ = true;
        if (self.is_unix_ && both_ways_closed(self.fd_)) self.write_failed_ = true;
    }
    if (!(what & (EV_READ | EV_CLOSED))) return;
    self.readable_ = self.socket_readable_ = true;
    if (!self.paused_) return self.read_some();
    // libevent shows a reset as data. Reading would tell, but nobody wants bytes now: ask.
    if (!(what & EV_CLOSED)) self.look_for_reset();
    self.user_.fill();
}

void Channel::resume() {
    paused_ = false;
    if (filling_) return;  // fill() itself resumed: read_some() goes on
    if (!input().empty()) {
        user_.fill();
        if (paused_) return;
    }
    if (readable_) read_some();
}

void Channel::look_for_reset() {
    if (fd_ < 0 || connecting_ || dead_) return;
    int error = socket_error(fd_);  // forgets it
    if (error == 0) return;
    error_ = error;
    reset_ = write_failed_ = readable_ = socket_readable_ =
        true;  // what came before the reset can still be read
    output_.clear();
    loop_.turn().mark(user_);
}

void Channel::read_some() {
    if (fd_ < 0 || connecting_) return;
    const uint64_t until = bytes_read_ + most_read_a_turn;
    filling_ = true;
    while (readable_ && !paused_ && !dead_ && bytes_read_ < until) {
        if (!make_room()) break;
        ssize_t n = receive(input_->capacity - end_);
        if (n > 0) {
            end_ += static_cast<uint32_t>(n);
            if (finishing_) {
                discarded_ += static_cast<uint32_t>(n);
                discard_input();
                if (finished()) loop_.turn().mark(user_);
                continue;
            }
        } else if (n == 0 && reset_) {
            fail(error_);
        } else if (n == 0 && handshaking_) {
            fail(ECONNRESET);
        } else if (n == 0) {
            readable_ = false;
            fin_seen_ = at_end_ = true;
            if (finishing_) loop_.turn().mark(user_);
        } else if (errno == EINTR) {
            continue;
        } else if (errno != EAGAIN) {
            fail(errno);
        }
        user_.fill();
    }
    filling_ = false;
    compact();
    // One fast socket must not own a turn: what is left waits for the next one.
    if (readable_ && !paused_ && !dead_) loop_.turn().mark(user_);
}

// As recv(), and says in readable_ whether there is more. A short read ends the reading, unless the other
// side has closed: then there is the end to be read.
ssize_t Channel::receive(uint32_t room) {
    if (tls_) return receive_sealed(room);
    ssize_t n = ::recv(fd_, input_->data() + end_, room, 0);
    if (n > 0) bytes_read_ += static_cast<uint64_t>(n);
    if (n > 0 && (n == room || fin_seen_)) return n;
    if (n < 0 && errno == EINTR) return n;
    readable_ = socket_readable_ = false;
    return n;
}

// Room to read into, in one run with what is unread: a parser looks at contiguous bytes.
bool Channel::make_room() {
    if (!input_) {
        input_ = loop_.chunks().take_large();
        begin_ = end_ = 0;
        return true;
    }
    if (begin_ == end_ && !input_.is_shared()) begin_ = end_ = 0;
    if (input_->capacity - end_ >= least_read) return true;
    size_t unread = end_ - begin_;
    // The unread part is all of a chunk: its reader needs a larger one (it has a limit of its own).
    size_t bytes = unread + least_read > large_chunk_bytes ? 2 * unread + least_read : large_chunk_bytes;
    ChunkRef fresh = loop_.chunks().take_for(bytes);
    std::memcpy(fresh->data(), input_->data() + begin_, unread);
    input_ = std::move(fresh);
    begin_ = 0;
    end_ = static_cast<uint32_t>(unread);
    return true;
}

// Between turns an idle connection holds no chunk, and one with a few unread bytes a small one.
void Channel::compact() {
    if (tls_) tls_->let_go_of_buffers();
    if (!input_) return;
    uint32_t unread = end_ - begin_;
    if (unread == 0) {
        input_.reset();
        begin_ = end_ = 0;
    } else if (input_->capacity > small_chunk_bytes && unread <= small_chunk_bytes / 2) {
        ChunkRef small = loop_.chunks().take_small();
        std::memcpy(small->data(), input_->data() + begin_, unread);
        input_ = std::move(small);
        begin_ = 0;
        end_ = unread;
    }
}

void Channel::commit(size_t bytes) {
    output_.commit(bytes);
    want_flush();
}

void Channel::write(std::string_view bytes) {
    output_.copy(loop_.chunks(), bytes);
    want_flush();
}

void Channel::link(const Piece& piece) {
    output_.append(loop_.chunks(), piece.chunk, piece.view());
    want_flush();
}

void Channel::shut() {
    shut_ = true;
    want_flush();
}

void Channel::finish(bool more_may_come) {
    shut();
    finishing_ = true;
    nothing_comes_ = !more_may_come && input().empty() && !readable_;
    paused_ = false;
    discard_input();
    if (readable_) loop_.turn().mark(user_);  // its run() resumes
}

void Channel::flush(Time now) {
    if (fd_ < 0 || connecting_ || dead_) return;
    if (tls_ && !seal()) return fail(EPROTO);
    Bytes& out = wire_output();
    while (!out.empty() && writable_ && !write_failed_) {
        iovec parts[most_pieces];
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = static_cast<size_t>(out.gather(parts, most_pieces));
        size_t all = out.size();
        ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) {
                writable_ = false;
            } else if (errno == ENOBUFS || errno == ENOMEM) {
                want_flush();  // the kernel is short of memory and tells nobody when that is over: ask again
            } else {
                error_ = errno;
                write_failed_ = true;
            }
            break;
        }
        bytes_written_ += static_cast<uint64_t>(n);
        out.drop(static_cast<size_t>(n));
        last_sent_ = now;
        if (static_cast<size_t>(n) < all && message.msg_iovlen < most_pieces) writable_ = false;
    }
    if (write_failed_) {
        output_.clear();  // nobody will read it; what the other side had to say may still be readable
        out.clear();
        loop_.turn().mark(user_);
    }
    if (is_unix_ && !write_failed_) watch(out.empty() ? EV_READ | EV_CLOSED : EV_READ | EV_WRITE | EV_CLOSED);
    if (output_bytes() == 0 && shut_ && !shut_done_) {
        if (!nothing_comes_) ::shutdown(fd_, SHUT_WR);
        shut_done_ = true;
        if (finishing_ || tell_when_drained_) loop_.turn().mark(user_);
    }
    if (tell_when_drained_ && output_bytes() < most_output / 2) {
        tell_when_drained_ = false;
        loop_.turn().mark(user_);
    }
}

void Channel::fail(int error) {
    error_ = error;
    dead_ = write_failed_ = true;
    connecting_ = false;
    readable_ = false;
    loop_.turn().mark(user_);
}

}  // namespace penstock
