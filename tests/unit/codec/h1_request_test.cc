// The request reader: lines, names, targets, versions, limits.

#include "request_cases.h"

using namespace penstock;
using namespace penstock::cases;
using namespace std::string_literals;

TEST_CASE("a plain request is read with its fields, their order and letter case kept") {
    Answer a = read(
        "GET /a/b?c=d HTTP/1.1\r\nHost: a.example:80\r\nX-One:1\r\nx-two: \t two words "
        "\t\r\nX-Empty:\r\n\r\n");
    CHECK(a.step == ReadStep::complete);
    CHECK(a.method == Method::get);
    CHECK(a.version == Version::http11);
    CHECK(a.target == "/a/b?c=d");
    CHECK(a.fields == "Host=a.example:80|X-One=1|x-two=two words|X-Empty=");
    CHECK(a.framing.body == BodyKind::none);
    CHECK(a.framing.declared == BodyKind::none);
    CHECK(a.framing.keep_alive);
    CHECK_FALSE(a.framing.expect_continue);
    CHECK_FALSE(a.framing.upgrade);
}

TEST_CASE("a head ends where it ends: what follows is not consumed") {
    std::string head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    CHECK(read(head + "GET /2 HTTP/1.1\r\n").consumed == head.size());
    CHECK(read(head + "\r\n").consumed == head.size());
    CHECK(read(head + std::string(3, '\0')).consumed == head.size());
}

TEST_CASE("an incomplete head asks for more") {
    std::string head = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for (size_t size = 0; size < head.size(); size++)
        CHECK(read(head.substr(0, size)).step == ReadStep::need_more);
    CHECK(read(head).step == ReadStep::complete);
}

