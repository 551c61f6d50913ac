#include "app/notify.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace penstock {

namespace {

// A line break in a status would begin another variable.
std::string one_line(std::string_view text) {
    std::string line(text);
    std::replace(line.begin(), line.end(), '\n', ' ');
    return line;
}

}  // namespace

Notify Notify::from_environment() {
    const char* path = std::getenv("NOTIFY_SOCKET");
    Notify notify(path ? path : "");
    ::unsetenv("NOTIFY_SOCKET");
    return notify;
}

void Notify::ready(std::string_view status) const {
    send(fmt::format("READY=1\nSTATUS={}\n", one_line(status)));
}

void Notify::reloading(Time now) const {
    send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\n", now.time_since_epoch() / 1us));
}

void Notify::stopping(std::string_view status) const {
    send(fmt::format("STOPPING=1\nSTATUS={}\n", one_line(status)));
}

void Notify::status(std::string_view status) const { send(fmt::format("STATUS={}\n", one_line(status))); }

// Not connected and not kept: it happens a few times in a process's life, and systemd may be re-executed.
bool Notify::send(std::string_view text) const {
    sockaddr_un to{};
    if (path_.empty() || path_.size() >= sizeof(to.sun_path)) return false;
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, path_.data(), path_.size());
    size_t size = offsetof(sockaddr_un, sun_path) + path_.size();
    if (path_[0] == '@')
        to.sun_path[0] = '\0';
    else
        ++size;  // a path's size counts its end
    int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    ssize_t sent = ::sendto(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                            reinterpret_cast<const sockaddr*>(&to), static_cast<socklen_t>(size));
    ::close(fd);
    return sent == static_cast<ssize_t>(text.size());
}

}  // namespace penstock
