// A Resolver finds the addresses of host names without blocking: in /etc/hosts, which is read anew each time,
// else by asking DNS (libevent's evdns). A Lookup is one question, asked again and again; its owner is marked
// whenever something has been answered. All on one loop; the loop outlives the resolver, that its lookups.
//
// The surprising thing: IPv4 and IPv6 are two questions with two outcomes. One may fail while the other is
// answered, and "it has none of these" is an answer, not a failure.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/error.h"
#include "net/loop.h"
#include "net/socket.h"

struct evdns_base;

namespace penstock {

class Resolver {
  public:
    explicit Resolver(Loop& loop) : loop_(loop) {}
    ~Resolver();
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    // No nameservers: those of /etc/resolv.conf. `timeout` is of each of `attempts`.
    Result<> open(std::span<const Address> nameservers, Duration timeout, uint32_t attempts);
    bool is_open() const { return dns_ != nullptr; }

  private:
    friend class Lookup;
    Loop& loop_;
    evdns_base* dns_ = nullptr;
};

class Lookup {
  public:
    enum class Family : uint8_t { ipv4, ipv6 };
    static constexpr size_t families = 2;

    struct Answer {
        enum class Kind : uint8_t { failed, none, found };
        Kind kind = Kind::failed;
        std::vector<SocketAddress> addresses;  // each once
        std::string why;                       // of what was not found
    };

    Lookup(Resolver& resolver, Task& owner) : resolver_(resolver), owner_(owner) {}
    ~Lookup();
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

    void ask(const std::string& host, uint16_t port);
    bool is_asking() const { return asked_[0] || asked_[1]; }
    // What has been answered since this was called last.
    std::optional<Answer> take(Family family);

  private:
    struct Question;
    bool find_in_hosts(const std::string& host);
    void ask(Family family, const std::string& host);
    void answered(Family family, Answer&& answer);
    static void on_answer(int error, char type, int count, int ttl, void* addresses, void* question);

    Resolver& resolver_;
    Task& owner_;
    uint16_t port_ = 0;
    std::array<Question*, families> asked_{};  // evdns gives each back in on_answer, which frees it
    std::array<std::optional<Answer>, families> answers_;
};

// Of a file such as /etc/hosts: what stands before the name, as text.
std::vector<std::string> addresses_in_hosts(std::string_view file, std::string_view name);

}  // namespace penstock
