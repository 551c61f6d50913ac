#include "workers/probe.h"

#include <doctest/doctest.h>
#include <functional>
#include <string>
#include <sys/socket.h>
#include <thread>

#include "net/socket.h"
#include "scaffold.h"

using namespace penstock;
using namespace penstock::testing;

namespace {

// A server for one connection, on a thread of its own that does what `serve` says.
class Server {
  public:
    using Serve = std::function<void(int connection)>;

    explicit Server(Serve serve, bool unix_socket = false) {
        auto address = parse_address(unix_socket ? "unix:" + folder_.path() + "/s" : "127.0.0.1:0");
        auto fd = open_listener(*socket_address(*address), false);
        REQUIRE(fd);
        listener_ = Descriptor(*fd);
        address_ = *parse_address(local_address(*fd).text());
        thread_ = std::thread([this, serve = std::move(serve)] {
            pollfd arrival{listener_.number(), POLLIN, 0};
            ::poll(&arrival, 1, static_cast<int>(patience / 1ms));
            Descriptor connection(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC));
            if (connection) serve(connection.number());
        });
    }
    ~Server() { join(); }
    void join() {
        if (thread_.joinable()) thread_.join();
    }
    const Address& address() const { return address_; }

  private:
    Folder folder_;
    Descriptor listener_;
    Address address_;
    std::thread thread_;
};

std::string read_request(int connection) {
    std::string request;
    char c = 0;
    while (request.find("\r\n\r\n") == std::string::npos && ::recv(connection, &c, 1, 0) == 1) request += c;
    return request;
}

void say(int connection, std::string_view bytes) {
    for (ssize_t n;
         !bytes.empty() && (n = ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0;) {
        bytes.remove_prefix(static_cast<size_t>(n));
    }
}

// Until the other side closes; false if it does not.
bool wait_for_close(int connection) {
    char buffer[256];
    for (;;) {
        pollfd end{connection, POLLIN, 0};
        if (::poll(&end, 1, static_cast<int>(patience / 1ms)) != 1) return false;
        if (::recv(connection, buffer, sizeof buffer, 0) <= 0) return true;
    }
}

// A server that answers every request with these bytes and then waits for the close, or closes at once.
Server::Serve answer(std::string bytes, bool close_at_once = false) {
    return [=](int connection) {
        read_request(connection);
        say(connection, bytes);
        if (!close_at_once) wait_for_close(connection);
    };
}

struct Asker final : Task {
    ~Asker() { unlink(); }
    void run(Time) override { ++marks; }

    Probe::Outcome ask(const Address& address, std::string path, uint16_t expect = 0,
                       Duration timeout = patience) {
        marks = 0;
        probe.ask({.address = address, .path = std::move(path), .expect = expect, .timeout = timeout});
        REQUIRE(run_until(loop, [this] { return marks > 0; }));
        CHECK_FALSE(probe.is_asking());
        return probe.outcome();
    }
    Probe::Outcome ask_server(Server::Serve serve, uint16_t expect = 0, Duration timeout = patience) {
        Server server(std::move(serve));
        return ask(server.address(), "/ready", expect, timeout);
    }

    Loop loop{0};
    Probe probe{loop, *this};
    int marks = 0;
};

}  // namespace

