#include "net/resolver.h"

#include <algorithm>
#include <cstring>
#include <event2/dns.h>
#include <event2/util.h>
#include <fmt/format.h>

namespace penstock {

struct Lookup::Question {
    Lookup* asker;  // null: it is gone
    Family family;
};

Resolver::~Resolver() {
    if (!dns_) return;
    evdns_base_free(dns_, 1);
    // The questions that this fails are given back from the event base.
    event_base_loop(loop_.base(), EVLOOP_NONBLOCK);
}

Result<> Resolver::open(std::span<const Address> nameservers, Duration timeout, uint32_t attempts) {
    dns_ = evdns_base_new(loop_.base(), EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!dns_) return failure("resolver: libevent's evdns does not start");
    const int parts =
        DNS_OPTION_SEARCH | DNS_OPTION_MISC | (nameservers.empty() ? DNS_OPTION_NAMESERVERS : 0);
    // Without such a file evdns asks 127.0.0.1, as resolv.conf(5) says.
    evdns_base_resolv_conf_parse(dns_, parts, "/etc/resolv.conf");
    for (const Address& nameserver : nameservers) {
        auto address = socket_address(nameserver);
        if (!address) return failure(fmt::format("resolver.nameservers: {}", address.error().message));
        if (evdns_base_nameserver_sockaddr_add(dns_, address->get(), address->size, 0) != 0)
            return failure(fmt::format("resolver.nameservers: {} cannot be used", nameserver.text));
    }
    evdns_base_set_option(dns_, "timeout:", fmt::format("{:.3f}", seconds(timeout)).c_str());
    evdns_base_set_option(dns_, "attempts:", fmt::format("{}", attempts).c_str());
    return {};
}

Lookup::~Lookup() {
    for (Question* question : asked_)
        if (question) question->asker = nullptr;
}

void Lookup::ask(const std::string& host, uint16_t port) {
    evdns_base_clear_host_addresses(resolver_.dns_);
    evdns_base_load_hosts(resolver_.dns_, "/etc/hosts");
    const std::string service = fmt::format("{}", port);
    for (size_t i = 0; i < families; ++i) {
        evutil_addrinfo hints{};
        hints.ai_family = i == 0 ? AF_INET : AF_INET6;
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_protocol = IPPROTO_TCP;
        hints.ai_flags = EVUTIL_AI_NUMERICSERV;
        auto* question = new Question{this, static_cast<Family>(i)};
        asked_[i] = question;  // what stands in /etc/hosts is answered within the call
        evdns_getaddrinfo(resolver_.dns_, host.c_str(), service.c_str(), &hints, on_answer, question);
    }
}

std::optional<Lookup::Answer> Lookup::take(Family family) {
    return std::exchange(answers_[static_cast<size_t>(family)], std::nullopt);
}

void Lookup::on_answer(int error, evutil_addrinfo* found, void* question) {
    auto* asked = static_cast<Question*>(question);
    Answer answer;
    for (evutil_addrinfo* at = found; at; at = at->ai_next) {
        SocketAddress address;
        std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
        address.size = static_cast<socklen_t>(at->ai_addrlen);
        const bool is_known = std::ranges::any_of(
            answer.addresses, [&](const SocketAddress& one) { return one.ip() == address.ip(); });
        if (!is_known) answer.addresses.push_back(address);
    }
    if (found) evutil_freeaddrinfo(found);
    const bool has_none =
        error == EVUTIL_EAI_NONAME || error == EVUTIL_EAI_NODATA || error == EVUTIL_EAI_ADDRFAMILY;
    answer.kind = !answer.addresses.empty() ? Answer::Kind::found
                  : has_none || error == 0  ? Answer::Kind::none
                                            : Answer::Kind::failed;
    if (error != 0) answer.why = evutil_gai_strerror(error);
    if (Lookup* asker = asked->asker) {
        const auto i = static_cast<size_t>(asked->family);
        asker->asked_[i] = nullptr;
        asker->answers_[i] = std::move(answer);
        asker->resolver_.loop_.turn().mark(asker->owner_);
    }
    delete asked;
}

}  // namespace penstock
