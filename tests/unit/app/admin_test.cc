#include "app/admin.h"

#include <chrono>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <optional>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "app/admin_client.h"
#include "net/socket.h"
#include "proxy/stats.h"

using namespace penstock;

namespace {

struct FixedStatus final : StatusSource {
    FixedStatus() {
        value.version = "0.1.0";
        value.state = "ready";
        value.upstreams.emplace_back().name = "ocr";
        value.upstreams.back().serving = "serving";
    }
    Status status() override { return value; }
    Status value;
};

struct Pages {
    FixedStatus source;
    StatsBook book;
    AdminPages pages{book.series(), source};

    Page get(std::string_view target) { return pages.page(Method::get, target); }
};

// An admin listener with its loop in a thread of its own, and blocking clients in front.
struct Running : Pages {
    Running() {
        auto address = socket_address(*parse_address("127.0.0.1:0"));
        auto fd = open_listener(*address, false);
        REQUIRE(fd);
        admin.emplace(loop, *fd, pages);
        where = admin->address();
        thread = std::thread([this] { loop.run(); });
    }
    ~Running() {
        loop.stop();
        thread.join();
        admin.reset();
    }

    Loop loop{0};
    std::optional<Admin> admin;
    std::string where;
    std::thread thread;
};

struct Client {
    explicit Client(const Running& running) {
        auto to = *socket_address(*parse_address(running.where));
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        timeval patience{20, 0};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        REQUIRE(connect(fd, to.get(), to.size) == 0);
    }
    ~Client() { close(fd); }
    Client(const Client&) = delete;

    void send(std::string_view text) {
        REQUIRE(::send(fd, text.data(), text.size(), MSG_NOSIGNAL) == ssize_t(text.size()));
    }
    // Up to the end of what `end` names, or of the connection.
    std::string read_until(std::string_view end) {
        std::string text;
        char c;
        while (!text.ends_with(end) && recv(fd, &c, 1, 0) == 1) text += c;
        return text;
    }
    std::string read_to_end() {
        std::string text;
        char buffer[4096];
        for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;)
            text.append(buffer, static_cast<size_t>(n));
        return text;
    }
    int fd;
};

}  // namespace

TEST_CASE("the pages of the admin address") {
    Pages admin;
    CHECK(admin.get("/healthz").status == 200);
    CHECK(admin.get("/readyz").status == 200);
    CHECK(admin.get("/metrics?x=1").body.find("penstock_build_info") != std::string::npos);
    CHECK(admin.get("/metrics").content_type == "text/plain; version=0.0.4; charset=utf-8");
    CHECK(admin.get("/status").body.find("\"ocr\"") != std::string::npos);
    CHECK(admin.get("/status").content_type == "application/json");
    CHECK(admin.get("/").body.find("/metrics") != std::string::npos);
    CHECK(admin.get("http://x/healthz").status == 200);
    CHECK(admin.get("/healthz/").status == 404);
    CHECK(admin.get("/?next=http://x/healthz").status == 200);
    CHECK(admin.get("*").status == 404);
}

TEST_CASE("pages are only read") {
    Pages admin;
    CHECK(admin.pages.page(Method::head, "/metrics").status == 200);
    Page page = admin.pages.page(Method::post, "/status");
    CHECK(page.status == 405);
    CHECK(page.allow == "GET, HEAD");
    CHECK(admin.pages.page(Method::post, "/nothing").status == 404);
}

TEST_CASE("readyz says 503 and why, while healthz stays 200") {
    Pages admin;
    admin.source.value.upstreams[0].serving = "coming";
    CHECK(admin.get("/readyz").status == 503);
    CHECK(admin.get("/readyz").body.find("ocr: coming") != std::string::npos);
    admin.source.value.state = "draining";
    CHECK(admin.get("/readyz").body == "draining\n");
    CHECK(admin.get("/healthz").status == 200);
}

TEST_CASE("a page is asked for and comes, over a real socket") {
    Running running;
    auto reply = ask_admin(*parse_address(running.where), "/status");
    REQUIRE(reply);
    CHECK(reply->status == 200);
    CHECK(reply->body == running.get("/status").body);
    CHECK(ask_admin(*parse_address(running.where), "/nothing")->status == 404);
}

TEST_CASE("a connection serves several requests, pipelined ones too, until the client wants no more") {
    Running running;
    Client client(running);
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.read_until("ok\n").starts_with("HTTP/1.1 200 OK\r\n"));
    client.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    std::string head = client.read_until("\r\n\r\n");
    CHECK(head.find("content-length: 3\r\n") != std::string::npos);
    CHECK(client.read_until("ready\n").starts_with("HTTP/1.1 200 OK\r\n"));
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    std::string last = client.read_to_end();
    CHECK(last.find("connection: close\r\n") != std::string::npos);
    CHECK(last.ends_with("\r\n\r\nok\n"));
}

TEST_CASE("a request that comes byte by byte is a request") {
    Running running;
    Client client(running);
    for (char c : std::string("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")) client.send({&c, 1});
    CHECK(client.read_until("ok\n").ends_with("ok\n"));
}

