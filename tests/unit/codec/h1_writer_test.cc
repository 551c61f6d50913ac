// The writer: what is copied, what is made anew, and that bound() is never passed.
#include "codec/h1_writer.h"

#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "base/arena.h"
#include "codec/h1_reader.h"
#include "http/forward.h"
#include "oracle.h"

using namespace penstock;

namespace {

// A head that was read from text, with all that it points into.
struct Parsed {
    explicit Parsed(std::string text, Asked asked = {}) : bytes(std::move(text)) {
        ReadStep step;
        if (bytes.starts_with("HTTP/")) {
            H1ResponseReader reader;
            step = reader.read(bytes, {}, asked, room, head);
        } else {
            H1RequestReader reader;
            step = reader.read(bytes, {}, room, head);
        }
        REQUIRE(step == ReadStep::complete);
    }
    std::string bytes;
    Field room[64];
    Head head;
};

// Writes into memory of exactly the promised size, so that a sanitizer sees more.
template <class Bound, class Write>
std::string written(Bound bound, Write write) {
    std::vector<char> memory(bound);
    char* end = write(memory.data());
    REQUIRE(size_t(end - memory.data()) <= memory.size());
    return {memory.data(), size_t(end - memory.data())};
}

std::string request(const Head& head, const HeadEdit& edit = {}) {
    return written(head_bound(head, edit), [&](char* out) { return write_request_head(head, edit, out); });
}
std::string response(const Head& head, const HeadEdit& edit = {}) {
    return written(head_bound(head, edit), [&](char* out) { return write_response_head(head, edit, out); });
}

}  // namespace

TEST_CASE("a request is written with its host first and its fields in order") {
    Parsed p("GET /a?b HTTP/1.1\r\nX-One:1\r\nHost:  a.example \r\nX-Two: 2\r\n\r\n");
    CHECK(request(p.head) == "GET /a?b HTTP/1.1\r\nhost: a.example\r\nX-One: 1\r\nX-Two: 2\r\n\r\n");
}

TEST_CASE("a request of HTTP/1.0 without Host goes out as HTTP/1.1 with one") {
    Parsed p("GET / HTTP/1.0\r\n\r\n");
    CHECK(request(p.head) == "GET / HTTP/1.1\r\nhost: \r\n\r\n");
    CHECK(request(p.head, {.host = "backend"}) == "GET / HTTP/1.1\r\nhost: backend\r\n\r\n");
}

TEST_CASE("framing and connection fields are made anew, never copied") {
    Parsed p(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\nConnection: keep-alive, x\r\nKeep-Alive: 5\r\n"
        "Proxy-Connection: close\r\nUpgrade: websocket\r\nX: y\r\n\r\n");
    CHECK(request(p.head) == "POST / HTTP/1.1\r\nhost: a\r\nX: y\r\n\r\n");
    CHECK(request(p.head, {.declare = BodyKind::length, .length = 5}) ==
          "POST / HTTP/1.1\r\nhost: a\r\nX: y\r\ncontent-length: 5\r\n\r\n");
    CHECK(request(p.head, {.declare = BodyKind::length, .length = UINT64_MAX}) ==
          "POST / HTTP/1.1\r\nhost: a\r\nX: y\r\ncontent-length: 18446744073709551615\r\n\r\n");
    CHECK(request(p.head, {.declare = BodyKind::chunked, .connection = ConnectionWord::close}) ==
          "POST / HTTP/1.1\r\nhost: a\r\nX: y\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    CHECK(request(p.head, {.declare = BodyKind::until_close, .connection = ConnectionWord::keep_alive}) ==
          "POST / HTTP/1.1\r\nhost: a\r\nX: y\r\nconnection: keep-alive\r\n\r\n");
}

