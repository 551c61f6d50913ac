// The request reader: what a legal head says about its body and its connection.

#include "request_cases.h"

using namespace penstock;
using namespace penstock::cases;
using namespace std::string_literals;

TEST_CASE("content-length is digits and nothing else, once, and fits") {
    auto length_of = [](const std::string& value) {
        return read(request("Content-Length: " + value + "\r\n"));
    };
    CHECK(length_of("5").framing.body == BodyKind::length);
    CHECK(length_of("5").framing.length == 5);
    CHECK(length_of("007").framing.length == 7);
    CHECK(length_of("  5  ").framing.length == 5);
    CHECK(length_of("9223372036854775807").framing.length == uint64_t(INT64_MAX));
    CHECK(length_of("0").framing.body == BodyKind::none);
    CHECK(length_of("0").framing.declared == BodyKind::length);
    for (const char* bad :
         {"", "+5", "-5", "-0", "0x5", "5.0", "5,", "5, 5", "5,6", "5 5", "5;", "five", "5a", "\"5\"",
          "9223372036854775808", "18446744073709551616", "99999999999999999999999999", "\xb2"}) {
        INFO(bad);
        CHECK(length_of(bad).rule == Rule::content_length_invalid);
    }
    check_refused({
        {request("Content-Length: 5\r\nContent-Length: 6\r\n"), Rule::content_length_repeated},
        {request("Content-Length: 5\r\ncontent-length: 5\r\n"), Rule::content_length_repeated},
        {request("Content-Length: \t5\r\n"), Rule::tab_in_framing_field},
        {request("Content-Length: 5\t\r\n"), Rule::tab_in_framing_field},
    });
}

