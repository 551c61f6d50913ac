// The response reader: grammar, framing by what was asked, what may follow on the connection.
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "codec/h1_reader.h"
#include "oracle.h"

using namespace penstock;
using namespace std::string_literals;

namespace {

struct Answer {
    ReadStep step = ReadStep::need_more;
    Rule rule = Rule::ok;
    size_t consumed = 0;
    uint16_t status = 0;
    Version version = Version::http11;
    std::string reason;
    uint32_t fields = 0;
    Framing framing;
};

Answer read_in(const std::string& bytes, const Asked& asked, const std::vector<size_t>& sizes,
               const H1Limits& limits) {
    H1ResponseReader reader;
    Field room[100];
    Answer answer;
    for (size_t size : sizes) {
        Head head;
        std::string copy = bytes.substr(0, size);
        answer.step = reader.read(copy, limits, asked, room, head);
        answer.rule = reader.rule();
        if (answer.step == ReadStep::failed) return answer;
        if (answer.step == ReadStep::complete) {
            return {answer.step,      answer.rule,     reader.consumed(),
                    head.status,      head.version,    std::string(head.reason()),
                    head.field_count, reader.framing()};
        }
        for (Field& f : room) f = {77, 77, 77, 77, FieldId::proxy, 0xff};
    }
    return answer;
}

Answer read(const std::string& bytes, const Asked& asked = {}, const H1Limits& limits = {}) {
    INFO(fuzz::readable(bytes));
    Answer whole = read_in(bytes, asked, {bytes.size()}, limits);
    std::vector<size_t> each;
    for (size_t i = 1; i <= bytes.size(); i++) each.push_back(i);
    Answer split = read_in(bytes, asked, each, limits);
    CHECK(split.step == whole.step);
    CHECK(rule_name(split.rule) == rule_name(whole.rule));
    CHECK(split.consumed == whole.consumed);
    CHECK(split.status == whole.status);
    CHECK(split.reason == whole.reason);
    CHECK(split.fields == whole.fields);
    CHECK(split.framing.body == whole.framing.body);
    CHECK(split.framing.length == whole.framing.length);
    CHECK(split.framing.keep_alive == whole.framing.keep_alive);
    return whole;
}

Framing framing_of(const std::string& head, const Asked& asked = {}) {
    Answer answer = read(head + "\r\n", asked);
    INFO(head);
    CHECK(answer.step == ReadStep::complete);
    return answer.framing;
}

void check_refused(const std::string& bytes, Rule rule, const Asked& asked = {}) {
    Answer answer = read(bytes, asked);
    INFO(fuzz::readable(bytes));
    CHECK(answer.step == ReadStep::failed);
    CHECK(rule_name(answer.rule) == rule_name(rule));
}

constexpr Asked head{Method::head, false};
constexpr Asked connect{Method::connect, false};
constexpr Asked upgrade{Method::get, true};

}  // namespace

TEST_CASE("a plain response is read with its status, reason and fields") {
    Answer a = read("HTTP/1.1 200 All is well\r\nServer: s\r\nContent-Length: 5\r\n\r\nhello");
    CHECK(a.step == ReadStep::complete);
    CHECK(a.status == 200);
    CHECK(a.reason == "All is well");
    CHECK(a.fields == 2);
    CHECK(a.consumed == 58);
    CHECK(a.framing.body == BodyKind::length);
    CHECK(a.framing.length == 5);
    CHECK(a.framing.keep_alive);
}

TEST_CASE("the reason may be empty, and so may the space before it") {
    CHECK(read("HTTP/1.1 200 \r\n\r\n").reason == "");
    CHECK(read("HTTP/1.1 200\r\n\r\n").status == 200);
    CHECK(read("HTTP/1.1 404 Not\tFound \x80\r\n\r\n").reason == "Not\tFound \x80");
    CHECK(read("HTTP/1.0 999 Any\r\n\r\n").version == Version::http10);
}

