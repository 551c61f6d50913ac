#include "workers/grpc_check.h"

#include <doctest/doctest.h>

#include "../codec/h2_ends.h"

using namespace penstock;

namespace {

// A server of grpc.health.v1 at the other end: it answers Check with these bytes and this grpc-status.
struct HealthServer {
    void serve(GrpcCheck& check, size_t step) {
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

    H2World world;
    H2End end{world, H2Role::server};
    std::string body, status = "0", asked;
};

const std::string serving("\0\0\0\0\2\x08\x01", 7), not_serving("\0\0\0\0\2\x08\x02", 7),
    unknown("\0\0\0\0\0", 5);

std::string ask(const std::string& body, std::string_view status = "0", size_t step = SIZE_MAX) {
    GrpcCheck check("localhost", "ocr", false);
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
    CHECK(ask(serving) == "good: Check ocr -> SERVING");
    CHECK(ask(serving, "0", 1) == "good: Check ocr -> SERVING");
}

TEST_CASE("a service that does not serve is not good, and the text says why") {
    CHECK(ask(not_serving) == "bad: Check ocr -> NOT_SERVING");
    CHECK(ask(unknown) == "bad: Check ocr -> UNKNOWN");
    CHECK(ask("", "5") == "bad: Check ocr -> NOT_FOUND");
    CHECK(ask("", "12") == "bad: Check ocr -> UNIMPLEMENTED");
    CHECK(ask("") == "bad: Check ocr -> no HealthCheckResponse");
}

TEST_CASE("an answer that is no HTTP/2 is not good") {
    GrpcCheck check("localhost", "", false);
    CHECK(!check.take_output().empty());
    check.receive("HTTP/1.1 400 Bad Request\r\n\r\n", Time{});
    REQUIRE(check.is_answered());
    CHECK_FALSE(check.is_good());
}
