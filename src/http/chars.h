// Which bytes may stand where in HTTP/1: one table of bits, so that a scan is one load and one test a byte.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace penstock::chars {

enum Class : uint8_t {
    token = 1,    // tchar: names, methods
    control = 2,  // C0 but HTAB, and DEL: nowhere in a message outside a body
    visible = 4,  // 0x21 to 0x7e: what a request target may be made of
    alias = 8,    // '_' and '.': CGI-like backends read them as '-'
    host = 16,    // reg-name and IPv4: unreserved only. Sub-delimiters and escapes are legal and never honest
};

constexpr std::array<uint8_t, 256> table = [] {
    std::array<uint8_t, 256> t{};
    for (int c = 0; c < 256; c++) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        auto among = [c](std::string_view set) { return set.find(char(c)) != set.npos; };
        if (letter || digit || among("!#$%&'*+-.^_`|~")) t[c] |= token;
        if ((c < 0x20 && c != '\t') || c == 0x7f) t[c] |= control;
        if (c > 0x20 && c < 0x7f) t[c] |= visible;
        if (c == '_' || c == '.') t[c] |= alias;
        if (letter || digit || among("-._~")) t[c] |= host;
    }
    return t;
}();

constexpr uint8_t of(char c) { return table[uint8_t(c)]; }
constexpr bool is(char c, uint8_t classes) { return table[uint8_t(c)] & classes; }
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c | 0x20) : c; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The value of a hex digit; -1 where it is none.
constexpr int hex(char c) {
    if (is_digit(c)) return c - '0';
    char l = lower(c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

}  // namespace penstock::chars