TEST_CASE("a 200 is good, over TCP and over a unix socket") {
    for (bool unix_socket : {false, true}) {
        Asker asker;
        std::string request;
        Server server(
            [&](int connection) {
                request = read_request(connection);
                say(connection, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                CHECK(wait_for_close(connection));
            },
            unix_socket);
        auto outcome = asker.ask(server.address(), "/ready?deep=1");
        server.join();
        CHECK(outcome.is_good);
        CHECK(outcome.accepted);
        CHECK(outcome.text == "GET /ready?deep=1 -> 200");
        CHECK(request.starts_with("GET /ready?deep=1 HTTP/1.1\r\nHost: "));
        CHECK(request.find("Connection: close\r\n") != std::string::npos);
    }
}

TEST_CASE("any 2xx is good unless one status is expected") {
    Asker asker;
    CHECK(asker.ask_server(answer("HTTP/1.1 204 No Content\r\n\r\n")).is_good);
    CHECK(asker.ask_server(answer("HTTP/1.0 299 Odd\r\n\r\n", true)).is_good);
    CHECK_FALSE(asker.ask_server(answer("HTTP/1.1 204 No Content\r\n\r\n"), 200).is_good);
    CHECK(asker.ask_server(answer("HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"), 418).is_good);
}

TEST_CASE("any other answer is not good and is told") {
    Asker asker;
    for (const char* status : {"503 Loading", "404 Not Found", "302 Found", "500 Oops"}) {
        auto outcome =
            asker.ask_server(answer(fmt::format("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", status)));
        CHECK_FALSE(outcome.is_good);
        CHECK(outcome.accepted);
        CHECK(outcome.text == "GET /ready -> " + std::string(status, 3));
    }
}

TEST_CASE("interim answers are passed over") {
    Asker asker;
    auto outcome =
        asker.ask_server(answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
                                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    CHECK(outcome.is_good);
}

TEST_CASE("an answer that comes byte by byte is understood") {
    Asker asker;
    auto outcome = asker.ask_server([](int connection) {
        read_request(connection);
        for (char c : std::string("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
            say(connection, {&c, 1});
        wait_for_close(connection);
    });
    CHECK(outcome.is_good);
}

TEST_CASE("nobody listening is told with the error of connect") {
    Asker asker;
    Folder folder;
    auto outcome = asker.ask(*parse_address("unix:" + (folder / "none")), "/ready");
    CHECK_FALSE(outcome.is_good);
    CHECK_FALSE(outcome.accepted);
    CHECK(outcome.text == "connect: No such file or directory");

    Address closed;
    {
        Server server([](int) {});
        closed = server.address();
        asker.ask(closed, "");  // lets its thread end
    }
    outcome = asker.ask(closed, "/ready");
    CHECK(outcome.text == "connect: Connection refused");
}

TEST_CASE("without a path an accepted connection is good and is closed at once") {
    Asker asker;
    bool closed = false;
    Server server([&](int connection) { closed = wait_for_close(connection); });
    auto outcome = asker.ask(server.address(), "");
    server.join();
    CHECK(outcome.is_good);
    CHECK(outcome.accepted);
    CHECK(closed);
}

TEST_CASE("a unix socket whose backlog is full does not block") {
    Folder folder;
    auto address = *parse_address("unix:" + (folder / "s"));
    auto listener = open_listener(*socket_address(address), false, 0);
    REQUIRE(listener);
    Descriptor owner(*listener);
    std::vector<Descriptor> waiting;
    for (int error = 0; error == 0;) {
        Dialed dialed = dial(*socket_address(address));
        waiting.emplace_back(dialed.fd);
        error = dialed.error;
    }
    Asker asker;
    auto outcome = asker.ask(address, "/ready");
    CHECK_FALSE(outcome.is_good);
    CHECK(outcome.is_busy);
    CHECK(outcome.text == "connect: its backlog is full");
    CHECK(asker.ask(address, "").is_good);  // somebody listens: no more was asked
}

TEST_CASE("a server that closes without an answer, or answers rubbish, is not good") {
    Asker asker;
    CHECK(asker.ask_server(answer("", true)).text == "GET /ready: closed without an answer");
    CHECK(asker.ask_server(answer("HTTP/1.1 200 OK\r\nConte", true)).text ==
          "GET /ready: closed without an answer");
    for (const char* rubbish : {"SSH-2.0-OpenSSH_9.2\r\n", "\x16\x03\x01", "HTTP/1.1 200 OK\nX: y\n\n",
                                "HTTP/1.1 2x0 OK\r\n\r\n"}) {
        auto outcome = asker.ask_server(answer(std::string(rubbish) + "\r\n\r\n"));
        CHECK_FALSE(outcome.is_good);
        CHECK(outcome.text.starts_with("GET /ready: no HTTP/1 answer ("));
    }
    auto outcome = asker.ask_server(
        answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"));
    CHECK_FALSE(outcome.is_good);
}

TEST_CASE("a head without end is refused at a bounded size") {
    Asker asker;
    auto outcome = asker.ask_server([](int connection) {
        read_request(connection);
        say(connection, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 5000; ++i) say(connection, fmt::format("X-{}: {}\r\n", i, std::string(100, 'x')));
    });
    CHECK_FALSE(outcome.is_good);
    CHECK(outcome.text.starts_with("GET /ready: no HTTP/1 answer ("));
}

TEST_CASE("a body without end is left at a bounded size and the status counts") {
    Asker asker;
    auto outcome = asker.ask_server([](int connection) {
        read_request(connection);
        say(connection, "HTTP/1.1 200 OK\r\n\r\n");
        std::string block(65536, 'x');
        for (int i = 0; i < 1000; ++i) {
            if (::send(connection, block.data(), block.size(), MSG_NOSIGNAL) < 0) return;
        }
        FAIL_CHECK("read without bound");
    });
    CHECK(outcome.is_good);
}

TEST_CASE("no answer in time is no good and closes the connection") {
    Asker asker;
    bool closed = false;
    Server server([&](int connection) {
        read_request(connection);
        closed = wait_for_close(connection);
    });
    auto outcome = asker.ask(server.address(), "/ready", 0, 50ms);
    server.join();
    CHECK_FALSE(outcome.is_good);
    CHECK(outcome.accepted);
    CHECK(outcome.is_busy);
    CHECK(outcome.text == "GET /ready: no answer in 50ms");
    CHECK(closed);
}

TEST_CASE("an answer whose end does not come in time counts by its status") {
    Asker asker;
    auto outcome = asker.ask_server(answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), 0, 200ms);
    CHECK(outcome.is_good);
}

TEST_CASE("a probe that is cancelled closes its connection and marks nobody") {
    Asker asker;
    bool closed = false;
    Server server([&](int connection) {
        read_request(connection);
        closed = wait_for_close(connection);
    });
    asker.probe.ask({.address = server.address(), .path = "/", .timeout = patience});
    asker.probe.cancel();
    CHECK_FALSE(asker.probe.is_asking());
    server.join();
    CHECK(closed);
    CHECK(asker.marks == 0);
    // And it can be used again.
    CHECK(asker.ask_server(answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).is_good);
}
