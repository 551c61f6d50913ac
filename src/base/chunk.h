// A Chunk is a piece of memory for bytes on their way: 2 KiB or 16 KiB (or larger, for a head that needs
// it), counted by its users, who are all on one loop. A ChunkPool belongs to a loop and keeps freed chunks
// for reuse; it outlives its chunks. What is written in a chunk is never overwritten while it is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

namespace penstock {

class ChunkPool;

struct Chunk {
    char* data() { return reinterpret_cast<char*>(this + 1); }

    ChunkPool* pool;
    Chunk* next_free;
    uint32_t capacity;  // of data(); with this header the memory is a power of two for the two usual sizes
    uint32_t users;
};

constexpr uint32_t small_chunk_bytes = 2048 - sizeof(Chunk);
constexpr uint32_t large_chunk_bytes = 16384 - sizeof(Chunk);

// Counted reference to a chunk; one loop, so the count is plain.
class ChunkRef {
  public:
    ChunkRef() = default;
    explicit ChunkRef(Chunk* fresh) : chunk_(fresh) {}  // takes over the one use that a fresh chunk has
    ChunkRef(const ChunkRef& other) : chunk_(other.chunk_) {
        if (chunk_) ++chunk_->users;
    }
    ChunkRef(ChunkRef&& other) noexcept : chunk_(std::exchange(other.chunk_, nullptr)) {}
    ChunkRef& operator=(ChunkRef other) noexcept {
        std::swap(chunk_, other.chunk_);
        return *this;
    }
    ~ChunkRef() { reset(); }

    void reset();
    explicit operator bool() const { return chunk_ != nullptr; }
    Chunk* operator->() const { return chunk_; }
    Chunk* get() const { return chunk_; }
    bool is_shared() const { return chunk_->users > 1; }

  private:
    Chunk* chunk_ = nullptr;
};

class ChunkPool {
  public:
    ChunkPool() = default;
    ChunkPool(const ChunkPool&) = delete;
    ChunkPool& operator=(const ChunkPool&) = delete;
    ~ChunkPool();

    ChunkRef take_small() { return take(small_chunk_bytes, small_); }
    ChunkRef take_large() { return take(large_chunk_bytes, large_); }
    ChunkRef take_for(size_t bytes);  // the smallest usual one that holds `bytes`, or one of just that size

    size_t live() const { return live_; }  // chunks in use
    size_t bytes_in_use() const { return bytes_in_use_; }

  private:
    friend class ChunkRef;
    struct Kept {
        Chunk* first = nullptr;
        size_t count = 0;
    };
    ChunkRef take(uint32_t capacity, Kept& kept);
    ChunkRef allocate(uint32_t capacity);
    void give_back(Chunk*);

    Kept small_;
    Kept large_;
    size_t live_ = 0;
    size_t bytes_in_use_ = 0;
};

inline void ChunkRef::reset() {
    if (!chunk_) return;
    if (--chunk_->users == 0) chunk_->pool->give_back(chunk_);
    chunk_ = nullptr;
}

}  // namespace penstock
