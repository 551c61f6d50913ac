#include "workers/free_port.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "workers/descriptor.h"

using namespace penstock;

namespace {

Descriptor bind_port(uint16_t port) {
    Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
    return socket;
}

}  // namespace

TEST_CASE("a worker's port can be bound and is nobody else's") {
    std::mt19937_64 random(7);
    std::set<uint16_t> taken;
    for (int i = 0; i < 50; ++i) {
        auto port = free_port(random, taken);
        REQUIRE(port);
        CHECK(*port >= 10000);
        CHECK(taken.insert(*port).second);
        CHECK(bind_port(*port));
    }
}

TEST_CASE("a port in use is not given, and neither is one that another worker may be about to bind") {
    std::mt19937_64 random(11);
    auto port = free_port(random, {});
    REQUIRE(port);

    std::mt19937_64 same(11);
    auto second = free_port(same, {*port});
    REQUIRE(second);
    CHECK(*second != *port);

    std::mt19937_64 again(11);
    Descriptor user = bind_port(*port);
    REQUIRE(user);
    auto third = free_port(again, {});
    REQUIRE(third);
    CHECK(*third != *port);
}