TEST_CASE("transfer-encoding is exactly chunked") {
    for (const char* good : {"chunked", "Chunked", "CHUNKED", "  chunked  "}) {
        Answer a = read(request("Transfer-Encoding: "s + good + "\r\n"));
        CHECK(a.framing.body == BodyKind::chunked);
        CHECK(a.framing.declared == BodyKind::chunked);
    }
    auto te = [](const std::string& value) { return request("Transfer-Encoding: " + value + "\r\n"); };
    check_refused({
        {te(""), Rule::transfer_encoding_empty},
        {te(","), Rule::transfer_encoding_empty},
        {te("identity"), Rule::transfer_encoding_not_chunked},
        {te("chunked, identity"), Rule::transfer_encoding_not_chunked},
        {te("chunked, gzip"), Rule::transfer_encoding_not_chunked},
        {te("chunked, chunked"), Rule::transfer_encoding_not_chunked},
        {te("gzip"), Rule::transfer_encoding_not_chunked},
        {te("xchunked"), Rule::transfer_encoding_not_chunked},
        {te("chunkedx"), Rule::transfer_encoding_not_chunked},
        {te("chunked;q=1"), Rule::transfer_encoding_not_chunked},
        {te("\"chunked\""), Rule::transfer_encoding_not_chunked},
        {te("chunked,"), Rule::transfer_encoding_not_chunked},
        {te(",chunked"), Rule::transfer_encoding_not_chunked},
        {te("chunked\x80"), Rule::transfer_encoding_not_chunked},
        {te("chun ked"), Rule::transfer_encoding_not_chunked},
        {te("gzip, chunked"), Rule::transfer_encoding_unsupported},
        {te("\tchunked"), Rule::tab_in_framing_field},
        {te("chunked\t"), Rule::tab_in_framing_field},
        {request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
         Rule::transfer_encoding_not_chunked},
        {request("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
         Rule::transfer_encoding_unsupported},
        {request("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
         Rule::transfer_encoding_not_chunked},
        {request("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
         Rule::content_length_with_transfer_encoding},
        {request("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
         Rule::content_length_with_transfer_encoding},
        {request("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
         Rule::content_length_with_transfer_encoding},
        {request("Transfer-Encoding: chunked\r\n", "POST / HTTP/1.0"), Rule::transfer_encoding_in_http10},
        {request("Transfer-Encoding: identity\r\n", "POST / HTTP/1.0"), Rule::transfer_encoding_in_http10},
    });
    CHECK(rule_status(Rule::transfer_encoding_not_chunked) == 400);
    CHECK(rule_status(Rule::transfer_encoding_unsupported) == 501);
}

TEST_CASE("names that only look like framing frame nothing") {
    for (const char* field :
         {"Transfer_Encoding: chunked", "Content_Length: 5", "X-Content-Length: 5",
          "TransferEncoding: chunked", "Content-Lengthx: 5", "Transfer-Encodin: chunked"}) {
        INFO(field);
        Answer a = read(request(field + "\r\n"s));
        CHECK(a.step == ReadStep::complete);
        CHECK(a.framing.body == BodyKind::none);
    }
}

TEST_CASE("a connection lives on by version, and by what Connection says") {
    auto lives = [](const std::string& line, const std::string& fields) {
        Answer a = read(request(fields, line));
        CHECK(a.step == ReadStep::complete);
        return a.framing.keep_alive;
    };
    std::string h11 = "GET / HTTP/1.1", h10 = "GET / HTTP/1.0";
    CHECK(lives(h11, ""));
    CHECK_FALSE(lives(h10, ""));
    CHECK_FALSE(lives(h11, "Connection: close\r\n"));
    CHECK_FALSE(lives(h11, "Connection: foo, CLOSE ,bar\r\n"));
    CHECK_FALSE(lives(h11, "Connection: foo\r\nConnection: close\r\n"));
    CHECK_FALSE(lives(h11, "Connection: keep-alive, close\r\n"));
    CHECK(lives(h11, "Connection: closed\r\n"));
    CHECK(lives(h11, "Connection:\r\n"));
    CHECK(lives(h10, "Connection: keep-alive\r\n"));
    CHECK(lives(h10, "connection: Keep-Alive\r\n"));
    CHECK_FALSE(lives(h10, "Connection: close, keep-alive\r\n"));
    CHECK_FALSE(lives(h10, "Proxy-Connection: keep-alive\r\n"));
    CHECK(lives(h11, "Proxy-Connection: close\r\n"));
    CHECK_FALSE(lives(h10, "Keep-Alive: timeout=5\r\n"));
}

TEST_CASE("more connection options than anybody needs are refused") {
    std::string options = "a";
    for (int i = 1; i < 64; i++) options += ",a";
    CHECK(read(request("Connection: " + options + "\r\n")).step == ReadStep::complete);
    check_refused(
        {{request("Connection: " + options + ",a\r\n"), Rule::too_many_connection_options},
         {request("Connection: " + options + "\r\nConnection: a\r\n"), Rule::too_many_connection_options}});
}

TEST_CASE("100-continue is expected only where a body comes, and nothing else can be expected") {
    CHECK(read(request("Expect: 100-continue\r\nContent-Length: 5\r\n")).framing.expect_continue);
    CHECK(read(request("Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n")).framing.expect_continue);
    CHECK_FALSE(read(request("Expect: 100-continue\r\n")).framing.expect_continue);
    CHECK_FALSE(read(request("Expect: 100-continue\r\nContent-Length: 0\r\n")).framing.expect_continue);
    CHECK_FALSE(read(request("Expect: 100-continue\r\nContent-Length: 5\r\n", "POST / HTTP/1.0"))
                    .framing.expect_continue);
    check_refused({{request("Expect: tea\r\n"), Rule::expect_unknown},
                   {request("Expect: 100-continue, tea\r\n"), Rule::expect_unknown},
                   {request("Expect: 100-continue\r\nExpect: tea\r\n"), Rule::expect_unknown}});
    CHECK(rule_status(Rule::expect_unknown) == 417);
}

TEST_CASE("an upgrade is asked for by Connection and Upgrade together, on HTTP/1.1 and without a body") {
    std::string both = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    CHECK(read(request(both, "GET / HTTP/1.1")).framing.upgrade);
    CHECK(read(request("Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n")).framing.upgrade);
    CHECK_FALSE(read(request("Upgrade: websocket\r\n")).framing.upgrade);
    CHECK_FALSE(read(request("Connection: upgrade\r\n")).framing.upgrade);
    CHECK_FALSE(read(request(both, "GET / HTTP/1.0")).framing.upgrade);
    CHECK_FALSE(read(request(both + "Content-Length: 5\r\n")).framing.upgrade);
    CHECK_FALSE(read(request(both + "Transfer-Encoding: chunked\r\n")).framing.upgrade);
    CHECK_FALSE(read(request("Connection: upgrade\r\nUpgrade: h2c\r\n")).framing.upgrade);
    CHECK_FALSE(read(request("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n")).framing.upgrade);
}

TEST_CASE("CONNECT has no body") {
    std::string line = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n";
    CHECK(read(line + "\r\n").framing.body == BodyKind::none);
    check_refused({{line + "Content-Length: 5\r\n\r\n", Rule::connect_with_body},
                   {line + "Transfer-Encoding: chunked\r\n\r\n", Rule::connect_with_body}});
}
