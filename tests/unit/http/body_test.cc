#include "http/body.h"

#include <doctest/doctest.h>
#include <string>

#include "base/chunk.h"
#include "http/message.h"

using namespace penstock;

namespace {

struct World {
    explicit World(uint64_t limit = 64 << 20) : total(limit, 1) {}
    MemoryTotal total;
    MemoryAccount account{total};
    ChunkPool pool;

    // A run that lies in a chunk of its own, as a channel's input does.
    std::pair<ChunkRef, std::string_view> run(size_t bytes, char fill = 'x') {
        ChunkRef chunk = pool.take_large();
        std::memset(chunk->data(), fill, bytes);
        return {chunk, std::string_view(chunk->data(), bytes)};
    }
};

std::string drain(Body& body) {
    std::string out;
    while (body.unsent() > 0) {
        std::string_view part = body.next();
        out += part;
        body.sent(part.size());
    }
    return out;
}

}  // namespace

TEST_CASE("what is filled comes out in order, copied or linked") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(1 << 20, Body::unknown_length, false));
    auto [chunk, large] = world.run(10000, 'b');
    body.copy("aa");
    body.append(chunk, large);
    body.copy("cc");
    CHECK(body.total() == 10004);
    CHECK(drain(body) == "aa" + std::string(10000, 'b') + "cc");
    body.clear();
    CHECK(world.account.used() == 0);
}

TEST_CASE("a body of known length that fits one chunk reserves one chunk and always has room") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(1 << 20, 100, true));
    CHECK(world.account.used() == small_chunk_bytes);
    for (int i = 0; i < 100; ++i) {
        REQUIRE(body.has_room());
        body.copy("y");
    }
    CHECK(world.pool.live() == 1);
    CHECK(world.pool.bytes_in_use() <= small_chunk_bytes);
}

TEST_CASE("a body over its budget has no room until it is drained") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(64 << 10, Body::unknown_length, false));
    size_t filled = 0;
    while (body.has_room()) {
        auto [chunk, run] = world.run(large_chunk_bytes);
        body.append(chunk, run);
        filled += run.size();
        REQUIRE(filled < 100 << 10);
    }
    CHECK(filled > 32 << 10);
    CHECK_FALSE(body.wants_more());
    drain(body);
    CHECK(body.wants_more());
    CHECK(body.has_room());
}

TEST_CASE("a body that keeps what was sent can be sent again from its start") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(1 << 20, Body::unknown_length, true));
    body.copy("hello ");
    auto [chunk, run] = world.run(9000);
    body.append(chunk, run);
    std::string first = drain(body);
    body.copy("more");
    first += drain(body);
    REQUIRE(body.replayable());
    body.rewind();
    CHECK(body.unsent() == first.size());
    CHECK(drain(body) == first);
}

TEST_CASE("the start of a body can be read while all of it is there, in however many runs it came") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(1 << 20, Body::unknown_length, true));
    char start[5];
    CHECK_FALSE(body.copy_start(start));
    body.copy("ab");
    CHECK_FALSE(body.copy_start(start));
    auto [chunk, run] = world.run(9000, 'c');
    body.append(chunk, run);
    REQUIRE(body.copy_start(start));
    CHECK(std::string_view(start, 5) == "abccc");
    drain(body);
    CHECK(body.copy_start(start));  // it is kept
    body.stop_keeping();
    CHECK_FALSE(body.copy_start(start));
}

TEST_CASE("what was kept goes first when room is needed, and then it cannot be sent again") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(64 << 10, Body::unknown_length, true));
    for (int i = 0; i < 20; ++i) {
        REQUIRE(body.has_room());
        auto [chunk, run] = world.run(large_chunk_bytes);
        body.append(chunk, run);
        CHECK(drain(body).size() == large_chunk_bytes);
    }
    CHECK_FALSE(body.replayable());
    CHECK(world.account.used() <= (64 << 10));
}

TEST_CASE("a body that nobody drains takes everything and holds nothing") {
    World world;
    Body body(world.pool, world.account);
    REQUIRE(body.open(32 << 10, Body::unknown_length, true));
    body.copy("some");
    body.discard();
    for (int i = 0; i < 100; ++i) {
        REQUIRE(body.has_room());
        auto [chunk, run] = world.run(large_chunk_bytes);
        body.append(chunk, run);
    }
    CHECK(body.unsent() == 0);
    CHECK(world.pool.live() == 0);
    CHECK(body.total() == 4 + 100 * large_chunk_bytes);
}

TEST_CASE("a body is refused where its certain share cannot be had, and nothing changed") {
    World world(64 << 10);
    Body first(world.pool, world.account);
    REQUIRE(first.open(1 << 20, Body::unknown_length, false));
    Body second(world.pool, world.account);
    CHECK_FALSE(second.open(1 << 20, 60 << 10, false));
    CHECK(world.account.used() <= (64 << 10));
    first.clear();
    CHECK(second.open(1 << 20, 10 << 10, false));
}

TEST_CASE("a body of unknown length stops growing when memory is tight, and can still move") {
    World world(256 << 10);
    Body other(world.pool, world.account);
    REQUIRE(other.open(200 << 10, 150 << 10, false));
    Body body(world.pool, world.account);
    REQUIRE(body.open(1 << 20, Body::unknown_length, false));
    int chunks = 0;
    while (body.has_room() && chunks < 100) {
        auto [chunk, run] = world.run(large_chunk_bytes);
        body.append(chunk, run);
        ++chunks;
    }
    CHECK(chunks >= 1);
    CHECK(chunks <= 3);
    CHECK(world.account.used() <= (256 << 10));
    drain(body);
    CHECK(body.has_room());
}

TEST_CASE("the first cause of a failure stays, and a complete message cannot fail") {
    World world;
    Message message(world.pool, world.account);
    message.fail(Cause::backend_reset);
    message.fail(Cause::idle_timeout);
    CHECK(message.failure() == Cause::backend_reset);
    message.reset();
    message.fill_to(Progress::head);
    message.fill_to(Progress::complete);
    message.fail(Cause::backend_reset);
    CHECK_FALSE(message.failed());
}

TEST_CASE("interim heads wait in order, at most eight at a time and thirty-two in all") {
    World world;
    alignas(8) char memory[256];
    Arena arena(world.pool, memory, sizeof memory);
    Message message(world.pool, world.account);
    Head head;
    head.status = 103;
    for (int i = 0; i < 8; ++i) CHECK(message.add_interim(head, arena));
    CHECK_FALSE(message.add_interim(head, arena));
    for (int i = 8; i < 32; ++i) {
        message.interim_sent();
        CHECK(message.add_interim(head, arena));
    }
    message.interim_sent();
    CHECK_FALSE(message.add_interim(head, arena));
}
