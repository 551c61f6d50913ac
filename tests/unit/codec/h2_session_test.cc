#include "codec/h2_session.h"

#include <doctest/doctest.h>

#include "h2_ends.h"

using namespace penstock;

namespace {

Head make_head(Arena& arena, Method method, std::string_view target,
               std::initializer_list<FieldLine> lines = {}) {
    HeadBuilder builder(arena);
    builder.method(method);
    builder.target(target);
    for (const FieldLine& line : lines) builder.add(line.name, line.value);
    return builder.head();
}

Head make_answer(Arena& arena, uint16_t status, std::initializer_list<FieldLine> lines = {}) {
    HeadBuilder builder(arena);
    builder.status(status);
    for (const FieldLine& line : lines) builder.add(line.name, line.value);
    return builder.head();
}

std::string drained(Message& message) {
    std::string all;
    while (message.body.unsent() > 0) {
        std::string_view part = message.body.next();
        all += part;
        message.body.sent(part.size());
    }
    return all;
}

struct Pair {
    explicit Pair(size_t bytes_a_step = SIZE_MAX, H2Limits limits = {})
        : server(world, H2Role::server, limits), client(world, H2Role::client), step(bytes_a_step) {}

    H2World world;
    H2End server, client;
    size_t step;
    Time now{};

    void settle() {
        for (bool moved = true; moved;) {
            for (auto& line : server.lines) server.session.pump(*line);
            for (auto& line : client.lines) client.session.pump(*line);
            moved = carry(client, server, now, step);
            moved |= carry(server, client, now, step);
        }
    }
    H2Line& ask(Method method, std::string_view target, std::string_view body = {},
                std::initializer_list<FieldLine> lines = {}) {
        H2Line& line = client.add();
        line.out.head = make_head(line.kept, method, target, lines);
        line.out.fill_to(Progress::head);
        if (!body.empty()) {
            REQUIRE(line.out.body.open(body.size(), body.size(), false));
            line.out.body.copy(body);
        }
        line.out.fill_to(Progress::complete);
        REQUIRE(client.session.open(line, {}, "http", "a.example"));
        return line;
    }
    void answer(H2Line& line, uint16_t status, std::string_view body = {},
                std::initializer_list<FieldLine> lines = {}, bool bodiless = false) {
        line.out.head = make_answer(line.kept, status, lines);
        line.out.fill_to(Progress::head);
        if (!body.empty()) {
            REQUIRE(line.out.body.open(body.size(), body.size(), false));
            line.out.body.copy(body);
        }
        line.out.fill_to(Progress::complete);
        server.session.respond(line, {}, bodiless);
    }
};

}  // namespace

TEST_CASE("a request and its response pass with heads, bodies and trailers, however the bytes are split") {
    for (size_t step : {SIZE_MAX, size_t(1), size_t(7), size_t(1000)}) {
        CAPTURE(step);
        Pair pair(step);
        std::string up(20000, 'u'), down(100000, 'd');
        H2Line& asked =
            pair.ask(Method::post, "/x?y=1", up,
                     {{"Content-Type", "text/plain"}, {"te", "trailers"}, {"connection", "close"}});
        pair.settle();
        REQUIRE(pair.server.lines.size() == 1);
        H2Line& served = *pair.server.lines[0];
        CHECK(served.in.is_complete());
        CHECK(served.in.head.method == Method::post);
        CHECK(served.in.head.version == Version::http2);
        CHECK(served.in.head.target() == "/x?y=1");
        CHECK(served.in.head.value_of(FieldId::host) == "a.example");
        CHECK(served.in.head.value_of(FieldId::content_type) == "text/plain");
        CHECK(served.in.head.value_of(FieldId::te) == "trailers");
        CHECK_FALSE(served.in.head.find(FieldId::connection));
        CHECK(drained(served.in) == up);
        CHECK(asked.out.is_sent());

        served.out.trailers = make_answer(served.kept, 0, {{"grpc-status", "0"}});
        served.out.trailers.status = 0;
        pair.answer(served, 200, down, {{"server", "unit"}});
        std::string got;
        while (!asked.in.is_complete()) {
            pair.settle();
            got += drained(asked.in);
            pair.client.session.refill(asked);
        }
        CHECK(asked.in.head.status == 200);
        CHECK(got == down);
        CHECK(asked.in.trailers.value_of("grpc-status") == "0");
        CHECK(asked.closed);
        CHECK(asked.code == H2Error::no_error);
        CHECK(served.closed);
        CHECK(served.out.is_sent());
    }
}

