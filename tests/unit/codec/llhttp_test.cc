// Our reader against llhttp over a generated corpus. Each case is put together from fragments that are
// chosen, and then broken, by a seeded generator: a failure prints the bytes, and the same seed makes them
// again.
#include <cstdint>
#include <doctest/doctest.h>
#include <span>
#include <string>

#include "oracle.h"

using namespace penstock;
using namespace penstock::fuzz;

namespace {

class Chooser {
  public:
    explicit Chooser(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
    uint64_t number() {  // splitmix64
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    size_t below(size_t n) { return size_t(number() % n); }
    bool one_in(size_t n) { return below(n) == 0; }
    template <size_t N>
    std::string_view from(const std::string_view (&list)[N]) {
        return list[below(N)];
    }

  private:
    uint64_t state_;
};

constexpr std::string_view request_lines[] = {
    "GET / HTTP/1.1",
    "POST /a/b?c=d HTTP/1.1",
    "PUT /%41 HTTP/1.1",
    "HEAD /x HTTP/1.0",
    "DELETE /a HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT a.example:443 HTTP/1.1",
    "GET http://a.example/p HTTP/1.1",
    "GET http://a.example HTTP/1.1",
    "GET http://u@a.example/ HTTP/1.1",
    "GET http://a.example?q HTTP/1.1",
    "GET https://[::1]:80/ HTTP/1.1",
    "M-SEARCH * HTTP/1.1",
    "PATCH /a HTTP/1.1",
    "GET /a#b HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET /  HTTP/1.1",
    "GET / HTTP/1.1 ",
    " GET / HTTP/1.1",
    "GET /",
    "GET / HTTP/0.9",
    "GET / HTTP/1.2",
    "GET / HTTP/2.0",
    "GET / http/1.1",
    "GET / HTTP/11",
    "GET / HTTP/1.1x",
    "GET a HTTP/1.1",
    "GET * HTTP/1.1",
    "get / HTTP/1.1",
    "FOO / HTTP/1.1",
    "PRI * HTTP/2.0",
    "GET\t/ HTTP/1.1",
    "GET /\x80 HTTP/1.1",
    "QUERY / HTTP/1.1",
    "SOURCE /ice HTTP/1.1",
    "DESCRIBE / RTSP/1.0",
    "PROPFIND /a HTTP/1.1",
    "GET /\"<>\\^`{|} HTTP/1.1",
};

constexpr std::string_view status_lines[] = {
    "HTTP/1.1 200 OK",         "HTTP/1.1 200",
    "HTTP/1.1 200 ",           "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",   "HTTP/1.1 103 Early Hints",
    "HTTP/1.1 101 Switching",  "HTTP/1.1 404 Not\tFound \x80",
    "HTTP/1.1 099 Low",        "HTTP/1.1 999 High",
    "HTTP/1.1 20 Short",       "HTTP/1.1 2000 Long",
    "HTTP/1.1  200 OK",        "HTTP/1.1 2x0 OK",
    "HTTP/1.1200 OK",          "HTTP/1.2 200 OK",
    "HTTP/2.0 200 OK",         "http/1.1 200 OK",
    " HTTP/1.1 200 OK",        "ICY 200 OK",
    "HTTP/1.1 500 Error",      "HTTP/1.1 206 Partial",
};

constexpr std::string_view field_lines[] = {
    "Host: a.example",
    "Host: a.example",
    "Host: a.example:80",
    "host:a.example",
    "Host: ",
    "Content-Length: 5",
    "Content-Length: 5",
    "Content-Length:5 ",
    "Content-Length: 0",
    "Content-Length: 05",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 5, 5",
    "Content-Length: 5 5",
    "Content-Length: 0x5",
    "Content-Length:",
    "Content-Length: 18446744073709551616",
    "Content-Length: 9223372036854775807",
    "Content-Length: 7",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding : chunked",
    "Transfer_Encoding: chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: keep-alive, close",
    "Connection: close, foo",
    "Connection: closed",
    "Connection: Upgrade",
    "Connection: ,  upgrade ,",
    "Connection: upgrade, keep-alive",
    "Proxy-Connection: close",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Upgrade: a, b",
    "Expect: 100-continue",
    "Trailer: x",
    "X-A: b",
    "X-Empty:",
    "X-Tab:\tb\tc\t",
    "X-Obs: \x80\xff",
    " folded",
    "\tfolded",
    "X-B : c",
    "no colon",
    ": empty",
    "X(: y",
    "X: a\x01",
    "X: a\x7f",
    "Accept: */*",
    "A: b: c",
};

constexpr std::string_view bodies[] = {
    "",
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;a\r\nhello\r\n0;z\r\n\r\n",
    "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\\\"c\"\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5; a\r\nhello\r\n0\r\n\r\n",
    "5;a =b\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n000\r\n\r\n",
    "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rXhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\nZ: 1\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nHost: b\r\n\r\n",
    "5\r\nhello\r\n0\r\nConnection: close\r\n\r\n",
    "5\r\nhello\r\n0\r\n folded\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "g\r\n",
    "\r\nhello",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello",
    "7fffffffffffffff\r\nhello",
};

constexpr std::string_view pieces[] = {"\r\n", "\r",   "\n", " ", "\t", ":", ";", ",",    "\"",   "0", "5",
                                       "a",    "X: y", "#",  "@", "\0", "/", "?", "\x80", "\x7f", "=", "%2e"};

void add_message(Chooser& chooser, bool responses, std::string& bytes) {
    if (chooser.one_in(20)) bytes += "\r\n";
    // Half of all messages are near what is right, the others anything.
    bool calm = chooser.one_in(2);
    if (responses) {
        bytes += calm ? status_lines[chooser.below(10)] : chooser.from(status_lines);
    } else {
        bytes += calm ? request_lines[chooser.below(8)] : chooser.from(request_lines);
    }
    bytes += "\r\n";
    if (calm && !responses) bytes += "Host: a.example\r\n";
    if (calm && chooser.one_in(2))
        bytes += chooser.one_in(2) ? "Content-Length: 5\r\n" : "Transfer-Encoding: chunked\r\n";
    for (size_t n = chooser.below(calm ? 2 : 5); n > 0; n--) {
        bytes += chooser.from(field_lines);
        bytes += chooser.one_in(60) ? "\n" : "\r\n";
    }
    bytes += "\r\n";
    bytes += chooser.from(bodies);
}

void mutate(Chooser& chooser, std::string& bytes) {
    if (bytes.empty()) return;
    size_t at = chooser.below(bytes.size());
    switch (chooser.below(5)) {
        case 0: bytes.erase(at, 1 + chooser.below(3)); break;
        case 1: bytes.insert(at, chooser.from(pieces)); break;
        case 2: bytes[at] = char(chooser.below(256)); break;
        case 3: bytes.resize(at); break;
        case 4: bytes.insert(at, bytes.substr(at, chooser.below(20))); break;
    }
}

std::string make_case(uint64_t seed, bool responses) {
    Chooser chooser(seed);
    std::string bytes;
    for (size_t n = 1 + chooser.below(2); n > 0; n--) add_message(chooser, responses, bytes);
    if (!chooser.one_in(3)) return bytes;
    for (size_t n = 1 + chooser.below(3); n > 0; n--) mutate(chooser, bytes);
    return bytes;
}

Stream make_stream(uint64_t seed, bool responses) {
    constexpr Method asked[] = {Method::get, Method::head, Method::get, Method::connect};
    return {.responses = responses, .asked = {asked[seed % 4], true}, .closed = seed % 8 < 6};
}

constexpr uint64_t cases = 30'000;

void check_all(bool responses) {
    size_t accepted = 0;
    for (uint64_t seed = 0; seed < cases; seed++) {
        std::string bytes = make_case(seed, responses);
        Stream stream = make_stream(seed, responses);
        std::string what = disagreement(bytes, stream);
        if (what.empty()) what = split_dependence(bytes, stream, seed);
        INFO("seed ", seed, ": ", readable(bytes));
        REQUIRE(what == "");
        accepted += read_with_penstock(bytes, stream).messages.size();
    }
    // A corpus that nobody accepts would show nothing.
    CHECK(accepted > cases / 5);
}

}  // namespace

TEST_CASE("of generated requests, what llhttp refuses we refuse, and what both accept both read the same") {
    check_all(false);
}

TEST_CASE("of generated responses, what llhttp refuses we refuse, and what both accept both read the same") {
    check_all(true);
}
