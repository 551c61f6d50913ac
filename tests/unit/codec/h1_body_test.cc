// Bodies and trailers. Every case is read at once and in steps of every size up to its own.
#include <cstring>
#include <doctest/doctest.h>
#include <string>

#include "codec/h1_reader.h"
#include "oracle.h"

using namespace penstock;
using namespace std::string_literals;

namespace {

struct Answer {
    BodyStep step = BodyStep::need_more;
    Rule rule = Rule::ok;
    std::string data;
    size_t consumed = 0;
    std::string trailers;  // name=value|name=value; dropped ones in brackets

    bool operator==(const Answer&) const = default;
};

Answer read_in(H1BodyReader reader, const std::string& bytes, size_t step, const H1Limits& limits,
               bool closed) {
    Answer answer;
    bool in_trailers = false;
    for (size_t have = 0;;) {
        std::string copy = bytes.substr(answer.consumed, have - answer.consumed);
        Head trailers;
        Field room[8];
        BodyRead read =
            in_trailers ? reader.read_trailers(copy, limits, room, trailers) : reader.read(copy, limits);
        answer.consumed += read.consumed;
        answer.data.append(read.data);
        answer.step = read.step;
        answer.rule = reader.rule();
        for (const Field& f : trailers) {
            bool dropped = f.flags & field_dropped;
            if (!answer.trailers.empty()) answer.trailers += '|';
            answer.trailers += (dropped ? "[" : "") + std::string(trailers.name(f)) + "=" +
                               std::string(trailers.value(f)) + (dropped ? "]" : "");
        }
        if (read.step == BodyStep::complete) return answer;
        if (read.step == BodyStep::failed) {
            answer.consumed = 0;  // means nothing
            return answer;
        }
        in_trailers |= read.step == BodyStep::trailers;
        if (read.step != BodyStep::need_more) continue;
        if (have == bytes.size()) break;
        have += std::min(step, bytes.size() - have);
    }
    if (closed) {
        answer.step = reader.finish();
        answer.rule = reader.rule();
    }
    return answer;
}

Answer read(BodyKind kind, uint64_t length, const std::string& bytes, const H1Limits& limits = {},
            bool closed = false) {
    INFO(fuzz::readable(bytes));
    H1BodyReader reader;
    reader.start(kind, length);
    Answer whole = read_in(reader, bytes, SIZE_MAX, limits, closed);
    for (size_t step = 1; step < std::min<size_t>(bytes.size(), 400); step++) {
        CHECK(read_in(reader, bytes, step, limits, closed) == whole);
    }
    return whole;
}

Answer read_chunked(const std::string& bytes, const H1Limits& limits = {}) {
    return read(BodyKind::chunked, 0, bytes, limits);
}

void check_refused(const std::string& bytes, Rule rule, const H1Limits& limits = {}) {
    INFO(fuzz::readable(bytes));
    Answer answer = read_chunked(bytes, limits);
    CHECK(answer.step == BodyStep::failed);
    CHECK(rule_name(answer.rule) == rule_name(rule));
}

}  // namespace

TEST_CASE("no body is complete at once and consumes nothing") {
    Answer a = read(BodyKind::none, 0, "GET /");
    CHECK(a.step == BodyStep::complete);
    CHECK(a.consumed == 0);
    CHECK(read(BodyKind::length, 0, "x").consumed == 0);
}

TEST_CASE("a body of known length ends with its last byte and touches no more") {
    Answer a = read(BodyKind::length, 5, "helloGET /");
    CHECK(a.step == BodyStep::complete);
    CHECK(a.data == "hello");
    CHECK(a.consumed == 5);
    CHECK(read(BodyKind::length, 5, "hell").step == BodyStep::need_more);
    CHECK(read(BodyKind::length, 5, "hello").step == BodyStep::complete);
}

TEST_CASE("a reader says how much of a known length is still to come") {
    H1BodyReader reader;
    reader.start(BodyKind::length, 10);
    CHECK(reader.remaining() == 10);
    CHECK(reader.read("abc", {}).data == "abc");
    CHECK(reader.remaining() == 7);
    CHECK_FALSE(reader.is_complete());
    CHECK(reader.read("defghij", {}).step == BodyStep::data);
    CHECK(reader.is_complete());
}

TEST_CASE("EOF completes only what goes on until close") {
    CHECK(read(BodyKind::until_close, 0, "hello", {}, true).step == BodyStep::complete);
    CHECK(read(BodyKind::until_close, 0, "", {}, true).step == BodyStep::complete);
    CHECK(read(BodyKind::until_close, 0, "hello", {}, true).data == "hello");
    CHECK(read(BodyKind::length, 5, "hell", {}, true).rule == Rule::truncated);
    CHECK(read(BodyKind::chunked, 0, "5\r\nhello\r\n", {}, true).rule == Rule::truncated);
    CHECK(read(BodyKind::chunked, 0, "5\r\nhel", {}, true).rule == Rule::truncated);
    CHECK(read(BodyKind::chunked, 0, "5\r\nhello\r\n0\r\n", {}, true).rule == Rule::truncated);
    CHECK(read(BodyKind::chunked, 0, "5\r\nhello\r\n0\r\n\r\n", {}, true).step == BodyStep::complete);
}