TEST_CASE("an upgrade is copied only when it is forwarded") {
    Parsed p("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    CHECK(request(p.head, {.connection = ConnectionWord::upgrade}) ==
          "GET / HTTP/1.1\r\nhost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    CHECK(request(p.head, {.connection = ConnectionWord::close}) ==
          "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
}

TEST_CASE("connection names te where TE goes out") {
    Parsed p("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
    CHECK(request(p.head) == "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nconnection: te\r\n\r\n");
    CHECK(request(p.head, {.connection = ConnectionWord::close}) ==
          "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nconnection: close, te\r\n\r\n");
    CHECK(request(p.head, {.drop = FieldSet(FieldId::te)}) == "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    p.head.drop(FieldId::te);
    CHECK(request(p.head) == "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
}

TEST_CASE("dropped fields do not go out, and added ones come last") {
    Parsed p("GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nX: y\r\nVia: v\r\n\r\n");
    p.head.drop(FieldId::via);
    FieldLine add[] = {{"x-request-id", "42"}, {"x-empty", ""}};
    CHECK(request(p.head, {.add = add, .drop = FieldSet(FieldId::cookie)}) ==
          "GET / HTTP/1.1\r\nhost: a\r\nX: y\r\nx-request-id: 42\r\nx-empty: \r\n\r\n");
}

TEST_CASE("the target can be rewritten, and always begins with a slash where it must") {
    Parsed p("GET /api/a HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(request(p.head, {.target = "/b"}).starts_with("GET /b HTTP/1.1\r\n"));
    CHECK(request(p.head, {.target = "?q"}).starts_with("GET /?q HTTP/1.1\r\n"));
    CHECK(request(p.head, {.target = "b"}).starts_with("GET /b HTTP/1.1\r\n"));
    Parsed options("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(request(options.head).starts_with("OPTIONS * HTTP/1.1\r\n"));
    Parsed connect("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    CHECK(request(connect.head).starts_with("CONNECT a:80 HTTP/1.1\r\n"));
}

TEST_CASE("a response is written as HTTP/1.1 with its reason and fields, whatever it came as") {
    Parsed p("HTTP/1.0 404 No such thing\r\nServer: s\r\nConnection: close\r\nContent-Length: 5\r\n\r\n");
    CHECK(response(p.head, {.declare = BodyKind::length, .length = 5}) ==
          "HTTP/1.1 404 No such thing\r\nServer: s\r\ncontent-length: 5\r\n\r\n");
    Parsed bare("HTTP/1.1 200\r\n\r\n");
    CHECK(response(bare.head) == "HTTP/1.1 200 \r\n\r\n");
    Parsed interim("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    CHECK(response(interim.head) == "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    Parsed switching("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                     {Method::get, true});
    CHECK(response(switching.head, {.connection = ConnectionWord::upgrade}) ==
          "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n");
}

TEST_CASE("an answer of our own needs no head") {
    FieldLine add[] = {{"retry-after", "3"}};
    HeadEdit edit{.add = add, .declare = BodyKind::length, .length = 0, .connection = ConnectionWord::close};
    CHECK(
        written(head_bound(429, edit), [&](char* out) { return write_response_head(429, edit, out); }) ==
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(written(head_bound(299, {}), [&](char* out) { return write_response_head(299, {}, out); }) ==
          "HTTP/1.1 299 \r\n\r\n");
}

TEST_CASE("chunk headers are hex and fit their bound") {
    auto chunk = [](uint64_t size) {
        return written(chunk_head_bound, [&](char* out) { return write_chunk_head(size, out); });
    };
    CHECK(chunk(1) == "1\r\n");
    CHECK(chunk(16384) == "4000\r\n");
    CHECK(chunk(UINT64_MAX) == "ffffffffffffffff\r\n");
}

TEST_CASE("the last chunk carries the trailers that are not dropped") {
    H1BodyReader reader;
    reader.start(BodyKind::chunked, 0);
    REQUIRE(reader.read("0\r\n", {}).step == BodyStep::trailers);
    Field room[8];
    Head trailers;
    std::string bytes = "X-Sum: a\r\nCookie: c\r\nX-Two:b\r\n\r\n";
    REQUIRE(reader.read_trailers(bytes, {}, room, trailers).step == BodyStep::complete);
    CHECK(written(trailers_bound(trailers), [&](char* out) { return write_last_chunk(trailers, out); }) ==
          "0\r\nX-Sum: a\r\nX-Two: b\r\n\r\n");
    Head none;
    CHECK(written(trailers_bound(none), [&](char* out) { return write_last_chunk(none, out); }) ==
          last_chunk);
}

TEST_CASE("what was written reads back the same, for every corpus of heads") {
    const char* heads[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /a?b=c HTTP/1.1\r\nA:\r\nHost: a:80\r\nB: \x80\xff\r\nC: a\tb\r\n\r\n",
        "UNSUBSCRIBE /very/long/method HTTP/1.1\r\nHost: [::1]:80\r\nX_Y.Z: ok\r\n\r\n",
    };
    for (const char* text : heads) {
        Parsed p(text);
        for (HeadEdit edit : {HeadEdit{}, HeadEdit{.declare = BodyKind::length, .length = 77},
                              HeadEdit{.declare = BodyKind::chunked}}) {
            Parsed back(request(p.head, edit));
            CHECK(back.head.method == p.head.method);
            CHECK(back.head.target() == p.head.target());
            for (const Field& f : p.head) CHECK(back.head.value_of(p.head.name(f)) == p.head.value(f));
            Framing framing;
            REQUIRE(frame_request(back.head, framing) == Rule::ok);
            CHECK(framing.declared == edit.declare);
            CHECK(framing.length == edit.length);
        }
    }
}

TEST_CASE("a head built field by field, as HTTP/2 does, is written within its bound") {
    ChunkPool pool;
    char first[64];
    Arena arena(pool, first, sizeof first);
    HeadBuilder builder(arena);
    builder.method(Method::get);
    builder.version(Version::http2);
    builder.target("/");
    for (int i = 0; i < 60; i++) builder.add("a", "");
    builder.add("host", "a.example");
    std::string text = request(builder.head());
    CHECK(text.starts_with("GET / HTTP/1.1\r\nhost: a.example\r\na: \r\n"));
    CHECK(text.size() == 35 + 60 * 5);
}

TEST_CASE("forwarding: what the client sent for this hop stays, what we add goes out") {
    ChunkPool pool;
    char first[256];
    Arena arena(pool, first, sizeof first);
    Parsed p(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For, X-Secret\r\nX-Secret: 1\r\n"
        "X-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nProxy: evil\r\nTE: gzip, trailers\r\nX: "
        "y\r\n\r\n");
    drop_request_hop(p.head, false);
    FieldLine add[max_forwarding_fields];
    ClientFacts client{.connected = "192.0.2.1", .address = "192.0.2.1", .port = "8000"};
    size_t count = forwarding_fields(p.head, client, arena, add);
    CHECK(
        request(p.head, {.add = {add, count}}) ==
        "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nX: y\r\nx-forwarded-for: 192.0.2.1\r\n"
        "x-forwarded-proto: http\r\nx-forwarded-host: a\r\nx-forwarded-port: 8000\r\nx-real-ip: 192.0.2.1\r\n"
        "connection: te\r\n\r\n");
}
