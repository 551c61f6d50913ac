#include "codec/h2_head.h"

#include <doctest/doctest.h>
#include <initializer_list>
#include <string>

using namespace penstock;

namespace {

struct Reading {
    explicit Reading(H2Limits of = {}) : limits(of), reader(pool, limits) {}

    ChunkPool pool;
    H2Limits limits;
    H2HeadReader reader;

    H2Head read(H2HeadReader::Kind kind, std::initializer_list<FieldLine> lines, bool end = true) {
        reader.begin(kind);
        for (const FieldLine& line : lines) CHECK(reader.add(line.name, line.value));
        return reader.finish(end);
    }
    Rule request(std::initializer_list<FieldLine> lines, bool end = true) {
        H2Head head = read(H2HeadReader::Kind::request, lines, end);
        if (head.rule != Rule::ok) return head.rule;
        return frame_h2_request(head, framing);
    }
    Framing framing;
};

}  // namespace

TEST_CASE("pseudo-header fields become method, target and Host") {
    Reading r;
    H2Head head = r.read(H2HeadReader::Kind::request, {{":method", "GET"},
                                                       {":scheme", "https"},
                                                       {":authority", "a.example:8443"},
                                                       {":path", "/p?q"},
                                                       {"accept", "*/*"}});
    CHECK(head.rule == Rule::ok);
    CHECK(head.head.method == Method::get);
    CHECK(head.head.target() == "/p?q");
    CHECK(head.head.value_of(FieldId::host) == "a.example:8443");
    CHECK(head.head.count(FieldId::host) == 1);
    CHECK(head.scheme == "https");
    CHECK(head.head.version == Version::http2);
}

TEST_CASE("Host stands for :authority where that is missing, and may say the same") {
    Reading r;
    CHECK(r.request({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}}) == Rule::ok);
    CHECK(r.request({{":method", "GET"},
                     {":scheme", "http"},
                     {":authority", "a"},
                     {":path", "/"},
                     {"host", "A:80"}}) == Rule::ok);
    CHECK(
        r.request(
            {{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}, {"host", "b"}}) ==
        Rule::host_differs);
    CHECK(r.request({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}}) == Rule::host_missing);
    CHECK(
        r.request({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}, {"host", "a"}}) ==
        Rule::host_repeated);
}

TEST_CASE("cookie crumbs are one field again") {
    Reading r;
    H2Head head = r.read(H2HeadReader::Kind::request, {{":method", "GET"},
                                                       {":scheme", "http"},
                                                       {":authority", "a"},
                                                       {":path", "/"},
                                                       {"cookie", "a=1"},
                                                       {"x", "y"},
                                                       {"cookie", "b=2"},
                                                       {"cookie", "c=3"}});
    CHECK(head.head.value_of(FieldId::cookie) == "a=1; b=2; c=3");
    CHECK(head.head.count(FieldId::cookie) == 1);
}

