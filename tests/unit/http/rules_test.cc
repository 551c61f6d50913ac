#include "http/rules.h"

#include <set>
#include <string>

#include "parsed.h"

using namespace penstock;

namespace {

Rule framed(const Made& made, Framing& framing) { return frame_request(made.head, framing); }

}  // namespace

TEST_CASE("every rule has its own name and a status that refuses") {
    std::set<std::string_view> names;
    for (int r = 0; r <= int(Rule::h2_malformed); r++) {
        names.insert(rule_name(Rule(r)));
        CHECK(is_token(rule_name(Rule(r))));
        CHECK((r == 0) == (rule_status(Rule(r)) == 200));
        if (r) CHECK(rule_status(Rule(r)) / 100 >= 4);
    }
    CHECK(names.size() == size_t(Rule::h2_malformed) + 1);
}

TEST_CASE("a request built for HTTP/2 is framed by the same rules") {
    Framing framing;
    Made post(Method::post, "/a", {{"content-length", "5"}}, Version::http2);
    CHECK(framed(post, framing) == Rule::ok);
    CHECK(framing.body == BodyKind::length);
    CHECK(framing.keep_alive);
    CHECK(framed(Made(Method::get, "/a b", {}, Version::http2), framing) == Rule::target_invalid);
    CHECK(framed(Made(Method::get, "/", {{"host", "a b"}}, Version::http2), framing) == Rule::host_invalid);
    CHECK(framed(Made(Method::get, "/", {{"host", "a"}, {"host", "a"}}, Version::http2), framing) ==
          Rule::host_repeated);
    CHECK(framed(Made(Method::post, "/", {{"content-length", "5"}, {"content-length", "5"}}, Version::http2),
                 framing) == Rule::content_length_repeated);
}

TEST_CASE("HTTP/2 has no fields of the connection and no upper case") {
    CHECK(check_h2_fields(Made({{"a", "b"}, {"te", "trailers"}}).head) == Rule::ok);
    CHECK(check_h2_fields(Made({{"A", "b"}}).head) == Rule::h2_name_uppercase);
    CHECK(check_h2_fields(Made({{"te", "gzip"}}).head) == Rule::h2_connection_field);
    CHECK(check_h2_fields(Made({{"te", "trailers, gzip"}}).head) == Rule::h2_connection_field);
    for (std::string_view name :
         {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}) {
        CHECK(check_h2_fields(Made({{name, "x"}}).head) == Rule::h2_connection_field);
    }
}

TEST_CASE("methods are safe and idempotent as RFC 9110 says") {
    for (Method m : {Method::get, Method::head, Method::options, Method::trace}) {
        CHECK(is_safe(m));
        CHECK(is_idempotent(m));
    }
    for (Method m : {Method::put, Method::delete_}) {
        CHECK_FALSE(is_safe(m));
        CHECK(is_idempotent(m));
    }
    for (Method m : {Method::post, Method::patch, Method::connect, Method::lock, Method::other}) {
        CHECK_FALSE(is_safe(m));
        CHECK_FALSE(is_idempotent(m));
    }
}

TEST_CASE("which statuses have no body") {
    for (uint16_t s : {100, 101, 103, 199, 204, 304}) CHECK(has_no_body(s));
    for (uint16_t s : {200, 201, 205, 206, 301, 400, 404, 500}) CHECK_FALSE(has_no_body(s));
    CHECK(is_interim(100));
    CHECK_FALSE(is_interim(200));
}

TEST_CASE("request ids are short and of a sane alphabet, or replaced") {
    CHECK(is_request_id("a"));
    CHECK(is_request_id("0af7651916cd43dd-8448eb211c80319c_.:/+=@"));
    CHECK(is_request_id(std::string(128, 'a')));
    CHECK_FALSE(is_request_id(""));
    CHECK_FALSE(is_request_id(std::string(129, 'a')));
    for (std::string_view bad : {"a b", "a\"b", "a\nb", "<a>", "a,b", "a;b", "a\\b", "\x80", "a%b", "{a}"}) {
        CHECK_FALSE(is_request_id(bad));
    }
}

TEST_CASE("a traceparent is of version 00 and names a trace and a parent") {
    CHECK(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    for (std::string_view bad : {"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                                 "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                 "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                 "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                 "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                                 "00-0af7651916cd43dd8448eb211c80319cxb7ad6b7169203331-01",
                                 "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g"}) {
        CHECK_FALSE(is_traceparent(bad));
    }
}

TEST_CASE("hosts and their ports are of the plainest alphabet") {
    for (std::string_view good :
         {"", "a", "a.b-c_d~", "127.0.0.1", "a:0", "a:65535", "a:", "[::]", "[::ffff:1.2.3.4]:80"}) {
        CHECK(is_host(good));
    }
    for (std::string_view bad : {"a b", "a:65536", "a:000080", "a:-1", "[]", "[:]", "[::1]80", "a]", "[a",
                                 "a,b", "a%41", "é", ":"}) {
        INFO(bad);
        CHECK_FALSE(is_host(bad));
    }
}
