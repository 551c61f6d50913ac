// The resolver against a nameserver that the test plays by hand, on loopback.
#include "net/resolver.h"

#include <arpa/inet.h>
#include <cstring>
#include <doctest/doctest.h>
#include <memory>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

namespace penstock {
namespace {

using Family = Lookup::Family;
using Kind = Lookup::Answer::Kind;

class NameServer {
  public:
    struct Query {
        std::string packet;
        sockaddr_in from{};
        bool asks_ipv6() const { return packet[packet.size() - 3] == 28; }
    };

    NameServer() : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in any{};
        any.sin_family = AF_INET;
        any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::bind(socket_, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0);
        address = *parse_address(local_address(socket_).text());
    }
    ~NameServer() { ::close(socket_); }

    std::optional<Query> waiting() {
        char room[512];
        Query query;
        socklen_t size = sizeof query.from;
        const ssize_t n = ::recvfrom(socket_, room, sizeof room, MSG_DONTWAIT,
                                     reinterpret_cast<sockaddr*>(&query.from), &size);
        if (n <= 0) return std::nullopt;
        query.packet.assign(room, static_cast<size_t>(n));
        return query;
    }
    // The next query; turns the loop until it is there.
    Query next(Loop& loop) {
        while (true) {
            if (auto query = waiting()) return *query;
            loop.run_once();
        }
    }
    void answer(const Query& query, const std::vector<std::string>& addresses, int code = 0) {
        std::string out = query.packet;
        out[2] = '\x81';
        out[3] = static_cast<char>(0x80 | code);
        out[7] = static_cast<char>(addresses.size());
        for (const std::string& text : addresses) {
            char ip[16];
            const int family = text.find(':') == text.npos ? AF_INET : AF_INET6;
            REQUIRE(::inet_pton(family, text.c_str(), ip) == 1);
            const char size = family == AF_INET ? 4 : 16;
            out += std::string("\xc0\x0c\0", 3) + (family == AF_INET ? '\x01' : '\x1c');
            out += std::string("\0\x01\0\0\0\x3c\0", 7) + size + std::string(ip, static_cast<size_t>(size));
        }
        ::sendto(socket_, out.data(), out.size(), 0, reinterpret_cast<const sockaddr*>(&query.from),
                 sizeof query.from);
    }

    Address address;

  private:
    int socket_;
};

struct Asker final : Task {
    void run(Time) override { ++marked; }
    ~Asker() { Task::unlink(); }
    int marked = 0;
};

struct World {
    World() {
        REQUIRE(resolver->open({&nameserver.address, 1}, 2s, 1));
        lookup = std::make_unique<Lookup>(*resolver, asker);
    }
    // Answers whatever comes with this code, until that family's answer is there.
    Lookup::Answer take_after(Family family, int code) {
        while (true) {
            if (auto answer = lookup->take(family)) return *answer;
            while (auto query = nameserver.waiting()) nameserver.answer(*query, {}, code);
            if (auto answer = lookup->take(family)) return *answer;
            loop.run_once();
        }
    }
    // Asks, and gives the two queries: IPv4 first.
    std::array<NameServer::Query, 2> ask(const char* host = "gpu.test") {
        lookup->ask(host, 8000);
        auto a = nameserver.next(loop), b = nameserver.next(loop);
        if (a.asks_ipv6()) std::swap(a, b);
        CHECK_FALSE(a.asks_ipv6());
        CHECK(b.asks_ipv6());
        return {a, b};
    }
    Lookup::Answer take(Lookup::Family family) {
        while (true) {
            if (auto answer = lookup->take(family)) return *answer;
            loop.run_once();
        }
    }

