#include "net/listener.h"

#include <cerrno>
#include <sys/socket.h>
#include <unistd.h>

namespace penstock {

Listener::Listener(Loop& loop, Taker& taker, int fd, unsigned number)
    : loop_(loop), taker_(taker), fd_(fd), number_(number), address_(local_address(fd)), again_(*this) {
    event_assign(&event_, loop_.base(), fd_, EV_READ | EV_PERSIST, on_readable, this);
    event_add(&event_, nullptr);
}

Listener::~Listener() {
    unlink();
    if (fd_ < 0) return;
    if (!paused_) event_del(&event_);
    close_socket();
}

void Listener::on_readable(int, short, void* self) { static_cast<Listener*>(self)->accept_some(most_a_turn); }

bool Listener::accept_some(int most) {
    for (int i = 0; i < most; ++i) {
        if (!taker_.has_room()) {
            pause(0);
            return false;
        }
        SocketAddress from;
        from.size = sizeof from.storage;
        int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&from.storage), &from.size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            taker_.accepted(*this, fd, from);
            continue;
        }
        switch (errno) {
            case EINTR:
            case ECONNABORTED: continue;
            case EAGAIN: return false;
            case EMFILE:
            case ENFILE:
            case ENOBUFS:
            case ENOMEM: pause(errno); return false;
            default: continue;  // an error of that connection (accept(2), "Error handling")
        }
    }
    return true;
}

void Listener::pause(int error) {
    if (!paused_) {
        taker_.accept_paused(error);
        event_del(&event_);
        paused_ = true;
    }
    loop_.turn().arm(again_, loop_.now() + pause_time);
}

void Listener::resume() {
    if (!paused_ || fd_ < 0) return;
    paused_ = false;
    again_.disarm();
    event_add(&event_, nullptr);
}

void Listener::close() {
    if (fd_ < 0) return;
    while (accept_some(most_a_turn)) {
    }
    if (!paused_) event_del(&event_);
    again_.disarm();
    close_socket();
}

void Listener::close_socket() {
    ::close(fd_);
    fd_ = -1;
    remove_unix_path(address_);
}

void Listener::run(Time) { resume(); }

}  // namespace penstock
