#include "workers/h2_check.h"

#include <doctest/doctest.h>

#include "../codec/h2_ends.h"

using namespace penstock;

namespace {

// A server of grpc.health.v1 at the other end: it answers Check with these bytes and this grpc-status.
struct HealthServer {
    void serve(H2Check& check, size_t step) {
        for (int turn = 0; turn < 4; ++turn) {
            std::string bytes = check.take_output();
            if (!bytes.empty()) end.session.receive(bytes, Time{});
            for (auto& line : end.lines) answer(*line);
            end.session.send();
            std::string back = std::exchange(end.out, {});
            for (size_t at = 0; at < back.size(); at += step)
                check.receive(std::string_view(back).substr(at, step), Time{});
        }
    }
    void answer(H2Line& line) {
        if (!line.in.is_complete() || line.out.has_head()) return;
        if (line.in.head.method == Method::get) return answer_get(line);
        asked = std::string(line.in.head.target()) + " " + std::string(line.in.body.next().substr(5));
        HeadBuilder head(line.kept), trailers(line.kept);
        head.status(200);
        head.add("content-type", "application/grpc");
        trailers.add("grpc-status", status);
        line.out.head = head.head();
        line.out.trailers = trailers.head();
        line.out.framing.body = BodyKind::chunked;
        line.out.fill_to(Progress::head);
        if (line.out.body.open(100, 100, false)) line.out.body.copy(body);
        line.out.fill_to(Progress::complete);
        end.session.respond(line, {}, false);
    }

    void answer_get(H2Line& line) {
        asked = "GET " + std::string(line.in.head.target());
        HeadBuilder head(line.kept);
        head.status(code);
        line.out.head = head.head();
        line.out.framing.body = BodyKind::chunked;
        line.out.fill_to(Progress::head);
        if (line.out.body.open(body.size(), body.size(), false)) line.out.body.copy(body);
        line.out.fill_to(ends ? Progress::complete : Progress::body);
        end.session.respond(line, {}, false);
    }

    H2World world;
    H2End end{world, H2Role::server};
    std::string body, status = "0", asked;
    uint16_t code = 200;
    bool ends = true;
};

const std::string serving("\0\0\0\0\2\x08\x01", 7), not_serving("\0\0\0\0\2\x08\x02", 7),
    unknown("\0\0\0\0\0", 5);

std::string ask(const std::string& body, std::string_view status = "0", size_t step = SIZE_MAX) {
    H2Check check("localhost", {.grpc = "ocr"}, false);
    HealthServer server;
    server.body = body;
    server.status = status;
    server.serve(check, step == SIZE_MAX ? 1 << 20 : step);
    CHECK(server.asked == "/grpc.health.v1.Health/Check \x0a\x03ocr");
    REQUIRE(check.is_answered());
    return (check.is_good() ? "good: " : "bad: ") + check.text();
}

}  // namespace

TEST_CASE("a service that serves is good, whatever pieces its answer comes in") {
    CHECK(ask(serving) == "good: grpc.health.v1 Check ocr -> SERVING");
    CHECK(ask(serving, "0", 1) == "good: grpc.health.v1 Check ocr -> SERVING");
}

TEST_CASE("a service that does not serve is not good, and the text says why") {
    CHECK(ask(not_serving) == "bad: grpc.health.v1 Check ocr -> NOT_SERVING");
    CHECK(ask(unknown) == "bad: grpc.health.v1 Check ocr -> UNKNOWN");
    CHECK(ask("", "5") == "bad: grpc.health.v1 Check ocr -> NOT_FOUND");
    CHECK(ask("", "12") == "bad: grpc.health.v1 Check ocr -> UNIMPLEMENTED");
    CHECK(ask("") == "bad: grpc.health.v1 Check ocr -> no HealthCheckResponse");
}

TEST_CASE("an answer that is no HTTP/2 is not good") {
    H2Check check("localhost", {.grpc = ""}, false);
    CHECK(!check.take_output().empty());
    check.receive("HTTP/1.1 400 Bad Request\r\n\r\n", Time{});
    REQUIRE(check.is_answered());
    CHECK_FALSE(check.is_good());
}

namespace {

std::string get(HealthServer& server, uint16_t expect = 0, size_t step = 1 << 20) {
    H2Check check("localhost", {.path = "/health", .expect = expect}, false);
    server.serve(check, step);
    CHECK(server.asked == "GET /health");
    if (!check.is_answered()) return check.settle() ? "settled: " + check.text() : "nothing";
    return (check.is_good() ? "good: " : "bad: ") + check.text();
}

}  // namespace

TEST_CASE("a path answers with the status that is expected, or any 2xx, in whatever pieces") {
    struct Case {
        uint16_t code, expect;
        const char* said;
    };
    for (size_t step : {size_t(1), size_t(1) << 20}) {
        for (auto [code, expect, said] : {Case{200, 0, "good: GET /health -> 200"},
                                          {204, 0, "good: GET /health -> 204"},
                                          {204, 200, "bad: GET /health -> 204"},
                                          {503, 0, "bad: GET /health -> 503"},
                                          {503, 503, "good: GET /health -> 503"}}) {
            HealthServer server;
            server.code = code;
            server.body = code == 204 ? "" : "fine";
            CHECK(get(server, expect, step) == said);
        }
    }
}

TEST_CASE("an answer of any length is read to its end, and no further than 64 KiB") {
    HealthServer server;
    server.body = std::string(60'000, 'x');
    CHECK(get(server) == "good: GET /health -> 200");
    HealthServer large;
    large.body = std::string(900'000, 'x');
    large.end.most_out = 1 << 20;
    CHECK(get(large) == "good: GET /health -> 200");
}

TEST_CASE("an answer without an end is judged by its head, once nobody waits for more") {
    HealthServer server;
    server.body = "a part";
    server.ends = false;
    CHECK(get(server) == "settled: GET /health -> 200");
}
