#include "net/socket.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace penstock {

namespace {

const sockaddr_in& in4(const SocketAddress& a) { return reinterpret_cast<const sockaddr_in&>(a.storage); }
const sockaddr_in6& in6(const SocketAddress& a) { return reinterpret_cast<const sockaddr_in6&>(a.storage); }

tl::unexpected<Error> errno_failure(const std::string& what) {
    return failure(fmt::format("{}: {}", what, std::strerror(errno)));
}

// True where a connect() shows that nobody listens behind this path any more.
bool is_stale(const SocketAddress& address) {
    Dialed probe = dial(address);
    if (probe.fd >= 0) ::close(probe.fd);
    return probe.error == ECONNREFUSED;
}

void set(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); }

}  // namespace

uint16_t SocketAddress::port() const {
    if (storage.ss_family == AF_INET) return ntohs(in4(*this).sin_port);
    if (storage.ss_family == AF_INET6) return ntohs(in6(*this).sin6_port);
    return 0;
}

std::array<uint8_t, 16> SocketAddress::ip() const {
    std::array<uint8_t, 16> out{};
    if (storage.ss_family == AF_INET) {
        out[10] = out[11] = 0xff;
        std::memcpy(&out[12], &in4(*this).sin_addr, 4);
    } else if (storage.ss_family == AF_INET6) {
        std::memcpy(out.data(), &in6(*this).sin6_addr, 16);
    }
    return out;
}

std::string SocketAddress::ip_text() const {
    char text[INET6_ADDRSTRLEN] = "unix";
    if (storage.ss_family == AF_INET) inet_ntop(AF_INET, &in4(*this).sin_addr, text, sizeof text);
    if (storage.ss_family == AF_INET6) {
        const in6_addr& ip = in6(*this).sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&ip))
            inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
        else
            inet_ntop(AF_INET6, &ip, text, sizeof text);
    }
    return text;
}

std::string SocketAddress::text() const {
    if (storage.ss_family == AF_INET) return fmt::format("{}:{}", ip_text(), port());
    if (storage.ss_family == AF_INET6) return fmt::format("[{}]:{}", ip_text(), port());
    const auto& un = reinterpret_cast<const sockaddr_un&>(storage);
    size_t length = size > offsetof(sockaddr_un, sun_path) ? size - offsetof(sockaddr_un, sun_path) : 0;
    if (length == 0) return "unix:";
    if (un.sun_path[0] == '\0') return fmt::format("unix:@{}", std::string_view(un.sun_path + 1, length - 1));
    return fmt::format("unix:{}", std::string_view(un.sun_path, strnlen(un.sun_path, length)));
}

Result<SocketAddress> socket_address(const Address& address) {
    SocketAddress out;
    switch (address.kind) {
        case Address::Kind::tcp4: {
            auto& to = reinterpret_cast<sockaddr_in&>(out.storage);
            to.sin_family = AF_INET;
            to.sin_port = htons(address.port);
            if (inet_pton(AF_INET, address.host.c_str(), &to.sin_addr) != 1)
                return failure(fmt::format("{} is no IPv4 address", address.host));
            out.size = sizeof to;
            return out;
        }
        case Address::Kind::tcp6: {
            auto& to = reinterpret_cast<sockaddr_in6&>(out.storage);
            to.sin6_family = AF_INET6;
            to.sin6_port = htons(address.port);
            if (inet_pton(AF_INET6, address.host.c_str(), &to.sin6_addr) != 1)
                return failure(fmt::format("{} is no IPv6 address", address.host));
            out.size = sizeof to;
            return out;
        }
        case Address::Kind::unix: {
            auto& to = reinterpret_cast<sockaddr_un&>(out.storage);
            to.sun_family = AF_UNIX;
            if (address.path.empty() || address.path.size() >= sizeof to.sun_path)
                return failure(fmt::format("unix socket path {} is longer than {} bytes", address.path,
                                           sizeof to.sun_path - 1));
            std::memcpy(to.sun_path, address.path.data(), address.path.size());
            bool abstract = address.path[0] == '@';
            if (abstract) to.sun_path[0] = '\0';
            out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() +
                                              (abstract ? 0 : 1));
            return out;
        }
        case Address::Kind::name: break;
    }
    return failure(fmt::format("{} is a name, not an address", address.text));
}

Result<int> open_listener(const SocketAddress& address, bool shared, int backlog) {
    int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno_failure("socket");
    auto give_up = [&](const char* call) {
        auto error = errno_failure(fmt::format("cannot listen on {}: {}", address.text(), call));
        ::close(fd);
        return error;
    };
    if (address.is_unix()) {
        remove_unix_path(address);
    } else {
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (shared) set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        if (address.storage.ss_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1);  // accepted sockets inherit it: one call less each
    }
    if (::bind(fd, address.get(), address.size) != 0) return give_up("bind");
    if (::listen(fd, backlog) != 0) return give_up("listen");
    return fd;
}

void remove_unix_path(const SocketAddress& address) {
    if (!address.is_unix()) return;
    const char* path = reinterpret_cast<const sockaddr_un&>(address.storage).sun_path;
    struct stat found;
    if (path[0] && ::lstat(path, &found) == 0 && S_ISSOCK(found.st_mode) && is_stale(address)) ::unlink(path);
}

SocketAddress local_address(int fd) {
    SocketAddress out;
    out.size = sizeof out.storage;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&out.storage), &out.size);
    return out;
}

Dialed dial(const SocketAddress& address) {
    int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return {-1, errno};
    if (!address.is_unix()) no_delay(fd);
    int error = ::connect(fd, address.get(), address.size) == 0 ? 0 : errno;
    if (error == EINTR) error = EINPROGRESS;
    return {fd, error};
}

int socket_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

void reset_on_close(int fd) {
    linger hard{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

void no_delay(int fd) { set(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

bool both_ways_closed(int fd) {
    pollfd p{fd, POLLRDHUP, 0};
    return ::poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

}  // namespace penstock