TEST_CASE("a message without body ends with its head") {
    Pair pair;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    H2Line& served = *pair.server.lines.at(0);
    CHECK(served.in.is_complete());
    CHECK(served.in.framing.body == BodyKind::none);
    pair.answer(served, 204);
    pair.server.session.send();
    CHECK(served.out.is_sent());
    CHECK(served.closed);
    pair.settle();
    CHECK(asked.in.is_complete());
    CHECK(asked.in.framing.body == BodyKind::none);
}

TEST_CASE("the answer to HEAD declares a length and has no body") {
    Pair pair;
    H2Line& asked = pair.ask(Method::head, "/");
    pair.settle();
    H2Line& served = *pair.server.lines.at(0);
    served.out.head = make_answer(served.kept, 200);
    served.out.fill_to(Progress::head);
    HeadEdit edit;
    edit.declare = BodyKind::length;
    edit.length = 1234;
    pair.server.session.respond(served, edit, true);
    pair.settle();
    CHECK(asked.in.is_complete());
    CHECK(asked.in.head.value_of(FieldId::content_length) == "1234");
    CHECK_FALSE(served.out.is_sent());  // its filler has not said that it is complete
    served.out.fill_to(Progress::complete);
    pair.server.session.pump(served);
    CHECK(served.out.is_sent());
}

TEST_CASE("interim responses come before the final one") {
    Pair pair;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    H2Line& served = *pair.server.lines.at(0);
    pair.server.session.interim(served, make_answer(served.kept, 103, {{"link", "</a>"}}));
    pair.settle();
    CHECK(asked.interims == std::vector<uint16_t>{103});
    CHECK_FALSE(asked.in.has_head());
    pair.answer(served, 200, "x");
    pair.settle();
    CHECK(asked.in.head.status == 200);
    CHECK(asked.in.is_complete());
}

TEST_CASE("a body that comes piece by piece is sent piece by piece") {
    Pair pair;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    H2Line& served = *pair.server.lines.at(0);
    served.out.head = make_answer(served.kept, 200);
    served.out.fill_to(Progress::head);
    pair.server.session.respond(served, {}, false);
    REQUIRE(served.out.body.open(1 << 20, Body::unknown_length, false));
    served.out.fill_to(Progress::body);
    std::string got;
    for (int i = 0; i < 5; ++i) {
        served.out.body.copy("token ");
        pair.settle();
        got += drained(asked.in);
        CHECK(got.size() == 6U * static_cast<unsigned>(i + 1));
    }
    served.out.fill_to(Progress::complete);
    pair.settle();
    CHECK(asked.in.is_complete());
}

TEST_CASE("who does not read one stream stops that one alone, and its body stays within its budget") {
    Pair pair;
    pair.server.budget = 64 * 1024;
    std::string large(4 << 20, 'l');
    H2Line& stuck = pair.ask(Method::post, "/stuck", large);
    H2Line& other = pair.ask(Method::post, "/other", large);
    std::string got;
    for (int i = 0; i < 1000 && !other.out.is_sent(); ++i) {
        pair.settle();
        H2Line& reads = *pair.server.lines.at(1);
        got += drained(reads.in);
        pair.server.session.refill(reads);
        pair.server.session.refill(*pair.server.lines.at(0));
    }
    CHECK(got.size() == large.size());
    CHECK_FALSE(stuck.out.is_sent());
    CHECK(pair.server.lines.at(0)->in.body.unsent() <= 64 * 1024);
}

TEST_CASE("what is kept for another try does not stop a body when memory is short") {
    H2World world;
    MemoryTotal total(48 << 10, 1);
    MemoryAccount account(total);
    Body body(world.chunks, account);
    REQUIRE(body.open(1 << 20, Body::unknown_length, true));
    std::string run(20000, 'x');
    REQUIRE(body.try_copy(run));
    body.sent(run.size());
    CHECK(body.has_room(H2Stream::first_window));
    CHECK_FALSE(body.replayable());
    body.clear();
}

TEST_CASE("output stops where the user has no room, and goes on when there is some") {
    Pair pair;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    pair.server.most_out = 4096;
    std::string large(30000, 'x');
    pair.answer(*pair.server.lines.at(0), 200, large);
    CHECK(pair.server.session.send());
    CHECK(pair.server.out.size() <= 4096 + 16384 + 2 * 9);
    CHECK(pair.server.session.wants_send());
    pair.settle();
    CHECK(drained(asked.in).size() == large.size());
    CHECK(asked.in.is_complete());
}