TEST_CASE("a status line that is anything else is refused") {
    check_refused("HTTP/1.1 099 Low\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 000 Low\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 2000 Long\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 2x0 OK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 +20 OK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 -20 OK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 200OK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 200\tOK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1  200 OK\r\n\r\n", Rule::status_invalid);
    check_refused("HTTP/1.1 20\r\n\r\n", Rule::status_line_malformed);
    check_refused("HTTP/1.1\r\n\r\n", Rule::status_line_malformed);
    check_refused("HTTP/1.1200 OK\r\n\r\n", Rule::status_line_malformed);
    check_refused("HTTP/1.2 200 OK\r\n\r\n", Rule::version_unsupported);
    check_refused("HTTP/2.0 200 OK\r\n\r\n", Rule::version_unsupported);
    check_refused("HTTP/0.9 200 OK\r\n\r\n", Rule::version_unsupported);
    check_refused("HTTP/x.1 200 OK\r\n\r\n", Rule::version_invalid);
    check_refused("http/1.1 200 OK\r\n\r\n", Rule::status_line_malformed);
    check_refused("ICY 200 OK\r\n\r\n", Rule::status_line_malformed);
    check_refused(" HTTP/1.1 200 OK\r\n\r\n", Rule::status_line_malformed);
    check_refused("hello", Rule::status_line_malformed);
    check_refused("\0"s, Rule::status_line_malformed);
}

TEST_CASE("empty lines before a response are refused: they are left over from another one") {
    check_refused("\r\nHTTP/1.1 200 OK\r\n\r\n", Rule::status_line_malformed);
    check_refused("\r", Rule::status_line_malformed);
}

