// The part of a channel that speaks TLS.
#include <cassert>
#include <cerrno>
#include <sys/socket.h>
#include <sys/uio.h>

#include "net/channel.h"
#include "net/tls.h"

namespace penstock {

Bytes& Channel::sealed_output() const { return tls_->output(); }

void Channel::secure(std::unique_ptr<Tls> tls) {
    assert(!tls_ && output_.empty() && !connecting_);
    tls_ = std::move(tls);
    handshaking_ = true;
    if (fd_ < 0 || begin_ == end_) return;
    tls_->take_input(std::move(input_), begin_, end_);
    begin_ = end_ = 0;
    readable_ = true;
}

// As recv(), but plaintext; at most one read of the socket. Without room only the handshake goes on.
ssize_t Channel::receive_sealed(uint32_t room) {
    size_t got = 0;
    char* into = input_ ? input_->data() + end_ : nullptr;
    Tls::Read read = tls_->read(into, room, got);
    bool ended = false;
    int error = EAGAIN;
    if (read == Tls::Read::more && socket_readable_) {
        std::span<char> space = tls_->room();
        ssize_t n = ::recv(fd_, space.data(), space.size(), 0);
        if (n < 0) error = errno;
        ended = n == 0;
        socket_readable_ = error == EINTR || n == static_cast<ssize_t>(space.size()) || (n > 0 && fin_seen_);
        if (n > 0) {
            bytes_read_ += static_cast<uint64_t>(n);
            tls_->received(static_cast<size_t>(n));
            read = tls_->read(into, room, got);
        }
    }
    if (handshaking_ && tls_->is_established()) {
        handshaking_ = false;
        loop_.turn().mark(user_);
    }
    if (!tls_->output().empty()) want_flush();
    readable_ = socket_readable_ || tls_->has_input();
    if (ended) {
        truncated_ = true;
        return 0;
    }
    switch (read) {
        case Tls::Read::bytes: return static_cast<ssize_t>(got);
        case Tls::Read::end: readable_ = false; return 0;
        case Tls::Read::more: errno = error; return -1;
        case Tls::Read::failed: break;
    }
    errno = EPROTO;
    return -1;
}

// All of a turn's output becomes records. What can be said only once the handshake is done waits for it.
bool Channel::seal() {
    if (handshaking_ || write_failed_) return true;
    if (!tls_->write(output_)) return false;
    if (shut_) tls_->close();
    return true;
}

void Channel::finish_handshake() {
    assert(tls_ && tls_->failure() != TlsFailure::none);
    Bytes& alert = tls_->output();
    for (; !alert.empty(); alert.drop_piece()) output_.copy(loop_.chunks(), alert.front());
    tls_.reset();
    error_ = 0;
    dead_ = write_failed_ = handshaking_ = false;
    readable_ = socket_readable_;
    finish();
}

// Closing without a word would look like a truncation. What does not fit the socket now is not said: nobody
// waits for it.
void Channel::say_goodbye() {
    if (cut_ || shut_done_ || reset_ || !output_.empty()) return;
    bool failed = tls_->failure() != TlsFailure::none;  // then the output is an alert
    if (!failed && (dead_ || write_failed_ || handshaking_ || !tls_->output().empty())) return;
    tls_->close();
    iovec parts[4];
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(tls_->output().gather(parts, 4));
    if (message.msg_iovlen > 0) ::sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace penstock
