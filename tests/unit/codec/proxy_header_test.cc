// The PROXY header: what is believed, to the letter, and what is not.
#include "codec/proxy_header.h"

#include <doctest/doctest.h>
#include <string>

using namespace penstock;
using namespace std::literals;

namespace {

// "need_more", "failed", or the client, the port and what was consumed: "192.0.2.1 443 @47".
std::string read(std::string_view bytes) {
    ProxyHeader header;
    size_t consumed = 0;
    switch (read_proxy_header(bytes, header, consumed)) {
        case ProxyStep::need_more: return "need_more";
        case ProxyStep::failed: return "failed";
        case ProxyStep::complete: break;
    }
    std::string who = header.tells_client ? header.client + " " + std::to_string(header.port) : "nobody";
    return who + " @" + std::to_string(consumed);
}

// The same, and whatever follows must not matter, and one byte less must not be enough.
std::string read_whole(const std::string& header) {
    std::string result = read(header);
    CHECK(read(header + "GET / HTTP/1.1\r\n") == result);
    for (size_t size = 0; size < header.size(); ++size) CHECK(read(header.substr(0, size)) == "need_more");
    return result;
}

std::string v2(uint8_t command, uint8_t family, std::string_view rest) {
    std::string out = "\r\n\r\n\0\r\nQUIT\n"s;
    out += static_cast<char>(command);
    out += static_cast<char>(family);
    out += static_cast<char>(rest.size() >> 8);
    out += static_cast<char>(rest.size() & 255);
    return out + std::string(rest);
}
const std::string tcp4 =
    "\xc0\x00\x02\x07\xcb\x00\x71\x09\x30\x39\x01\xbb"s;  // 192.0.2.7:12345 to 203.0.113.9:443
const std::string tcp6 =
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x30\x39\x1f\x90"s;

}  // namespace

TEST_CASE("a line of version 1 tells the client's address and the port it came to") {
    CHECK(read_whole("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n") == "192.0.2.1 443 @45");
    CHECK(read_whole("PROXY TCP6 2001:db8::1 2001:DB8:0::2 56324 8443\r\n") == "2001:db8::1 8443 @49");
    CHECK(read_whole("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n") ==
          "255.255.255.255 65535 @56");
    CHECK(read_whole("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n") == "1.2.3.4 0 @32");
}

TEST_CASE("UNKNOWN tells nobody, whatever follows it on the line") {
    CHECK(read_whole("PROXY UNKNOWN\r\n") == "nobody @15");
    CHECK(read_whole("PROXY UNKNOWN ffff::1 whatever 1\r\n") == "nobody @34");
    std::string longest = "PROXY UNKNOWN " + std::string(107 - 14 - 2, 'x') + "\r\n";
    CHECK(read_whole(longest) == "nobody @107");
}

TEST_CASE("a line of version 1 that is not to the letter is refused") {
    for (std::string_view line : {"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n",
                                  "PROXY  TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 \r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 56324 -1\r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 56324 0443\r\n",
                                  "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
                                  "PROXY TCP4 192.0.2.256 198.51.100.7 1 443\r\n",
                                  "PROXY TCP4 192.0.2 198.51.100.7 1 443\r\n",
                                  "PROXY TCP4 192.000.002.001 198.51.100.7 1 443\r\n",
                                  "PROXY TCP4 ::1 ::2 1 443\r\n",
                                  "PROXY TCP6 192.0.2.1 198.51.100.7 1 443\r\n",
                                  "PROXY TCP6 fe80::1%eth0 ::2 1 443\r\n",
                                  "PROXY UDP4 192.0.2.1 198.51.100.7 1 443\r\n",
                                  "PROXY tcp4 192.0.2.1 198.51.100.7 1 443\r\n",
                                  "PROXY \r\n",
                                  "PROXY\r\n",
                                  "proxy TCP4 192.0.2.1 198.51.100.7 1 443\r\n",
                                  "PROXY TCP4\r\r\n",
                                  "PROXY TCP4 192.0.2.1\r198.51.100.7 1 443\r\n",
                                  "GET / HTTP/1.1\r\n",
                                  "\r\nPROXY",
                                  "\x16\x03\x01",
                                  "PROXY UNKNOWN\rx"}) {
        CAPTURE(line);
        CHECK(read(line) == "failed");
    }
    CHECK(read("PROXY UNKNOWN " + std::string(107 - 14, 'x')) == "failed");
    CHECK(read("PROXY UNKNOWN " + std::string(107 - 15, 'x')) == "need_more");
}

TEST_CASE("version 2 tells the client's address, and its extensions are passed over") {
    CHECK(read_whole(v2(0x21, 0x11, tcp4)) == "192.0.2.7 443 @28");
    CHECK(read_whole(v2(0x21, 0x21, tcp6)) == "2001:db8::1 8080 @52");
    CHECK(read_whole(v2(0x21, 0x11, tcp4 + "\x04\0\x03xyz\x20\0\x01"s)) == "192.0.2.7 443 @37");
    std::string mapped =
        std::string(10, '\0') + "\xff\xff\xc0\x00\x02\x07"s + std::string(16, '\0') + "\0\0\1\xbb"s;
    CHECK(read_whole(v2(0x21, 0x21, mapped)) == "192.0.2.7 443 @52");
}

TEST_CASE("LOCAL, UNSPEC, UDP and unix sockets of version 2 tell nobody") {
    CHECK(read_whole(v2(0x20, 0x00, "")) == "nobody @16");
    CHECK(read_whole(v2(0x20, 0x11, tcp4)) == "nobody @28");
    CHECK(read_whole(v2(0x20, 0x11, "xx")) == "nobody @18");
    CHECK(read_whole(v2(0x21, 0x00, "anything")) == "nobody @24");
    CHECK(read_whole(v2(0x21, 0x12, tcp4)) == "nobody @28");
    CHECK(read_whole(v2(0x21, 0x31, std::string(216, 'p'))) == "nobody @232");
}

TEST_CASE("version 2 that is not to the letter is refused as soon as it can be seen") {
    CHECK(read(v2(0x22, 0x11, tcp4)) == "failed");
    CHECK(read(v2(0x11, 0x11, tcp4)) == "failed");
    CHECK(read(v2(0x21, 0x41, tcp4)) == "failed");
    CHECK(read(v2(0x21, 0x13, tcp4)) == "failed");
    CHECK(read(v2(0x21, 0x11, tcp4.substr(1))) == "failed");
    CHECK(read(v2(0x21, 0x21, tcp4)) == "failed");
    CHECK(read("\r\n\r\n\0\r\nQUIT\r"sv) == "failed");
    std::string too_long = v2(0x21, 0x11, tcp4);
    too_long[14] = '\x3f';
    CHECK(read(too_long) == "failed");
}
