// Sockets as the kernel has them: addresses, listening, connecting. Every descriptor made here is
// non-blocking and close-on-exec. No name is resolved here: an Address of kind `name` is an error.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/address.h"
#include "base/error.h"

namespace penstock {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;

    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    bool is_unix() const { return storage.ss_family == AF_UNIX; }
    uint16_t port() const;               // 0 for unix
    std::array<uint8_t, 16> ip() const;  // IPv4 as ::ffff:a.b.c.d; zero for unix
    std::string ip_text() const;         // without port; "unix" for a unix socket
    std::string text() const;            // as one writes it: 127.0.0.1:80, [::1]:80, unix:/path
};

Result<SocketAddress> socket_address(const Address& address);

// A listening socket. With `shared`, SO_REUSEPORT lets every loop have one of its own. A unix path that
// nobody listens on any more is removed first.
Result<int> open_listener(const SocketAddress& address, bool shared, int backlog = 65535);
SocketAddress local_address(int fd);
void remove_unix_path(const SocketAddress& address);  // of one that nobody listens on any more; else nothing

// The socket that connects, and errno of connect(): 0 when it is connected already, EINPROGRESS usually;
// EAGAIN on a unix socket whose backlog is full. fd is -1 when there is no socket at all.
struct Dialed {
    int fd;
    int error;
};
Dialed dial(const SocketAddress& address);

int socket_error(int fd);     // SO_ERROR, which this clears
void reset_on_close(int fd);  // closing it sends RST: the other side sees a cut, not an end
void no_delay(int fd);
bool both_ways_closed(int fd);  // unix sockets: POLLHUP, where a half-close shows POLLRDHUP alone

}  // namespace penstock