TEST_CASE("nothing that could become another line, another request or another target is let through") {
    struct Case {
        Rule rule;
        FieldLine line;
    };
    const std::string nul("a\0b", 3);
    const Case cases[] = {
        {Rule::target_invalid, {":path", "/a b"}},
        {Rule::target_invalid, {":path", "/a\r\nx: y"}},
        {Rule::target_invalid, {":path", nul}},
        {Rule::target_invalid, {":path", ""}},
        {Rule::target_form, {":path", "http://other/"}},
        {Rule::target_form, {":path", "relative"}},
        {Rule::method_unknown, {":method", "GET /x HTTP/1.1\r\n"}},
        {Rule::method_unknown, {":method", "get"}},
        {Rule::host_invalid, {":authority", "a\r\nx: y"}},
        {Rule::host_invalid, {":authority", "user@a"}},
        {Rule::host_invalid, {":authority", "a b"}},
        {Rule::host_invalid, {":authority", ""}},
        {Rule::target_form, {":scheme", "ftp"}},
        {Rule::target_form, {":scheme", "http\r\n"}},
        {Rule::h2_pseudo_field, {":status", "200"}},
        {Rule::h2_pseudo_field, {":unknown", "x"}},
        {Rule::h2_pseudo_field, {":protocol", "websocket"}},
        {Rule::control_character, {"x", "a\r\nb"}},
        {Rule::control_character, {"x", nul}},
        {Rule::control_character, {"x", " a"}},
        {Rule::h2_name_uppercase, {"X", "a"}},
        {Rule::name_invalid, {"x y", "a"}},
        {Rule::name_invalid, {"x:", "a"}},
        {Rule::name_empty, {"", "a"}},
        {Rule::h2_connection_field, {"connection", "close"}},
        {Rule::h2_connection_field, {"transfer-encoding", "chunked"}},
        {Rule::h2_connection_field, {"upgrade", "h2c"}},
        {Rule::h2_connection_field, {"keep-alive", "1"}},
        {Rule::h2_connection_field, {"proxy-connection", "close"}},
        {Rule::h2_connection_field, {"te", "gzip"}},
        {Rule::content_length_invalid, {"content-length", "+5"}},
        {Rule::h2_body_differs, {"content-length", "5"}},
    };
    for (const Case& c : cases) {
        CAPTURE(c.line.name);
        CAPTURE(c.line.value);
        Reading r;
        r.reader.begin(H2HeadReader::Kind::request);
        auto add = [&](std::string_view name, std::string_view usual) {
            CHECK(r.reader.add(name, c.line.name == name ? c.line.value : usual));
        };
        add(":method", "GET");
        add(":scheme", "http");
        add(":authority", "a");
        add(":path", "/");
        bool usual = c.line.name == ":method" || c.line.name == ":scheme" || c.line.name == ":authority" ||
                     c.line.name == ":path";
        if (!usual) CHECK(r.reader.add(c.line.name, c.line.value));
        H2Head head = r.reader.finish(true);
        Framing framing;
        CHECK((head.rule == Rule::ok ? frame_h2_request(head, framing) : head.rule) == c.rule);
    }
}

