#include "app/admin_client.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "net/socket.h"

namespace penstock {

namespace {

constexpr size_t most_reply = 64 * MiB;

class Socket {
  public:
    explicit Socket(int fd) : fd_(fd) {}
    ~Socket() {
        if (fd_ >= 0) ::close(fd_);
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int fd() const { return fd_; }

    // errno; ETIMEDOUT when `until` comes first.
    int wait(short what, Time until) const {
        auto left = std::chrono::ceil<std::chrono::milliseconds>(until - monotonic_now()).count();
        pollfd ready{fd_, what, 0};
        int n = left > 0 ? ::poll(&ready, 1, static_cast<int>(left)) : 0;
        return n > 0 ? 0 : n == 0 ? ETIMEDOUT : errno;
    }

  private:
    int fd_;
};

int send_all(const Socket& socket, std::string_view text, Time until) {
    while (!text.empty()) {
        if (int error = socket.wait(POLLOUT, until)) return error;
        ssize_t n = ::send(socket.fd(), text.data(), text.size(), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return errno;
        if (n > 0) text.remove_prefix(static_cast<size_t>(n));
    }
    return 0;
}

int read_to_end(const Socket& socket, std::string& reply, Time until) {
    char buffer[16 * 1024];
    while (reply.size() < most_reply) {
        if (int error = socket.wait(POLLIN, until)) return error;
        ssize_t n = ::recv(socket.fd(), buffer, sizeof buffer, 0);
        if (n == 0) return 0;
        if (n < 0 && errno != EAGAIN && errno != EINTR) return errno;
        if (n > 0) reply.append(buffer, static_cast<size_t>(n));
    }
    return EMSGSIZE;
}

// HTTP/1.1 NNN reason, fields, an empty line, the body.
Result<AdminReply> parse_reply(const std::string& text, const Address& address) {
    size_t head_end = text.find("\r\n\r\n");
    auto status = text.starts_with("HTTP/1.") && text.size() > 12
                      ? parse_number(std::string_view(text).substr(9, 3))
                      : std::nullopt;
    if (head_end == text.npos || !status)
        return failure(fmt::format("{} does not answer as penstock's admin address would", address.text));
    return AdminReply{static_cast<uint16_t>(*status), text.substr(head_end + 4)};
}

}  // namespace

Result<AdminReply> ask_admin(const Address& address, std::string_view path, Duration timeout) {
    Time until = monotonic_now() + timeout;
    auto failed = [&address](const char* what, int error) {
        return failure(fmt::format("cannot {} {}: {}; is penstock running, and is this its admin address?",
                                   what, address.text, std::strerror(error)));
    };
    auto to = socket_address(address);
    if (!to) return tl::unexpected(to.error());
    auto [fd, error] = dial(*to);
    Socket socket(fd);
    if (error == EINPROGRESS) {
        error = socket.wait(POLLOUT, until);
        if (error == 0) error = socket_error(fd);
    }
    if (error) return failed("connect to", error);

    std::string question =
        fmt::format("GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: penstock\r\nconnection: close\r\n\r\n", path,
                    address.kind == Address::Kind::unix ? "localhost" : address.text);
    if (int e = send_all(socket, question, until)) return failed("ask", e);
    std::string reply;
    if (int e = read_to_end(socket, reply, until)) return failed("read the answer of", e);
    return parse_reply(reply, address);
}

}  // namespace penstock