TEST_CASE("the field lines of a response are judged as strictly as those of a request") {
    check_refused("HTTP/1.1 200 OK\nX: y\n\n", Rule::bare_lf);
    check_refused("HTTP/1.1 200 OK\r\nX: y\n\r\n", Rule::bare_lf);
    check_refused("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", Rule::bare_cr);
    check_refused("HTTP/1.1 200 O\rK\r\n\r\n", Rule::bare_cr);
    check_refused("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"s, Rule::control_character);
    check_refused("HTTP/1.1 200 O\x1bK\r\n\r\n", Rule::control_character);
    check_refused("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Rule::line_folding);
    check_refused("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Rule::space_before_colon);
    check_refused("HTTP/1.1 200 OK\r\n: a\r\n\r\n", Rule::name_empty);
    check_refused("HTTP/1.1 200 OK\r\nnope\r\n\r\n", Rule::colon_missing);
}

TEST_CASE("limits hold for responses") {
    H1Limits limits;
    limits.head_bytes = 40;
    limits.fields = 1;
    CHECK(read("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", {}, limits).step == ReadStep::complete);
    CHECK(read("HTTP/1.1 200 OK\r\nX: y\r\nZ: a\r\n\r\n", {}, limits).rule == Rule::too_many_fields);
    CHECK(read("HTTP/1.1 200 OK\r\nX: " + std::string(20, 'y') + "\r\n\r\n", {}, limits).rule ==
          Rule::head_too_long);
    CHECK(read("HTTP/1.1 200 " + std::string(40, 'y'), {}, limits).rule == Rule::head_too_long);
}

TEST_CASE("without length and chunks a response goes on until the connection closes") {
    Framing f = framing_of("HTTP/1.1 200 OK\r\n");
    CHECK(f.body == BodyKind::until_close);
    CHECK_FALSE(f.keep_alive);
    CHECK(framing_of("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n").body == BodyKind::until_close);
    CHECK_FALSE(framing_of("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n").keep_alive);
}

TEST_CASE("a backend keeps its connection by version and by what Connection says") {
    std::string length = "Content-Length: 0\r\n";
    CHECK(framing_of("HTTP/1.1 200 OK\r\n" + length).keep_alive);
    CHECK_FALSE(framing_of("HTTP/1.1 200 OK\r\nConnection: close\r\n" + length).keep_alive);
    CHECK_FALSE(framing_of("HTTP/1.0 200 OK\r\n" + length).keep_alive);
    CHECK(framing_of("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + length).keep_alive);
}

TEST_CASE("answers to HEAD and 304 declare a body that does not come") {
    for (std::string line : {"HTTP/1.1 200 OK\r\n", "HTTP/1.1 304 Not Modified\r\n"}) {
        Asked asked = line.find("304") == line.npos ? head : Asked{};
        Framing f = framing_of(line + "Content-Length: 5\r\n", asked);
        CHECK(f.body == BodyKind::none);
        CHECK(f.declared == BodyKind::length);
        CHECK(f.length == 5);
        CHECK(f.keep_alive);
        f = framing_of(line + "Transfer-Encoding: chunked\r\n", asked);
        CHECK(f.body == BodyKind::none);
        CHECK(f.declared == BodyKind::chunked);
        f = framing_of(line, asked);
        CHECK(f.body == BodyKind::none);
        CHECK(f.declared == BodyKind::none);
        CHECK(f.keep_alive);
    }
}

TEST_CASE("interim answers and 204 have no body whatever they declare") {
    for (std::string line :
         {"HTTP/1.1 100 Continue\r\n", "HTTP/1.1 103 Early Hints\r\n", "HTTP/1.1 204 No Content\r\n"}) {
        for (std::string field : {"", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"}) {
            Framing f = framing_of(line + field);
            CHECK(f.body == BodyKind::none);
            CHECK(f.declared == BodyKind::none);
            CHECK(f.keep_alive);
        }
    }
}

TEST_CASE("101 is a tunnel when an upgrade was asked for, and refused when not") {
    std::string bytes =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    Answer a = read(bytes, upgrade);
    CHECK(a.framing.tunnel);
    CHECK(a.framing.upgrade);
    CHECK(a.framing.body == BodyKind::none);
    check_refused(bytes, Rule::unexpected_101);
    check_refused(bytes, Rule::unexpected_101, connect);
}

TEST_CASE("a final answer to an upgrade that is not 101 is a plain response") {
    Framing f = framing_of(
        "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", upgrade);
    CHECK_FALSE(f.tunnel);
    CHECK_FALSE(f.upgrade);
    CHECK(f.body == BodyKind::length);
}

TEST_CASE("2xx to CONNECT is a tunnel whatever it declares; other answers to it have bodies") {
    Framing f = framing_of("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", connect);
    CHECK(f.tunnel);
    CHECK(f.body == BodyKind::none);
    CHECK(framing_of("HTTP/1.1 299 OK\r\nTransfer-Encoding: chunked\r\n", connect).tunnel);
    f = framing_of("HTTP/1.1 403 No\r\nContent-Length: 5\r\n", connect);
    CHECK_FALSE(f.tunnel);
    CHECK(f.body == BodyKind::length);
}

TEST_CASE("ambiguous framing of a response is refused, even where no body can come") {
    for (std::string line : {"HTTP/1.1 200 OK\r\n", "HTTP/1.1 204 No\r\n", "HTTP/1.1 304 No\r\n"}) {
        check_refused(line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                      Rule::content_length_with_transfer_encoding);
        check_refused(line + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", Rule::content_length_repeated);
        check_refused(line + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", Rule::content_length_repeated);
        check_refused(line + "Content-Length: +5\r\n\r\n", Rule::content_length_invalid);
        check_refused(line + "Content-Length:\r\n\r\n", Rule::content_length_invalid);
        check_refused(line + "Transfer-Encoding:\r\n\r\n", Rule::transfer_encoding_empty);
    }
    std::string ok = "HTTP/1.1 200 OK\r\n";
    check_refused(ok + "Transfer-Encoding: gzip\r\n\r\n", Rule::transfer_encoding_not_chunked);
    check_refused(ok + "Transfer-Encoding: chunked, chunked\r\n\r\n", Rule::transfer_encoding_not_chunked);
    check_refused(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", Rule::transfer_encoding_unsupported);
    check_refused(ok + "Transfer-Encoding: identity, identity\r\n\r\n", Rule::transfer_encoding_not_chunked);
    check_refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Rule::transfer_encoding_in_http10);
}

TEST_CASE("transfer-encoding identity, as old servers say it, means until close") {
    Framing f = framing_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n");
    CHECK(f.body == BodyKind::until_close);
    CHECK_FALSE(f.keep_alive);
}

TEST_CASE("a second Host in a response hides nothing behind it") {
    CHECK(framing_of("HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\nContent-Length: 5\r\n").length == 5);
}

TEST_CASE("interim heads and the final one are read one after the other") {
    std::string bytes =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    H1ResponseReader reader;
    Field room[4];
    Head one;
    std::vector<int> statuses;
    std::string_view rest = bytes;
    while (!rest.empty()) {
        REQUIRE(reader.read(rest, {}, {}, room, one) == ReadStep::complete);
        statuses.push_back(one.status);
        rest.remove_prefix(reader.consumed());
        reader.reset();
    }
    CHECK(statuses == std::vector<int>{100, 103, 200});
}