    NameServer nameserver;
    Loop loop{0};
    Asker asker;
    std::unique_ptr<Resolver> resolver = std::make_unique<Resolver>(loop);
    std::unique_ptr<Lookup> lookup;
};

TEST_CASE("IPv4 and IPv6 are two questions; their addresses have the port that was asked for, each once") {
    World world;
    auto [v4, v6] = world.ask();
    world.nameserver.answer(v4, {"10.0.0.1", "10.0.0.2", "10.0.0.1"});
    const Lookup::Answer first = world.take(Family::ipv4);
    CHECK(first.kind == Kind::found);
    REQUIRE(first.addresses.size() == 2);
    CHECK(first.addresses[0].text() == "10.0.0.1:8000");
    CHECK(first.addresses[1].text() == "10.0.0.2:8000");
    CHECK(world.lookup->is_asking());
    CHECK_FALSE(world.lookup->take(Family::ipv4));
    world.nameserver.answer(v6, {"fd00::1"});
    const Lookup::Answer second = world.take(Family::ipv6);
    REQUIRE(second.addresses.size() == 1);
    CHECK(second.addresses[0].text() == "[fd00::1]:8000");
    CHECK_FALSE(world.lookup->is_asking());
    CHECK(world.asker.marked > 0);
}

TEST_CASE("that a name has no such address is an answer; that nobody could say is none") {
    World world;
    auto [v4, v6] = world.ask();
    world.nameserver.answer(v4, {});
    world.nameserver.answer(v6, {}, 3);
    CHECK(world.take_after(Family::ipv4, 3).kind ==
          Kind::none);  // also of its search domains, if there are any
    CHECK(world.take_after(Family::ipv6, 3).kind == Kind::none);
    auto [again, again_6] = world.ask();
    world.nameserver.answer(again, {}, 2);
    world.nameserver.answer(again_6, {}, 2);
    const Lookup::Answer answer = world.take_after(Family::ipv4, 2);
    CHECK(answer.kind == Kind::failed);
    CHECK_FALSE(answer.why.empty());
}

TEST_CASE("a name in /etc/hosts has the addresses of every line that it stands in") {
    constexpr std::string_view file =
        "127.0.0.1\tlocalhost  loop\n# 10.0.0.9 gpu\n::1 LOCALHOST\r\n\n10.0.0.1 gpu # 10.0.0.2 "
        "gpu\n10.0.0.1 x gpu\n"
        "10.0.0.3 gpus\n10.0.0.4 gpu";
    using Texts = std::vector<std::string>;
    CHECK(addresses_in_hosts(file, "localhost") == Texts{"127.0.0.1", "::1"});
    CHECK(addresses_in_hosts(file, "loop") == Texts{"127.0.0.1"});
    CHECK(addresses_in_hosts(file, "GPU") == Texts{"10.0.0.1", "10.0.0.4"});
    CHECK(addresses_in_hosts(file, "10.0.0.1").empty());
    CHECK(addresses_in_hosts("", "a").empty());
}

TEST_CASE("/etc/hosts is answered within the call") {
    World world;
    world.lookup->ask("localhost", 80);
    const auto answer = world.lookup->take(Family::ipv4);
    REQUIRE(answer);
    CHECK(answer->kind == Kind::found);
    CHECK(answer->addresses[0].text() == "127.0.0.1:80");
}

TEST_CASE("a lookup may go while it asks, and an answer that comes later finds nobody") {
    World world;
    auto [v4, v6] = world.ask();
    world.lookup.reset();
    world.nameserver.answer(v4, {"10.0.0.1"});
    world.nameserver.answer(v6, {});
    world.lookup = std::make_unique<Lookup>(*world.resolver, world.asker);
    auto [next, next_6] = world.ask("other.test");
    world.nameserver.answer(next, {"10.0.0.3"});
    CHECK(world.take(Family::ipv4).addresses[0].text() == "10.0.0.3:8000");
}

TEST_CASE("a resolver may go while its questions are open, and leaks nothing") {
    World world;
    world.ask();
    world.lookup.reset();
    world.resolver.reset();
}

}  // namespace
}  // namespace penstock