TEST_CASE("chunks are put together, and the body ends with the empty line") {
    Answer a = read_chunked("5\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\n\r\nGET /");
    CHECK(a.step == BodyStep::complete);
    CHECK(a.data == "hello 0123456789");
    CHECK(a.consumed == 36);
    CHECK(a.trailers == "");
    CHECK(read_chunked("0\r\n\r\n").consumed == 5);
    CHECK(read_chunked("000\r\n\r\n").step == BodyStep::complete);
    CHECK(read_chunked("a\r\n0123456789\r\n0\r\n\r\n").data == "0123456789");
    CHECK(read_chunked("0005\r\nhello\r\n0\r\n\r\n").data == "hello");
    CHECK(read_chunked("2\r\n\r\n\r\n0\r\n\r\n").data == "\r\n");
}

TEST_CASE("the data of a chunk is given without a copy") {
    std::string bytes = "5\r\nhello\r\n";
    H1BodyReader reader;
    reader.start(BodyKind::chunked, 0);
    BodyRead read = reader.read(bytes, {});
    CHECK(read.data.data() == bytes.data() + 3);
    CHECK(read.consumed == 8);
}

TEST_CASE("an incomplete chunked body asks for more") {
    std::string bytes = "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for (size_t size = 0; size < bytes.size(); size++)
        CHECK(read_chunked(bytes.substr(0, size)).step == BodyStep::need_more);
    CHECK(read_chunked(bytes).step == BodyStep::complete);
}

TEST_CASE("a chunk size is hex digits and nothing else, and does not overflow") {
    for (std::string bad :
         {"", "g", "-5", "+5", "0x5", " 5", "5 ", "5\t", "5,", "5x", "\x80", "\"5\"", "5 ;a", "5\t;a"}) {
        check_refused(bad + "\r\nhello\r\n", Rule::chunk_size_invalid);
    }
    check_refused("\r\nhello\r\n", Rule::chunk_size_invalid);
    check_refused(";a\r\nhello\r\n", Rule::chunk_size_invalid);
    check_refused("5\0\r\nhello\r\n"s, Rule::chunk_size_invalid);
    CHECK(read_chunked("7fffffffffffffff\r\nhello").data == "hello");
    check_refused("8000000000000000\r\nhello", Rule::chunk_size_overflow);
    check_refused("ffffffffffffffff\r\nhello", Rule::chunk_size_overflow);
    check_refused("10000000000000005\r\nhello\r\n", Rule::chunk_size_overflow);
    check_refused("100000000000000000000000000000005\r\nhello\r\n", Rule::chunk_size_overflow);
    CHECK(read_chunked(std::string(100, '0') + "5\r\nhello\r\n0\r\n\r\n").data == "hello");
}

TEST_CASE("chunk lines and chunks end in CRLF") {
    check_refused("5\nhello\r\n0\r\n\r\n", Rule::bare_lf);
    check_refused("5;a\nhello\r\n0\r\n\r\n", Rule::bare_lf);
    check_refused("5\rhello\r\n", Rule::bare_cr);
    check_refused("5\r\rhello\r\n", Rule::bare_cr);
    check_refused("5\r\nhelloX\r\n", Rule::chunk_end_missing);
    check_refused("5\r\nhello\n0\r\n\r\n", Rule::chunk_end_missing);
    check_refused("5\r\nhello0\r\n\r\n", Rule::chunk_end_missing);
    check_refused("5\r\nhello\r0\r\n\r\n", Rule::chunk_end_missing);
    check_refused("5\r\nhello world\r\n0\r\n\r\n", Rule::chunk_end_missing);
    check_refused("0\n\n", Rule::bare_lf);
    check_refused("0\r\n\n", Rule::bare_lf);
}

TEST_CASE("chunk extensions are read and forgotten where they are well-formed, else refused") {
    for (std::string good : {";a", ";a;b", ";a=b", ";a;b=c", ";a=\"b\"", ";a=\"\"", ";a=\"b c;d=e,\x80\"",
                             ";a=\"b\";c", ";a=\"\t\"", ";signature=0123456789abcdef"}) {
        INFO(good);
        std::string bytes = "5" + good;
        bytes += "\r\nhello\r\n0" + good;
        CHECK(read_chunked(bytes + "\r\n\r\n").data == "hello");
    }
    for (std::string bad :
         {";", ";;a", ";=b", ";a=", ";a;", "; a", ";a ", ";a =b", ";a= b", ";a=b ", ";a=b;c", ";a=\"b\"c",
          ";a=\"b\\\"c\"", ";a=\"\x01\"", ";a=\"\r\n\"", ";a\x7f", ";a=b\"", ";(a)", ";a\x80"}) {
        INFO(bad);
        check_refused("5" + bad + "\r\nhello\r\n0\r\n\r\n", Rule::chunk_extension_invalid);
    }
    check_refused("5;a=\"b\0\"\r\n"s, Rule::chunk_extension_invalid);
}

