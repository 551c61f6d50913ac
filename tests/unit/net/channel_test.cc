// A channel over a real socket pair of TCP, turned by hand.
#include "net/channel.h"

#include <array>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

using namespace penstock;

namespace {

// Two ends of a connection over loopback; ours does not block.
std::pair<int, int> connected_pair() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener, 1) == 0);
    REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    const int theirs = ::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(::connect(theirs, reinterpret_cast<sockaddr*>(&address), size) == 0);
    const int ours = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    REQUIRE(ours >= 0);
    ::close(listener);
    return {ours, theirs};
}

// Reads what comes; as soon as the first bytes are read, another one is told more.
struct Reader final : ChannelUser {
    explicit Reader(Loop& loop) : channel(loop, *this) {
        const auto [ours, other] = connected_pair();
        theirs = other;
        channel.adopt(ours, false);
    }
    ~Reader() {
        Task::unlink();
        ::close(theirs);
    }
    void say(std::string_view words) const {
        REQUIRE(::send(theirs, words.data(), words.size(), 0) == static_cast<ssize_t>(words.size()));
    }
    void fill() override {
        got += channel.input();
        channel.discard_input();
        if (tells) std::exchange(tells, nullptr)->say("more");
    }
    void run(Time) override {}

    Channel channel;
    int theirs = -1;
    std::string got;
    Reader* tells = nullptr;
};

}  // namespace

TEST_CASE("bytes that were read together with those before them are no event afterwards") {
    Loop loop(0);
    Reader first(loop), second(loop);
    loop.run_once();  // both are writable: the kernel says so once
    first.tells = &second;
    // Both are ready in one batch. While the first is read the second gets more, which its own read takes
    // along; but the kernel has noted it, and speaks of that socket once more though there is nothing to say.
    first.say("one");
    second.say("two ");
    while (second.got != "two more") loop.run_once();
    const uint32_t before = second.channel.events();
    first.say("a barrier");
    while (first.got != "onea barrier") loop.run_once();
    CHECK(second.channel.events() == before);

    second.say("!");
    while (second.got != "two more!") loop.run_once();
    CHECK(second.channel.events() == before + 1);
}
