#include "base/address.h"

#include <doctest/doctest.h>
#include <string>

namespace penstock {

namespace {

template <class T>
std::string error_of(const Result<T>& result) {
    return result ? "" : result.error().message;
}

std::array<uint8_t, 16> ip4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
}

}  // namespace

TEST_CASE("an address is read into its kind, and its text is canonical") {
    Address v4 = *parse_address("127.0.0.1:8000");
    CHECK(v4.kind == Address::Kind::tcp4);
    CHECK(v4.host == "127.0.0.1");
    CHECK(v4.port == 8000);
    CHECK(v4.text == "127.0.0.1:8000");

    Address v6 = *parse_address("[0:0::0001]:80");
    CHECK(v6.kind == Address::Kind::tcp6);
    CHECK(v6.host == "::1");
    CHECK(v6.text == "[::1]:80");
    CHECK(v6 == *parse_address("[::1]:80"));

    Address socket = *parse_address("unix:/run/a.sock");
    CHECK(socket.kind == Address::Kind::unix);
    CHECK(socket.path == "/run/a.sock");
    CHECK(socket.text == "unix:/run/a.sock");
    CHECK(parse_address("unix:@name")->path == "@name");

    Address name = *parse_address("Triton.Local:8001");
    CHECK(name.kind == Address::Kind::name);
    CHECK(name.host == "triton.local");
    CHECK(name.text == "triton.local:8001");
    CHECK(parse_address("0.0.0.0:0")->port == 0);
}

TEST_CASE("an address that is none says what would be right") {
    CHECK(error_of(parse_address("8000")) ==
          "\"8000\" is only a port; write 127.0.0.1:8000, or 0.0.0.0:8000 for every interface");
    CHECK(error_of(parse_address(":8000")) ==
          "\":8000\" names no host; write 0.0.0.0:8000 for every IPv4 interface, [::]:8000 for every one");
    CHECK(error_of(parse_address("10.0.0.1")) == "\"10.0.0.1\" has no port; write 10.0.0.1:8000");
    CHECK(error_of(parse_address("[::1]")) == "\"[::1]\" has no port; write [::1]:8000");
    CHECK(error_of(parse_address("::1")) ==
          "\"::1\" is not an address with a port; write IPv6 in brackets: [::1]:8000");
    CHECK(error_of(parse_address("10.0.0.1:65536")) ==
          "\"10.0.0.1:65536\" has no valid port; a port is a number from 0 to 65535");
    CHECK(error_of(parse_address("10.0.0.1:http")) ==
          "\"10.0.0.1:http\" has no valid port; a port is a number from 0 to 65535");
    CHECK(error_of(parse_address("10.0.0.256:80")) ==
          "\"10.0.0.256:80\" is not an address; write 127.0.0.1:8000, [::1]:8000, name:8000 or unix:/path");
    CHECK(error_of(parse_address("[::1%eth0]:80")) ==
          "\"[::1%eth0]:80\" is not an IPv6 address; write 127.0.0.1:8000, [::1]:8000, name:8000 or "
          "unix:/path");
    CHECK(error_of(parse_address("http://10.0.0.1:80/x")) ==
          "\"http://10.0.0.1:80/x\" is a URL; write the address alone: 10.0.0.1:80");
    CHECK(error_of(parse_address("/run/a.sock")) ==
          "\"/run/a.sock\" is a path; write unix:/run/a.sock for a unix socket");
    CHECK(error_of(parse_address("unix:a.sock")) ==
          "\"unix:a.sock\" has no absolute path; write unix:/path/to.sock");
    CHECK(error_of(parse_address("unix:/run/")) ==
          "\"unix:/run/\" names no socket; write unix:/path/to.sock");
    std::string longest = "unix:/" + std::string(106, 'x');
    CHECK(parse_address(longest));
    CHECK(error_of(parse_address(longest + "x")) ==
          "\"" + longest + "x\" has a path of 108 bytes; a unix socket's holds at most 107");
    for (const char* wrong :
         {"", ":", "[]:80", "a b:80", "a..b:80", "-a:80", ".a:80", "[::1:80", "a_b!:80"}) {
        CAPTURE(wrong);
        CHECK(!parse_address(wrong));
    }
    CHECK(!parse_address(std::string_view("127.0.0.1\0:80", 13)));
}

TEST_CASE("a network contains the addresses of its block, IPv4 ones in either form") {
    Network ten = *parse_network("10.0.0.0/8");
    CHECK(ten.bits == 104);
    CHECK(ten.text == "10.0.0.0/8");
    CHECK(ten.contains(ip4(10, 255, 0, 1)));
    CHECK(!ten.contains(ip4(11, 0, 0, 1)));

    Network one = *parse_network("::1");
    CHECK(one.text == "::1");
    CHECK(one.contains({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
    CHECK(!one.contains({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}));

    CHECK(parse_network("10.0.0.1/32")->text == "10.0.0.1");
    CHECK(parse_network("0.0.0.0/0")->contains(ip4(192, 168, 1, 1)));
    CHECK(!parse_network("0.0.0.0/0")->contains({0x20, 1}));
    CHECK(parse_network("::/0")->contains({0x20, 1}));
    Network odd = *parse_network("fc00::/7");
    CHECK(odd.contains({0xfd}));
    CHECK(!odd.contains({0xfe}));
}

TEST_CASE("a network that is none says what would be right") {
    CHECK(error_of(parse_network("10.0.0.5/8")) == "\"10.0.0.5/8\" has bits set beyond /8; write 10.0.0.0/8");
    CHECK(error_of(parse_network("fd00::1/8")) == "\"fd00::1/8\" has bits set beyond /8; write fd00::/8");
    CHECK(error_of(parse_network("10.0.0.0/33")) ==
          "\"10.0.0.0/33\" has no valid length; write /0 to /32 after the address");
    CHECK(error_of(parse_network("localhost")) ==
          "\"localhost\" is not a network; write 10.0.0.0/8, ::1 or fd00::/8");
    CHECK(!parse_network("10.0.0.0/"));
    CHECK(!parse_network(""));
}

}  // namespace penstock