TEST_CASE("an HTTP/1.0 client without keep-alive gets its page and the end") {
    Running running;
    Client client(running);
    client.send("GET /healthz HTTP/1.0\r\n\r\n");
    CHECK(client.read_to_end().ends_with("\r\n\r\nok\n"));
}

TEST_CASE("a client that shuts its writing side still gets its page") {
    Running running;
    Client client(running);
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(client.fd, SHUT_WR);
    CHECK(client.read_to_end().ends_with("\r\n\r\nok\n"));
}

TEST_CASE("rubbish is refused and the connection ends") {
    Running running;
    for (std::string_view rubbish :
         {"\x16\x03\x01 hello\r\n\r\n", "GET /healthz HTTP/1.1\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"}) {
        Client client(running);
        client.send(rubbish);
        std::string reply = client.read_to_end();
        CHECK(reply.starts_with("HTTP/1.1 "));
        CHECK(reply.find("connection: close\r\n") != std::string::npos);
        CHECK(reply[9] != '2');
    }
    Client client(running);
    client.send("GET /" + std::string(10'000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.read_to_end().starts_with("HTTP/1.1 414 "));
}

TEST_CASE("a request with a body is answered, and its connection ends") {
    Running running;
    Client client(running);
    client.send("POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    std::string reply = client.read_to_end();
    CHECK(reply.starts_with("HTTP/1.1 405 "));
    CHECK(reply.find("allow: GET, HEAD\r\n") != std::string::npos);
}

TEST_CASE("a page of megabytes comes whole, also to a slow reader") {
    Running running;
    {
        Stats stats(running.book);
        UpstreamLabel ocr = running.book.upstream("ocr");
        for (int i = 0; i < 200; ++i)
            stats.request_ended({.upstream = ocr,
                                 .model = stats.model(ocr, "model-" + std::to_string(i)),
                                 .code = 200,
                                 .whole = 1s,
                                 .queue = 1s,
                                 .backend = 1s,
                                 .first_byte = 1s});
    }
    Client client(running);
    client.send("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Others are served while this one does not read.
    CHECK(ask_admin(*parse_address(running.where), "/healthz")->status == 200);
    std::string reply = client.read_to_end();
    size_t body = reply.find("\r\n\r\n") + 4;
    CHECK(reply.size() > 1 << 20);
    CHECK(reply.find("content-length: " + std::to_string(reply.size() - body) + "\r\n") < body);
}

TEST_CASE("clients that connect and say nothing do not keep others out") {
    Running running;
    std::vector<std::unique_ptr<Client>> silent;
    for (size_t i = 0; i < Admin::most_connections + 20; ++i)
        silent.push_back(std::make_unique<Client>(running));
    auto reply = ask_admin(*parse_address(running.where), "/healthz");
    REQUIRE(reply);
    CHECK(reply->status == 200);
    CHECK(silent[0]->read_to_end().empty());  // the one that was silent the longest went
}

TEST_CASE("the end of the listener ends what is open, in whatever state it is") {
    std::vector<std::unique_ptr<Client>> clients;
    {
        Running running;
        for (int i = 0; i < 4; ++i) clients.push_back(std::make_unique<Client>(running));
        clients[0]->send("GET /me");
        clients[1]->send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        clients[2]->send("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        clients[2]->read_until("ok\n");
    }
    for (auto& client : clients) client->read_to_end();  // returns
}

TEST_CASE("asking where nobody listens says so") {
    auto fd = open_listener(*socket_address(*parse_address("127.0.0.1:0")), false);
    std::string where = local_address(*fd).text();
    close(*fd);
    auto reply = ask_admin(*parse_address(where), "/status");
    REQUIRE_FALSE(reply);
    CHECK(reply.error().message ==
          "cannot connect to " + where +
              ": Connection refused; is penstock running, and is this its admin address?");
    CHECK_FALSE(ask_admin(*parse_address("unix:/nonexistent/admin.sock"), "/status"));
}

TEST_CASE("asking somebody who says nothing ends with an error") {
    auto fd = open_listener(*socket_address(*parse_address("127.0.0.1:0")), false);
    auto reply = ask_admin(*parse_address(local_address(*fd).text()), "/status", 50ms);
    REQUIRE_FALSE(reply);
    CHECK(reply.error().message.find("timed out") != std::string::npos);
    close(*fd);
}

TEST_CASE("asking somebody who is no penstock says so") {
    auto fd = open_listener(*socket_address(*parse_address("127.0.0.1:0")), false);
    std::thread other([&fd] {
        pollfd ready{*fd, POLLIN, 0};
        poll(&ready, 1, -1);
        int one = accept(*fd, nullptr, nullptr);
        char question[512];
        CHECK(recv(one, question, sizeof question, 0) > 0);  // or the close below would be a reset
        CHECK(send(one, "220 smtp ready\r\n", 16, MSG_NOSIGNAL) == 16);
        close(one);
    });
    auto reply = ask_admin(*parse_address(local_address(*fd).text()), "/status");
    other.join();
    REQUIRE_FALSE(reply);
    CHECK(reply.error().message.find("does not answer as penstock's admin") != std::string::npos);
    close(*fd);
}
