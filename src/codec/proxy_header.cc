#include "codec/proxy_header.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <charconv>

namespace penstock {

namespace {

using namespace std::literals;

constexpr std::string_view signature = "\r\n\r\n\0\r\nQUIT\n"sv;
constexpr std::string_view prefix = "PROXY ";
constexpr size_t most_line = 107;  // with CR LF
constexpr size_t v2_head = 16;

uint16_t number_at(std::string_view bytes, size_t at) {
    return static_cast<uint16_t>(static_cast<uint8_t>(bytes[at]) << 8 | static_cast<uint8_t>(bytes[at + 1]));
}

std::string ip_text(int family, const char* ip) {
    constexpr std::string_view mapped = "\0\0\0\0\0\0\0\0\0\0\xff\xff"sv;
    if (family == AF_INET6 && std::string_view(ip, mapped.size()) == mapped) {
        family = AF_INET;
        ip += mapped.size();
    }
    char text[INET6_ADDRSTRLEN];
    return ::inet_ntop(family, ip, text, sizeof text) ? text : "";
}

// The next word of a line whose words are parted by single spaces.
bool next_word(std::string_view& line, std::string_view& out) {
    size_t space = line.find(' ');
    out = line.substr(0, space);
    line = space == line.npos ? std::string_view() : line.substr(space + 1);
    return !out.empty();
}

// inet_pton takes only plain decimal and plain IPv6; the text is made anew from what it means.
bool read_ip(int family, std::string_view word, std::string& out) {
    std::array<char, 16> ip;
    if (word.size() >= INET6_ADDRSTRLEN || ::inet_pton(family, std::string(word).c_str(), ip.data()) != 1)
        return false;
    out = ip_text(family, ip.data());
    return true;
}

bool read_port(std::string_view word, uint16_t& out) {
    if (word.size() > 1 && word[0] == '0') return false;
    auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
    return error == std::errc() && end == word.data() + word.size() && !word.empty();
}

bool read_line(std::string_view line, ProxyHeader& out) {
    std::string_view kind, source, target, source_port, target_port;
    if (!next_word(line, kind)) return false;
    if (kind == "UNKNOWN") return true;  // whatever follows
    int family = kind == "TCP4" ? AF_INET : AF_INET6;
    if (kind != "TCP4" && kind != "TCP6") return false;
    bool all = next_word(line, source) && next_word(line, target) && next_word(line, source_port);
    target_port = line;
    std::string ours;
    uint16_t theirs;
    out.tells_client = true;
    return all && read_ip(family, source, out.client) && read_ip(family, target, ours) &&
           read_port(source_port, theirs) && read_port(target_port, out.port);
}

ProxyStep read_v1(std::string_view bytes, ProxyHeader& out, size_t& consumed) {
    std::string_view window = bytes.substr(0, most_line);
    size_t end = window.find('\n');
    if (end == window.npos) {
        // A CR that something else follows will not become the end.
        size_t cr = window.find('\r');
        bool hopeless = window.size() == most_line || (cr != window.npos && cr + 1 < window.size());
        return hopeless ? ProxyStep::failed : ProxyStep::need_more;
    }
    if (end == 0 || window[end - 1] != '\r') return ProxyStep::failed;
    std::string_view line = window.substr(prefix.size(), end - 1 - prefix.size());
    if (line.find('\r') != line.npos || !read_line(line, out)) return ProxyStep::failed;
    consumed = end + 1;
    return ProxyStep::complete;
}

ProxyStep read_v2(std::string_view bytes, ProxyHeader& out, size_t& consumed) {
    if (bytes.size() < v2_head) return ProxyStep::need_more;
    auto version_command = static_cast<uint8_t>(bytes[12]);
    auto family_kind = static_cast<uint8_t>(bytes[13]);
    size_t all = v2_head + number_at(bytes, 14);
    bool local = version_command == 0x20;
    if (!local && version_command != 0x21) return ProxyStep::failed;
    if (family_kind >> 4 > 3 || (family_kind & 15) > 2 || all > most_proxy_header) return ProxyStep::failed;
    bool is_tcp4 = family_kind == 0x11, is_tcp6 = family_kind == 0x21;
    size_t ip = is_tcp4 ? 4 : 16;
    if (!local && (is_tcp4 || is_tcp6) && all < v2_head + 2 * ip + 4) return ProxyStep::failed;
    if (bytes.size() < all) return ProxyStep::need_more;
    consumed = all;
    if (local || (!is_tcp4 && !is_tcp6)) return ProxyStep::complete;
    out.tells_client = true;
    out.client = ip_text(is_tcp4 ? AF_INET : AF_INET6, bytes.data() + v2_head);
    out.port = number_at(bytes, v2_head + 2 * ip + 2);
    return ProxyStep::complete;
}

}  // namespace

ProxyStep read_proxy_header(std::string_view bytes, ProxyHeader& out, size_t& consumed) {
    out = {};
    consumed = 0;
    if (bytes.empty()) return ProxyStep::need_more;
    bool is_v1 = bytes[0] == prefix[0];
    std::string_view begins = is_v1 ? prefix : signature;
    size_t known = std::min(bytes.size(), begins.size());
    if (bytes.substr(0, known) != begins.substr(0, known)) return ProxyStep::failed;
    if (known < begins.size()) return ProxyStep::need_more;
    ProxyStep step = is_v1 ? read_v1(bytes, out, consumed) : read_v2(bytes, out, consumed);
    if (step != ProxyStep::complete) out = {};
    return step;
}

}  // namespace penstock
