#include "base/memory.h"

#include <doctest/doctest.h>
#include <string>

#include "base/arena.h"
#include "base/chunk.h"
#include "base/slab.h"

using namespace penstock;

TEST_CASE("a handle finds its object until it is freed, and never the next one in its place") {
    Slab<std::string, 4> slab;
    std::string* first = slab.make("first");
    Handle handle = slab.handle(first);
    CHECK(slab.find(handle) == first);
    slab.free(first);
    CHECK(slab.find(handle) == nullptr);
    std::string* second = slab.make("second");
    CHECK(second == first);  // the same memory
    CHECK(slab.find(handle) == nullptr);
    for (int i = 0; i < 20; ++i) slab.make("more");
    CHECK(slab.live() == 21);
    slab.for_each([&](std::string& s) { slab.free(&s); });
    CHECK(slab.live() == 0);
}

TEST_CASE("a chunk goes back to its pool with its last user and is used again") {
    ChunkPool pool;
    Chunk* memory = nullptr;
    {
        ChunkRef one = pool.take_large();
        memory = one.get();
        ChunkRef two = one;
        CHECK(one.is_shared());
        one.reset();
        CHECK(pool.live() == 1);
    }
    CHECK(pool.live() == 0);
    CHECK(pool.bytes_in_use() == 0);
    ChunkRef again = pool.take_large();
    CHECK(again.get() == memory);
    CHECK(pool.take_for(100)->capacity == small_chunk_bytes);
    CHECK(pool.take_for(5000)->capacity == large_chunk_bytes);
    CHECK(pool.take_for(50000)->capacity == 50000);
}

TEST_CASE("an arena goes on in chunks when its first bytes are used up, and keeps what it gave") {
    ChunkPool pool;
    alignas(8) char first[64];
    {
        Arena arena(pool, first, sizeof first);
        std::string_view a = arena.keep("inline");
        CHECK(a.data() >= first);
        CHECK(a.data() < first + sizeof first);
        auto* numbers = arena.array<uint64_t>(100);
        CHECK(reinterpret_cast<uintptr_t>(numbers) % alignof(uint64_t) == 0);
        std::string_view big = arena.keep(std::string(20000, 'x'));
        CHECK(big.size() == 20000);
        CHECK(a == "inline");
        CHECK(pool.live() == 2);
        arena.clear();
        CHECK(pool.live() == 0);
        CHECK(arena.keep("again").data() == first);
    }
    CHECK(pool.live() == 0);
}

TEST_CASE("reservations of all loops together never pass the limit, and what is released can be had again") {
    MemoryTotal total(1 << 20, 2);
    {
        MemoryAccount one(total);
        MemoryAccount two(total);
        CHECK(one.reserve(700 << 10));
        CHECK_FALSE(two.reserve(400 << 10));
        CHECK(two.reserve(200 << 10));
        CHECK(total.borrowed() <= total.limit());
        CHECK(two.is_tight());
        one.release(700 << 10);
        CHECK(two.reserve(700 << 10));
        CHECK(total.borrowed() <= total.limit());
        two.release(900 << 10);
    }
    CHECK(total.borrowed() == 0);
}