TEST_CASE("one chunk line, and all extensions together, have bounds") {
    H1Limits limits;
    limits.chunk_line_bytes = 10;
    limits.chunk_extension_bytes = 12;
    CHECK(read_chunked("5;abcdef\r\nhello\r\n0\r\n\r\n", limits).data == "hello");
    check_refused("5;abcdefg\r\nhello\r\n0\r\n\r\n", Rule::chunk_line_too_long, limits);
    check_refused("00000000005\r\nhello\r\n0\r\n\r\n", Rule::chunk_line_too_long, limits);
    check_refused("1;abcd\r\nx\r\n1;abcd\r\nx\r\n1;abcd\r\nx\r\n0\r\n\r\n", Rule::chunk_extensions_too_long,
                  limits);
}

TEST_CASE("a body longer than allowed is refused when its size is read, before its data") {
    H1Limits limits;
    limits.body_bytes = 10;
    CHECK(read_chunked("5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", limits).data == "helloworld");
    Answer a = read_chunked("5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n", limits);
    CHECK(a.rule == Rule::body_too_long);
    CHECK(a.data == "hello");
    check_refused("7fffffffffffffff\r\n", Rule::body_too_long, limits);
    H1BodyReader reader;
    reader.start(BodyKind::until_close, 0);
    CHECK(reader.read("0123456789", limits).step == BodyStep::data);
    CHECK(reader.read("x", limits).step == BodyStep::failed);
    CHECK(reader.rule() == Rule::body_too_long);
    CHECK(rule_status(Rule::body_too_long) == 413);
}

TEST_CASE("trailers are read, and end with an empty line") {
    Answer a =
        read_chunked("5\r\nhello\r\n0\r\nX-Sum: abc\r\nServer-Timing: a;dur=1\r\ngrpc-status:0\r\n\r\nHTTP");
    CHECK(a.step == BodyStep::complete);
    CHECK(a.trailers == "X-Sum=abc|Server-Timing=a;dur=1|grpc-status=0");
    CHECK(a.consumed == 66);
}

TEST_CASE("trailers that would frame the message are refused") {
    for (std::string bad :
         {"Content-Length: 5", "content-length: 0", "Transfer-Encoding: chunked", "Host: a"}) {
        check_refused("0\r\n" + bad + "\r\n\r\n", Rule::trailer_forbidden);
        check_refused("5\r\nhello\r\n0\r\nX: y\r\n" + bad + "\r\n\r\n", Rule::trailer_forbidden);
    }
}

TEST_CASE("other names that must not come in trailers are dropped") {
    for (std::string name : {"Authorization",
                             "Cookie",
                             "Set-Cookie",
                             "Connection",
                             "Keep-Alive",
                             "Upgrade",
                             "TE",
                             "Trailer",
                             "Expect",
                             "Content-Type",
                             "Content-Encoding",
                             "Content-Range",
                             "Cache-Control",
                             "Location",
                             "X-Forwarded-For",
                             "Forwarded",
                             "X-Real-IP",
                             "x-penstock-slot",
                             "Proxy",
                             "Range",
                             "Vary",
                             "Retry-After",
                             "If-Match",
                             "WWW-Authenticate",
                             "Proxy-Authorization",
                             "X-Request-Id"}) {
        INFO(name);
        CHECK(read_chunked("0\r\n" + name + ": a\r\nX: y\r\n\r\n").trailers == "[" + name + "=a]|X=y");
    }
}

TEST_CASE("trailers are judged as strictly as fields") {
    check_refused("0\r\nX : y\r\n\r\n", Rule::space_before_colon);
    check_refused("0\r\n X: y\r\n\r\n", Rule::line_folding);
    check_refused("0\r\nX: y\r\n z\r\n\r\n", Rule::line_folding);
    check_refused("0\r\nX: y\n\r\n", Rule::bare_lf);
    check_refused("0\r\nX: y\rz\r\n\r\n", Rule::bare_cr);
    check_refused("0\r\nX: \0\r\n\r\n"s, Rule::control_character);
    check_refused("0\r\n: y\r\n\r\n", Rule::name_empty);
    check_refused("0\r\nno colon\r\n\r\n", Rule::colon_missing);
    H1Limits limits;
    limits.trailer_bytes = 20;
    limits.fields = 2;
    CHECK(read_chunked("0\r\nX: " + std::string(13, 'y') + "\r\n\r\n", limits).step == BodyStep::complete);
    check_refused("0\r\nX: " + std::string(14, 'y') + "\r\n\r\n", Rule::trailers_too_long, limits);
    check_refused("0\r\nA: b\r\nC: d\r\nE: f\r\n\r\n", Rule::too_many_fields, limits);
}

TEST_CASE("a reader that failed stays failed") {
    H1BodyReader reader;
    reader.start(BodyKind::chunked, 0);
    CHECK(reader.read("x", {}).step == BodyStep::failed);
    CHECK(reader.read("5\r\nhello", {}).step == BodyStep::failed);
    CHECK(reader.finish() == BodyStep::failed);
    CHECK(reader.rule() == Rule::chunk_size_invalid);
}