TEST_CASE("pseudo-header fields come once, all of them, and first") {
    Reading r;
    CHECK(r.request({{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}}) == Rule::h2_pseudo_field);
    CHECK(r.request({{":method", "GET"}, {":path", "/"}, {":authority", "a"}}) == Rule::h2_pseudo_field);
    CHECK(r.request(
              {{":method", "GET"}, {":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}}) ==
          Rule::h2_pseudo_field);
    CHECK(r.request({{":method", "GET"}, {":scheme", "http"}, {"host", "a"}, {":path", "/"}}) ==
          Rule::h2_pseudo_field);
}

TEST_CASE("CONNECT is told from extended CONNECT, which must have been announced") {
    Reading r;
    CHECK(r.request({{":method", "CONNECT"}, {":authority", "a:443"}}) == Rule::ok);
    CHECK(r.request({{":method", "CONNECT"}, {":authority", "a:443"}, {":path", "/"}, {":scheme", "http"}}) ==
          Rule::h2_pseudo_field);
    H2Limits limits;
    limits.connect_protocol = true;
    Reading announced(limits);
    CHECK(announced.request({{":method", "CONNECT"},
                             {":protocol", "websocket"},
                             {":scheme", "https"},
                             {":path", "/chat"},
                             {":authority", "a"}},
                            false) == Rule::ok);
    CHECK(announced.request({{":method", "CONNECT"}, {":protocol", "websocket"}, {":authority", "a"}}) !=
          Rule::ok);
}

TEST_CASE("a head over its limit is still read so far that it can be answered") {
    H2Limits limits;
    limits.fields = 5;
    limits.head_bytes = 100;
    Reading r(limits);
    H2Head head = r.read(H2HeadReader::Kind::request,
                         {{":method", "GET"},
                          {":scheme", "http"},
                          {":authority", "a"},
                          {":path", "/p"},
                          {"x", std::string_view("0123456789012345678901234567890123456789"
                                                 "0123456789012345678901234567890123456789"
                                                 "0123456789012345678901234567890123456789")}});
    CHECK(head.rule == Rule::head_too_long);
    CHECK(head.head.target() == "/p");
    CHECK(r.request({{":method", "GET"},
                     {":scheme", "http"},
                     {":authority", "a"},
                     {":path", "/p"},
                     {"b", "1"},
                     {"c", "1"},
                     {"d", "1"},
                     {"e", "1"},
                     {"f", "1"},
                     {"g", "1"}}) == Rule::too_many_fields);
}

TEST_CASE("a head many times over its limit is not read to its end") {
    Reading r;
    r.reader.begin(H2HeadReader::Kind::request);
    std::string value(4000, 'x');
    int taken = 0;
    while (r.reader.add("x", value)) ++taken;
    CHECK(taken < 100);
}

TEST_CASE("the end of the stream is the end of the message") {
    Reading r;
    CHECK(r.request({{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}}, false) ==
          Rule::ok);
    CHECK(r.framing.body == BodyKind::chunked);
    CHECK(r.request({{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}}, true) ==
          Rule::ok);
    CHECK(r.framing.body == BodyKind::none);
    CHECK(r.request({{":method", "POST"},
                     {":scheme", "http"},
                     {":path", "/"},
                     {"host", "a"},
                     {"content-length", "7"},
                     {"expect", "100-continue"}},
                    false) == Rule::ok);
    CHECK(r.framing.body == BodyKind::length);
    CHECK(r.framing.length == 7);
    CHECK(r.framing.expect_continue);
    CHECK(r.framing.keep_alive);
}

TEST_CASE("a response has one status of three digits") {
    Reading r;
    auto rule = [&](std::initializer_list<FieldLine> lines) {
        return r.read(H2HeadReader::Kind::response, lines).rule;
    };
    CHECK(rule({{":status", "200"}, {"a", "b"}}) == Rule::ok);
    CHECK(rule({{"a", "b"}}) == Rule::h2_pseudo_field);
    CHECK(rule({{":status", "20"}}) == Rule::status_invalid);
    CHECK(rule({{":status", "2000"}}) == Rule::status_invalid);
    CHECK(rule({{":status", "099"}}) == Rule::status_invalid);
    CHECK(rule({{":status", "200"}, {":status", "200"}}) == Rule::h2_pseudo_field);
    CHECK(rule({{":status", "200"}, {"connection", "close"}}) == Rule::h2_connection_field);

    Framing framing;
    H2Head head = r.read(H2HeadReader::Kind::response, {{":status", "200"}});
    CHECK(frame_h2_response(head.head, {}, false, framing) == Rule::ok);
    CHECK(framing.body == BodyKind::chunked);
    CHECK(frame_h2_response(head.head, {}, true, framing) == Rule::ok);
    CHECK(framing.body == BodyKind::none);
    head = r.read(H2HeadReader::Kind::response, {{":status", "200"}, {"content-length", "5"}});
    CHECK(frame_h2_response(head.head, {}, true, framing) == Rule::h2_body_differs);
    CHECK(frame_h2_response(head.head, {Method::head, false}, true, framing) == Rule::ok);
    CHECK(framing.declared == BodyKind::length);
    head = r.read(H2HeadReader::Kind::response, {{":status", "101"}});
    CHECK(frame_h2_response(head.head, {Method::get, true}, false, framing) == Rule::unexpected_101);
}

TEST_CASE("trailers have no pseudo-header fields") {
    Reading r;
    CHECK(r.read(H2HeadReader::Kind::trailers, {{"grpc-status", "0"}}).rule == Rule::ok);
    CHECK(r.read(H2HeadReader::Kind::trailers, {{":path", "/"}}).rule == Rule::h2_pseudo_field);
}