TEST_CASE("a reset reaches the other side with its code, and the stream's object is free") {
    Pair pair;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    H2Line& served = *pair.server.lines.at(0);
    pair.client.session.reset(asked, H2Error::cancel);
    pair.settle();
    CHECK(served.closed);
    CHECK(served.by_them);
    CHECK(served.code == H2Error::cancel);
    CHECK(asked.closed);
    CHECK_FALSE(asked.by_them);
    CHECK(pair.server.session.open_streams() == 0);
    CHECK(pair.client.session.open_streams() == 0);
}

TEST_CASE("a request that nobody takes is refused, so that it can be sent again") {
    Pair pair;
    pair.server.refuse = true;
    H2Line& asked = pair.ask(Method::get, "/");
    pair.settle();
    CHECK(asked.closed);
    CHECK(asked.by_them);
    CHECK(asked.code == H2Error::refused_stream);
}

TEST_CASE("streams beyond the limit wait at the client") {
    H2Limits limits;
    limits.streams = 2;
    Pair pair(SIZE_MAX, limits);
    pair.settle();
    CHECK(pair.client.session.most_streams() == 2);
    pair.ask(Method::get, "/1");
    pair.ask(Method::get, "/2");
    CHECK_FALSE(pair.client.session.can_open());
    pair.settle();
    pair.answer(*pair.server.lines.at(0), 200);
    pair.settle();
    CHECK(pair.client.session.can_open());
}

TEST_CASE("a server that goes serves what has come and says which was the last") {
    Pair pair;
    H2Line& first = pair.ask(Method::get, "/1");
    pair.settle();
    pair.server.session.announce_end();
    pair.settle();
    CHECK(pair.client.goaway_last == INT32_MAX);
    CHECK(pair.server.answers == 1);
    pair.server.session.end();
    pair.settle();
    CHECK(pair.client.goaway_last == first.id());
    CHECK_FALSE(pair.client.session.can_open());
    CHECK_FALSE(pair.server.session.is_over());
    pair.answer(*pair.server.lines.at(0), 200, "bye");
    pair.settle();
    CHECK(first.in.is_complete());
    CHECK(pair.server.session.is_over());
}

TEST_CASE("a body that is not as long as it said fails the message") {
    Pair pair;
    H2Line& line = pair.client.add();
    line.out.head = make_head(line.kept, Method::post, "/");
    line.out.fill_to(Progress::head);
    REQUIRE(line.out.body.open(100, 100, false));
    line.out.body.copy("four");
    line.out.fill_to(Progress::complete);
    HeadEdit edit;
    edit.declare = BodyKind::length;
    edit.length = 10;
    REQUIRE(pair.client.session.open(line, edit, "http", "a.example"));
    pair.settle();
    CHECK_FALSE(pair.server.lines.at(0)->in.is_complete());
    CHECK(line.closed);
    CHECK(line.code == H2Error::protocol_error);
}

TEST_CASE("more than may come fails the message and leaves the connection alone") {
    Pair pair;
    pair.ask(Method::get, "/0");
    pair.settle();
    H2Line& asked = pair.ask(Method::post, "/1", std::string(30000, 'x'));
    carry(pair.client, pair.server, {}, 100);  // its head alone would do
    H2Line& served = *pair.server.lines.at(1);
    CHECK(served.in.is_complete());
    H2Line& second = pair.client.add();
    second.out.head = make_head(second.kept, Method::post, "/2");
    second.out.fill_to(Progress::head);
    REQUIRE(pair.client.session.open(second, {}, "http", "a.example"));
    pair.settle();
    H2Line& limited = *pair.server.lines.at(2);
    limited.most_body = 10;
    REQUIRE(second.out.body.open(100, 100, false));
    second.out.fill_to(Progress::body);
    second.out.body.copy("eleven bytes");
    pair.settle();
    CHECK(limited.in.failure() == Cause::body_too_large);
    pair.answer(served, 200);
    pair.settle();
    CHECK(asked.in.is_complete());
}

TEST_CASE("when all streams are over, every chunk and every reserved byte is back") {
    H2World world;
    {
        H2End server(world, H2Role::server), client(world, H2Role::client);
        carry(client, server);
        carry(server, client);
    }
    CHECK(world.memory.bytes_in_use() == 0);
    CHECK(world.chunks.live() == 0);
    CHECK(world.account.used() == 0);
}