TEST_CASE("every method that llhttp knows is known, in its letter case only") {
    for (int m = int(Method::get); m <= int(Method::unsubscribe); m++) {
        std::string name(method_name(Method(m)));
        if (Method(m) == Method::connect) continue;
        CHECK(read(name + " / HTTP/1.1\r\nHost: a\r\n\r\n").method == Method(m));
    }
    check_refused({{"get / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::method_unknown},
                   {"Get / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::method_unknown},
                   {"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::method_unknown},
                   {"GETX / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::method_unknown},
                   {"GE / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::method_unknown}});
    CHECK(rule_status(Rule::method_unknown) == 501);
}

TEST_CASE("a request line that is not method, target, version with single spaces is refused") {
    check_refused({
        {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"GET\r\n\r\n", Rule::request_line_malformed},
        {"GET \r\n\r\n", Rule::request_line_malformed},
        {"G{T / HTTP/1.1\r\nHost: a\r\n\r\n", Rule::request_line_malformed},
        {"\x80"
         "GET / HTTP/1.1\r\n",
         Rule::request_line_malformed},
        {"hello\r\n", Rule::request_line_malformed},
        {": b\r\n", Rule::request_line_malformed},
    });
}

TEST_CASE("only HTTP/1.0 and HTTP/1.1 are served") {
    CHECK(read("GET / HTTP/1.0\r\n\r\n").version == Version::http10);
    check_refused({
        {"GET /\r\n", Rule::version_missing},  // HTTP/0.9
        {"GET / HTTP/0.9\r\nHost: a\r\n\r\n", Rule::version_unsupported},
        {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Rule::version_unsupported},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Rule::version_unsupported},
        {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", Rule::version_unsupported},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Rule::http2_preface},
        {"GET / http/1.1\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/1\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/11\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/1,1\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", Rule::version_invalid},
        {"GET / XHTTP/1.1\r\nHost: a\r\n\r\n", Rule::version_invalid},
    });
    CHECK(rule_status(Rule::version_unsupported) == 505);
    CHECK(rule_status(Rule::http2_preface) == 505);
}

TEST_CASE("a few empty lines before a request are skipped, more are not") {
    std::string head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    Answer a = read("\r\n" + head);
    CHECK(a.step == ReadStep::complete);
    CHECK(a.consumed == head.size() + 2);
    CHECK(a.target == "/");
    CHECK(a.fields == "Host=a");
    CHECK(read("\r\n\r\n\r\n\r\n" + head).step == ReadStep::complete);
    check_refused({{"\r\n\r\n\r\n\r\n\r\n" + head, Rule::leading_garbage},
                   {"\n" + head, Rule::bare_lf},
                   {"\r" + head, Rule::bare_cr},
                   {" \r\n" + head, Rule::request_line_malformed}});
}

TEST_CASE("line ends are CRLF, and control characters stand nowhere") {
    check_refused({
        {"GET / HTTP/1.1\nHost: a\n\n", Rule::bare_lf},
        {"GET / HTTP/1.1\r\nHost: a\n\r\n", Rule::bare_lf},
        {"GET / HTTP/1.1\r\nHost: a\r\n\n", Rule::bare_lf},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: q\r\n\r\n", Rule::bare_lf},
        {"GET / HTTP/1.1\rHost: a\r\n\r\n", Rule::bare_cr},
        {"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Rule::bare_cr},
        {"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Rule::bare_cr},
        {"GET / HTTP/1.1\r\nX: a\rb\r\nHost: a\r\n\r\n", Rule::bare_cr},
        {"GET / HTTP/1.1\r\nHost: a\r\n\rX", Rule::bare_cr},
        {"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"s, Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"s, Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"s, Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01\r\n\r\n", Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0b\r\n\r\n", Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", Rule::control_character},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x1b[31m\r\n\r\n", Rule::control_character},
        {"\x16\x03\x01\x02\x00"s, Rule::control_character},  // a TLS hello
        {"\0"s, Rule::control_character},
    });
}

TEST_CASE("what is wrong is said as soon as it is seen, not when the head ends") {
    CHECK(read("\x16").step == ReadStep::failed);
    CHECK(read("\xff").step == ReadStep::failed);
    CHECK(read("GET / HTTP/1.1\n").step == ReadStep::failed);
    CHECK(read("FOO / HTTP/1.1\r\n").step == ReadStep::failed);
    CHECK(read("GET / HTTP/1.1\r\nHost : a\r\n").step == ReadStep::failed);
    CHECK(read("GET / HTTP/1.1\r\nX: \r ").step == ReadStep::failed);
}

TEST_CASE("every octet that may stand in a value is kept, every other refused, at every place in a word") {
    for (int c = 0; c < 256; c++) {
        for (size_t before = 0; before < 17; before++) {
            std::string value = std::string(before, 'a') + char(c) + std::string(9, 'z');
            std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\nX: " + value + "\r\n\r\n";
            Answer a = read_in(bytes, {bytes.size()}, {});
            bool legal = c == '\t' || (c >= 0x20 && c != 0x7f);
            CHECK((a.step == ReadStep::complete) == legal);
            bool trimmed = before == 0 && (c == ' ' || c == '\t');
            if (legal) CHECK(a.fields == "Host=a|X=" + (trimmed ? std::string(9, 'z') : value));
        }
    }
}

TEST_CASE("every octet that may stand in a name is kept, every other refused") {
    for (int c = 0; c < 256; c++) {
        std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\nX" + std::string(1, char(c)) + "y: z\r\n\r\n";
        Answer a = read_in(bytes, {bytes.size()}, {});
        bool token =
            isalnum(c) || std::string_view("!#$%&'*+-.^_`|~").find(char(c)) != std::string_view::npos;
        if (c == 0 || c >= 0x80) token = false;
        INFO("octet ", c);
        if (c == ':') {
            CHECK(a.fields == "Host=a|X=y: z");
        } else {
            CHECK((a.step == ReadStep::complete) == token);
        }
    }
}

TEST_CASE("field lines that are no name, colon and value are refused") {
    check_refused({
        {request("X : y\r\n"), Rule::space_before_colon},
        {request("X\t: y\r\n"), Rule::space_before_colon},
        {request("Content-Length : 5\r\n"), Rule::space_before_colon},
        {request("Transfer-Encoding : chunked\r\n"), Rule::space_before_colon},
        {request("X y: z\r\n"), Rule::space_before_colon},
        {request(" X: y\r\n"), Rule::line_folding},
        {request("\tX: y\r\n"), Rule::line_folding},
        {request("X: y\r\n folded\r\n"), Rule::line_folding},
        {request("X: y\r\n\tfolded: z\r\n"), Rule::line_folding},
        {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Rule::line_folding},
        {request(" \r\n"), Rule::line_folding},
        {request(": y\r\n"), Rule::name_empty},
        {request(":\r\n"), Rule::name_empty},
        {request("no colon\r\n"), Rule::colon_missing},
        {request("nocolon\r\n"), Rule::colon_missing},
        {request("X(: y\r\n"), Rule::name_invalid},
        {request("X@y: z\r\n"), Rule::name_invalid},
        {request("\"X\": z\r\n"), Rule::name_invalid},
        {request("X\x80: z\r\n"), Rule::name_invalid},
        {request(std::string(1025, 'x') + ": y\r\n"), Rule::name_too_long},
    });
    CHECK(read(request(std::string(1024, 'x') + ": y\r\n")).step == ReadStep::complete);
    CHECK(rule_status(Rule::name_too_long) == 431);
}

TEST_CASE("a request of HTTP/1.1 names its host exactly once, and legally") {
    for (const char* host : {"a.example", "a.example:8080", "a.example:", "127.0.0.1:80", "[::1]",
                             "[2001:db8::1]:443", "under_score", "", "xn--bcher-kva.example", "a.example."}) {
        INFO(host);
        CHECK(read("GET / HTTP/1.1\r\nHost: "s + host + "\r\n\r\n").step == ReadStep::complete);
    }
    check_refused({
        {"GET / HTTP/1.1\r\n\r\n", Rule::host_missing},
        {"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", Rule::host_missing},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Rule::host_repeated},
        {"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Rule::host_repeated},
        {"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Rule::host_repeated},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: [g::1]\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: \x80\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: a%00b\r\n\r\n", Rule::host_invalid},
        {"GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", Rule::host_invalid},
    });
    CHECK(read("GET / HTTP/1.0\r\n\r\n").step == ReadStep::complete);
}

TEST_CASE("the target's form fits the method") {
    for (const char* line :
         {"GET / HTTP/1.1", "GET //a HTTP/1.1", "GET /a?b?c HTTP/1.1", "OPTIONS * HTTP/1.1",
          "GET http://a.example/ HTTP/1.1", "GET HTTP://A.EXAMPLE:80/ HTTP/1.1",
          "GET http://a.example HTTP/1.1", "GET http://a.example?q HTTP/1.1", "GET /\"<>\\^`{|}~ HTTP/1.1",
          "GET /%zz HTTP/1.1"}) {
        INFO(line);
        CHECK(read(request("", line)).step == ReadStep::complete);
    }
    CHECK(read("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n").step == ReadStep::complete);
    check_refused({
        {request("", "GET * HTTP/1.1"), Rule::target_form},
        {request("", "GET a HTTP/1.1"), Rule::target_form},
        {request("", "GET a.example:80 HTTP/1.1"), Rule::target_form},
        {request("", "GET ?q HTTP/1.1"), Rule::target_form},
        {request("", "GET ftp://a.example/ HTTP/1.1"), Rule::target_form},
        {request("", "OPTIONS *a HTTP/1.1"), Rule::target_form},
        {request("", "CONNECT / HTTP/1.1"), Rule::target_form},
        {request("", "CONNECT a.example HTTP/1.1"), Rule::target_form},
        {request("", "CONNECT http://a.example:80/ HTTP/1.1"), Rule::target_form},
        {request("", "CONNECT a.example: HTTP/1.1"), Rule::host_invalid},
        {request("", "CONNECT :80 HTTP/1.1"), Rule::host_invalid},
        {request("", "CONNECT u@a.example:80 HTTP/1.1"), Rule::target_userinfo},
        {request("", "CONNECT b.example:80 HTTP/1.1"), Rule::host_differs},
        {request("", "GET /a#b HTTP/1.1"), Rule::target_invalid},
        {request("", "GET /\x80 HTTP/1.1"), Rule::target_invalid},
        {request("", "GET /a\tb HTTP/1.1"), Rule::target_invalid},
        {request("", "GET http://u@a.example/ HTTP/1.1"), Rule::target_userinfo},
        {request("", "GET http://u:p@a.example/ HTTP/1.1"), Rule::target_userinfo},
        {request("", "GET http:/// HTTP/1.1"), Rule::host_invalid},
        {request("", "GET http://?q HTTP/1.1"), Rule::host_invalid},
        {request("", "GET http://b.example/ HTTP/1.1"), Rule::host_differs},
        {request("", "GET http://a.example:8080/ HTTP/1.1"), Rule::host_differs},
        {request("", "GET https://a.example:80/ HTTP/1.1"), Rule::host_differs},
    });
}

TEST_CASE("a request line too long is 414, a head too long 431, at the same byte however they come") {
    H1Limits limits;
    limits.line_bytes = 30;
    limits.head_bytes = 60;
    limits.fields = 3;
    std::string start = "GET / HTTP/1.1\r\nHost: a\r\n";

    std::string line = "GET /" + std::string(14, 'a') + " HTTP/1.1\r\n";
    REQUIRE(line.size() == 30);
    CHECK(read(line + "Host: a\r\n\r\n", limits).step == ReadStep::complete);
    line.insert(5, "a");
    CHECK(read(line + "Host: a\r\n\r\n", limits).rule == Rule::target_too_long);
    CHECK(read(std::string(30, 'a'), limits).rule == Rule::target_too_long);
    CHECK(read(std::string(29, 'a'), limits).step == ReadStep::need_more);

    std::string head = start + "X: " + std::string(60 - start.size() - 7, 'y') + "\r\n\r\n";
    REQUIRE(head.size() == 60);
    CHECK(read(head, limits).step == ReadStep::complete);
    CHECK(read("\r\n\r\n" + head, limits).step == ReadStep::complete);
    head.insert(30, "y");
    CHECK(read(head, limits).rule == Rule::head_too_long);
    CHECK(read(head.substr(0, 60), limits).rule == Rule::head_too_long);

    CHECK(read(start + "A: b\r\nC: d\r\n\r\n", limits).step == ReadStep::complete);
    CHECK(read(start + "A: b\r\nC: d\r\nE: f\r\n\r\n", limits).rule == Rule::too_many_fields);
    CHECK(rule_status(Rule::target_too_long) == 414);
    CHECK(rule_status(Rule::head_too_long) == 431);
    CHECK(rule_status(Rule::too_many_fields) == 431);
}

TEST_CASE("the caller's room bounds the fields too") {
    H1RequestReader reader;
    Field room[2];
    Head head;
    CHECK(reader.read("GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n", {}, room, head) ==
          ReadStep::failed);
    CHECK(reader.rule() == Rule::too_many_fields);
}

TEST_CASE("a reader that failed stays failed until it is reset") {
    H1RequestReader reader;
    Field room[8];
    Head head;
    CHECK(reader.read("X\r\n", {}, room, head) == ReadStep::failed);
    CHECK(reader.read("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {}, room, head) == ReadStep::failed);
    reader.reset();
    CHECK(reader.read("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {}, room, head) == ReadStep::complete);
}

TEST_CASE("a reader knows whether a request has begun") {
    H1RequestReader reader;
    Field room[8];
    Head head;
    CHECK_FALSE(reader.started());
    CHECK(reader.read("\r\n", {}, room, head) == ReadStep::need_more);
    CHECK_FALSE(reader.started());
    CHECK(reader.read("\r\nG", {}, room, head) == ReadStep::need_more);
    CHECK(reader.started());
}

TEST_CASE("fields know their id and whether their name has an alias") {
    H1RequestReader reader;
    Field room[8];
    Head head;
    std::string bytes =
        "GET / HTTP/1.1\r\nhOsT: a\r\nX_Real_IP: b\r\nx-penstock-slot: 1\r\nX-Other: c\r\n\r\n";
    REQUIRE(reader.read(bytes, {}, room, head) == ReadStep::complete);
    CHECK(head.fields[0].id == FieldId::host);
    CHECK(head.fields[1].id == FieldId::other);
    CHECK((head.fields[1].flags & field_aliased) != 0);
    CHECK(head.fields[2].id == FieldId::x_penstock);
    CHECK(head.fields[3].id == FieldId::other);
    CHECK(head.fields[3].flags == 0);
    CHECK(head.value_of(FieldId::host) == "a");
    CHECK(head.value_of("x-other") == "c");
}
