#include "net/resolver.h"

#include <algorithm>
#include <cstring>
#include <event2/dns.h>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <netinet/in.h>

#include "base/text.h"

namespace penstock {

namespace {

SocketAddress ipv4(const char* ip, uint16_t port) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip, sizeof in.sin_addr);
    SocketAddress out;
    std::memcpy(&out.storage, &in, sizeof in);
    out.size = sizeof in;
    return out;
}

SocketAddress ipv6(const char* ip, uint16_t port) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, ip, sizeof in.sin6_addr);
    SocketAddress out;
    std::memcpy(&out.storage, &in, sizeof in);
    out.size = sizeof in;
    return out;
}

}  // namespace

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
    evdns_set_log_fn([](int, const char*) {});  // whoever asks tells what came of it
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
    port_ = port;
    if (find_in_hosts(host)) return;
    ask(Family::ipv4, host);
    ask(Family::ipv6, host);
}

// A name that stands there is not asked for anywhere else, as everywhere.
bool Lookup::find_in_hosts(const std::string& host) {
    std::ifstream file("/etc/hosts");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::array<Answer, families> found;
    for (const std::string& ip : addresses_in_hosts(text, host)) {
        const bool is_ipv6 = ip.find(':') != ip.npos;
        const auto parsed =
            parse_address(fmt::format(fmt::runtime(is_ipv6 ? "[{}]:{}" : "{}:{}"), ip, port_));
        if (!parsed || parsed->kind == Address::Kind::name) continue;
        if (const auto address = socket_address(*parsed)) found[is_ipv6].addresses.push_back(*address);
    }
    if (found[0].addresses.empty() && found[1].addresses.empty()) return false;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        Answer& answer = found[static_cast<size_t>(family)];
        answer.kind = answer.addresses.empty() ? Answer::Kind::none : Answer::Kind::found;
        answered(family, std::move(answer));
    }
    return true;
}

void Lookup::ask(Family family, const std::string& host) {
    auto* question = new Question{this, family};
    asked_[static_cast<size_t>(family)] = question;
    auto* resolve = family == Family::ipv4 ? evdns_base_resolve_ipv4 : evdns_base_resolve_ipv6;
    if (!resolve(resolver_.dns_, host.c_str(), 0, on_answer, question))
        on_answer(DNS_ERR_UNKNOWN, 0, 0, 0, nullptr, question);  // it was not taken, and is not given back
}

std::optional<Lookup::Answer> Lookup::take(Family family) {
    return std::exchange(answers_[static_cast<size_t>(family)], std::nullopt);
}

void Lookup::on_answer(int error, char type, int count, int, void* addresses, void* question) {
    const std::unique_ptr<Question> asked(static_cast<Question*>(question));
    if (!asked->asker) return;
    Answer answer;
    const size_t size = type == DNS_IPv6_AAAA ? sizeof(in6_addr) : sizeof(in_addr);
    for (int i = 0; error == DNS_ERR_NONE && i < count; ++i) {
        const char* ip = static_cast<const char*>(addresses) + static_cast<size_t>(i) * size;
        const SocketAddress address =
            type == DNS_IPv6_AAAA ? ipv6(ip, asked->asker->port_) : ipv4(ip, asked->asker->port_);
        const bool is_known = std::ranges::any_of(
            answer.addresses, [&](const SocketAddress& one) { return one.ip() == address.ip(); });
        if (!is_known) answer.addresses.push_back(address);
    }
    const bool has_none = error == DNS_ERR_NONE || error == DNS_ERR_NOTEXIST || error == DNS_ERR_NODATA;
    answer.kind = !answer.addresses.empty() ? Answer::Kind::found
                  : has_none                ? Answer::Kind::none
                                            : Answer::Kind::failed;
    answer.why = evdns_err_to_string(error);
    asked->asker->answered(asked->family, std::move(answer));
}

void Lookup::answered(Family family, Answer&& answer) {
    const auto i = static_cast<size_t>(family);
    asked_[i] = nullptr;
    answers_[i] = std::move(answer);
    resolver_.loop_.turn().mark(owner_);
}

std::vector<std::string> addresses_in_hosts(std::string_view file, std::string_view name) {
    constexpr std::string_view blank = " \t\r";
    std::vector<std::string> found;
    while (!file.empty()) {
        std::string_view line = file.substr(0, file.find('\n'));
        file.remove_prefix(std::min(line.size() + 1, file.size()));
        line = line.substr(0, line.find('#'));
        std::string_view ip;
        while (true) {
            line.remove_prefix(std::min(line.find_first_not_of(blank), line.size()));
            const std::string_view word = line.substr(0, line.find_first_of(blank));
            if (word.empty()) break;
            line.remove_prefix(word.size());
            if (ip.empty())
                ip = word;
            else if (lower_case(word) == lower_case(name) && std::ranges::find(found, ip) == found.end())
                found.emplace_back(ip);
        }
    }
    return found;
}

}  // namespace penstock
