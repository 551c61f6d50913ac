#include "app/notify.h"

#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

using namespace penstock;

namespace {

struct Systemd {  // the other end, at a path of its own
    explicit Systemd(bool abstract) {
        char name[] = "/tmp/penstock_notify_test.XXXXXX";
        folder = mkdtemp(name);
        path = abstract ? "@" + folder : folder + "/notify";
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        std::memcpy(at.sun_path, path.data(), path.size());
        if (abstract) at.sun_path[0] = '\0';
        auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + !abstract);
        REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&at), size) == 0);
    }
    ~Systemd() {
        close(fd);
        unlink(path.c_str());
        rmdir(folder.c_str());
    }
    std::string heard() {
        char buffer[512];
        ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        return n < 0 ? "" : std::string(buffer, static_cast<size_t>(n));
    }
    std::string folder, path;
    int fd;
};

}  // namespace

TEST_CASE("systemd hears how we are, over a path or an abstract socket") {
    for (bool abstract : {false, true}) {
        Systemd systemd(abstract);
        Notify notify(systemd.path);
        CHECK(notify.is_on());
        notify.ready("serving on 127.0.0.1:8000");
        CHECK(systemd.heard() == "READY=1\nSTATUS=serving on 127.0.0.1:8000\n");
        notify.status("a\nREADY=0");
        CHECK(systemd.heard() == "STATUS=a READY=0\n");
        notify.reloading(Time(1500us));
        CHECK(systemd.heard() == "RELOADING=1\nMONOTONIC_USEC=1500\n");
        notify.stopping("3 requests to go");
        CHECK(systemd.heard() == "STOPPING=1\nSTATUS=3 requests to go\n");
    }
}

TEST_CASE("without systemd nothing happens") {
    Notify nobody;
    CHECK_FALSE(nobody.is_on());
    nobody.ready("x");
    Notify("/nonexistent/socket").ready("x");
    Notify(std::string(200, 'x')).ready("x");
}

TEST_CASE("workers do not inherit the socket of systemd") {
    Systemd systemd(false);
    setenv("NOTIFY_SOCKET", systemd.path.c_str(), 1);
    Notify notify = Notify::from_environment();
    CHECK(std::getenv("NOTIFY_SOCKET") == nullptr);
    notify.ready("x");
    CHECK(systemd.heard() == "READY=1\nSTATUS=x\n");
    CHECK_FALSE(Notify::from_environment().is_on());
}
