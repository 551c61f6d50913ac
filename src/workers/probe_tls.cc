// The part of a probe that speaks TLS, and the two calls that do not care.
#include <cerrno>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "net/tls.h"
#include "workers/probe.h"

namespace penstock {

// As send(); under TLS all of it is taken, and may still lie in the sealed output.
ssize_t Probe::put(std::string_view bytes) {
    if (!tls_) return ::send(socket_.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    Bytes plain;
    plain.copy(loop_.chunks(), bytes);
    bool sealed = tls_->write(plain);
    if (!sealed) errno = EPROTO;
    return sealed && send_sealed() ? static_cast<ssize_t>(bytes.size()) : -1;
}

// As recv(), but plaintext.
ssize_t Probe::take(char* into, size_t room) {
    if (!tls_) return ::recv(socket_.number(), into, room, 0);
    while (true) {
        size_t got = 0;
        switch (tls_->read(into, room, got)) {
            case Tls::Read::bytes: return static_cast<ssize_t>(got);
            case Tls::Read::end: return 0;
            case Tls::Read::failed: errno = EPROTO; return -1;
            case Tls::Read::more: break;
        }
        std::span<char> space = tls_->room();
        ssize_t n = ::recv(socket_.number(), space.data(), space.size(), 0);
        if (n <= 0) return n;
        tls_->received(static_cast<size_t>(n));
    }
}

// False: the socket is broken.
bool Probe::send_sealed() {
    for (Bytes& out = tls_->output(); !out.empty();) {
        iovec parts[8];
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = static_cast<size_t>(out.gather(parts, 8));
        ssize_t n = ::sendmsg(socket_.number(), &message, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        out.drop(static_cast<size_t>(n));
    }
    return true;
}

void Probe::shake_hands() {
    char nothing;
    while (!tls_->is_established()) {
        size_t got = 0;
        Tls::Read read = tls_->read(&nothing, 0, got);
        send_sealed();  // a few hundred bytes into an empty socket
        if (read == Tls::Read::failed)
            return finish(false, fmt::format("TLS handshake: {}", tls_->what_failed()));
        if (tls_->is_established()) break;
        std::span<char> space = tls_->room();
        ssize_t n = ::recv(socket_.number(), space.data(), space.size(), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return wait_for(EV_READ);
        if (n <= 0) return finish(false, "TLS handshake: the server closed the connection");
        tls_->received(static_cast<size_t>(n));
    }
    begin();
}

}  // namespace penstock
