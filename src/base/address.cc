#include "base/address.h"

#include <algorithm>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <optional>

#include "base/text.h"

namespace penstock {

namespace {

constexpr std::string_view right_address = "write 127.0.0.1:8000, [::1]:8000, name:8000 or unix:/path";
constexpr size_t longest_unix_path = 107;  // sockaddr_un holds 108 bytes with the final zero
constexpr size_t longest_name = 253;

// Both take a copy: inet_pton needs a terminated string, and so must not be shown a zero inside.
std::optional<std::array<uint8_t, 4>> ip4_bytes(std::string_view text) {
    std::array<uint8_t, 4> ip{};
    if (text.find('\0') != text.npos) return std::nullopt;
    if (inet_pton(AF_INET, std::string(text).c_str(), ip.data()) != 1) return std::nullopt;
    return ip;
}

std::optional<std::array<uint8_t, 16>> ip6_bytes(std::string_view text) {
    std::array<uint8_t, 16> ip{};
    if (text.find('\0') != text.npos) return std::nullopt;
    if (inet_pton(AF_INET6, std::string(text).c_str(), ip.data()) != 1) return std::nullopt;
    return ip;
}

std::string ip6_text(const std::array<uint8_t, 16>& ip) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    inet_ntop(AF_INET6, ip.data(), text.data(), text.size());
    return text.data();
}

std::array<uint8_t, 16> mapped(const std::array<uint8_t, 4>& ip) {
    std::array<uint8_t, 16> out{};
    out[10] = out[11] = 0xff;
    std::copy(ip.begin(), ip.end(), out.begin() + 12);
    return out;
}

bool is_host_name(std::string_view name) {
    if (name.empty() || name.size() > longest_name) return false;
    bool letter = false;
    for (char c : name) {
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
        if (!is_letter && c != '.' && (c < '0' || c > '9')) return false;
        letter = letter || is_letter;
    }
    // Digits and dots alone are a mistyped IPv4 address, no name.
    return letter && !name.starts_with('.') && !name.starts_with('-') && name.find("..") == name.npos;
}

Result<Address> parse_unix(std::string_view text, std::string_view path) {
    bool abstract = path.starts_with('@');
    if (!abstract && !path.starts_with('/')) {
        return failure(fmt::format("\"{}\" has no absolute path; write unix:/path/to.sock", text));
    }
    if (path.size() < 2 || path.ends_with('/') || path.find('\0') != path.npos) {
        return failure(fmt::format("\"{}\" names no socket; write unix:/path/to.sock", text));
    }
    if (path.size() > longest_unix_path) {
        return failure(fmt::format("\"{}\" has a path of {} bytes; a unix socket's holds at most {}", text,
                                   path.size(), longest_unix_path));
    }
    Address address;
    address.kind = Address::Kind::unix;
    address.path = path;
    address.text = fmt::format("unix:{}", path);
    return address;
}

void mask(std::array<uint8_t, 16>& ip, unsigned bits) {
    for (unsigned i = 0; i < ip.size(); ++i) {
        unsigned keep = bits >= (i + 1) * 8 ? 8 : bits <= i * 8 ? 0 : bits - i * 8;
        ip[i] &= static_cast<uint8_t>(0xff00u >> keep);
    }
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
    if (text.starts_with("unix:")) return parse_unix(text, text.substr(5));
    if (text.starts_with('/')) {
        return failure(fmt::format("\"{}\" is a path; write unix:{} for a unix socket", text, text));
    }
    if (size_t scheme = text.find("://"); scheme != text.npos) {
        std::string_view rest = text.substr(scheme + 3);
        rest = rest.substr(0, rest.find('/'));
        return failure(fmt::format("\"{}\" is a URL; write the address alone{}{}", text,
                                   rest.empty() ? "" : ": ", rest));
    }
    size_t colon = text.rfind(':');
    bool bracketed = text.starts_with('[');
    bool has_port = colon != text.npos && !text.ends_with(']');
    if (!has_port && bracketed) {
        return failure(fmt::format("\"{}\" has no port; write {}:8000", text, text));
    }
    if (!bracketed && (ip6_bytes(text) || text.find(':') != colon)) {
        return failure(
            fmt::format("\"{}\" is not an address with a port; write IPv6 in brackets: [::1]:8000", text));
    }
    if (!has_port) {
        bool only_port = parse_number(text).has_value();
        if (!only_port && !ip4_bytes(text) && !is_host_name(text)) {
            return failure(fmt::format("\"{}\" is not an address; {}", text, right_address));
        }
        return only_port ? failure(fmt::format("\"{}\" is only a port; write 127.0.0.1:{}, or 0.0.0.0:{} for "
                                               "every interface",
                                               text, text, text))
                         : failure(fmt::format("\"{}\" has no port; write {}:8000", text, text));
    }

    std::string_view host = text.substr(0, colon);
    auto port = parse_number(text.substr(colon + 1));
    if (!port || *port > 65535) {
        return failure(fmt::format("\"{}\" has no valid port; a port is a number from 0 to 65535", text));
    }
    Address address;
    address.port = static_cast<uint16_t>(*port);
    if (bracketed) {
        auto ip = host.ends_with(']') ? ip6_bytes(host.substr(1, host.size() - 2)) : std::nullopt;
        if (!ip) return failure(fmt::format("\"{}\" is not an IPv6 address; {}", text, right_address));
        address.kind = Address::Kind::tcp6;
        address.host = ip6_text(*ip);
        address.text = fmt::format("[{}]:{}", address.host, address.port);
        return address;
    }
    if (host.empty() || host == "*") {
        return failure(
            fmt::format("\"{}\" names no host; write 0.0.0.0:{} for every IPv4 interface, [::]:{} "
                        "for every one",
                        text, address.port, address.port));
    }
    if (ip4_bytes(host)) {
        address.kind = Address::Kind::tcp4;
        address.host = host;
    } else if (is_host_name(host)) {
        address.kind = Address::Kind::name;
        address.host = lower_case(host);
    } else {
        return failure(fmt::format("\"{}\" is not an address; {}", text, right_address));
    }
    address.text = fmt::format("{}:{}", address.host, address.port);
    return address;
}

bool Network::contains(const std::array<uint8_t, 16>& address) const {
    std::array<uint8_t, 16> block = address;
    mask(block, bits);
    return block == ip;
}

Result<Network> parse_network(std::string_view text) {
    size_t slash = text.find('/');
    std::string_view host = text.substr(0, slash);
    auto ip4 = ip4_bytes(host);
    auto ip6 = ip6_bytes(host);
    if (!ip4 && !ip6) {
        return failure(fmt::format("\"{}\" is not a network; write 10.0.0.0/8, ::1 or fd00::/8", text));
    }
    unsigned width = ip4 ? 32 : 128;
    uint64_t bits = width;
    if (slash != text.npos) {
        auto given = parse_number(text.substr(slash + 1));
        if (!given || *given > width) {
            return failure(
                fmt::format("\"{}\" has no valid length; write /0 to /{} after the address", text, width));
        }
        bits = *given;
    }
    Network network;
    network.ip = ip4 ? mapped(*ip4) : *ip6;
    network.bits = static_cast<uint8_t>(ip4 ? bits + 96 : bits);
    std::array<uint8_t, 16> whole = network.ip;
    mask(network.ip, network.bits);
    std::string base =
        ip4 ? fmt::format("{}.{}.{}.{}", network.ip[12], network.ip[13], network.ip[14], network.ip[15])
            : ip6_text(network.ip);
    if (whole != network.ip) {
        return failure(fmt::format("\"{}\" has bits set beyond /{}; write {}/{}", text, bits, base, bits));
    }
    network.text = bits == width ? base : fmt::format("{}/{}", base, bits);
    return network;
}

}  // namespace penstock
