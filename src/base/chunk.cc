#include "base/chunk.h"

#include <cassert>
#include <cstdlib>
#include <new>

#include "base/poison.h"

namespace penstock {

namespace {
// Freed chunks kept for reuse, a class: 4 MiB of small ones and 16 MiB of large ones, so that a burst's
// memory goes back to the system and steady traffic never asks it for more.
constexpr size_t keep_small = 2048;
constexpr size_t keep_large = 1024;
}  // namespace

ChunkPool::~ChunkPool() {
    assert(live_ == 0);
    for (Kept* kept : {&small_, &large_})
        while (Chunk* chunk = kept->first) {
            kept->first = chunk->next_free;
            PENSTOCK_UNPOISON(chunk->data(), chunk->capacity);
            std::free(chunk);
        }
}

ChunkRef ChunkPool::take(uint32_t capacity, Kept& kept) {
    Chunk* chunk = kept.first;
    if (!chunk) return allocate(capacity);
    kept.first = chunk->next_free;
    --kept.count;
    PENSTOCK_UNPOISON(chunk->data(), chunk->capacity);
    chunk->users = 1;
    ++live_;
    bytes_in_use_ += capacity;
    return ChunkRef(chunk);
}

ChunkRef ChunkPool::take_for(size_t bytes) {
    if (bytes <= small_chunk_bytes) return take_small();
    if (bytes <= large_chunk_bytes) return take_large();
    return allocate(static_cast<uint32_t>(bytes));
}

ChunkRef ChunkPool::allocate(uint32_t capacity) {
    void* memory = std::malloc(sizeof(Chunk) + capacity);
    if (!memory) throw std::bad_alloc();  // nothing useful is left to do: the process ends
    Chunk* chunk = new (memory) Chunk{this, nullptr, capacity, 1};
    ++live_;
    bytes_in_use_ += capacity;
    return ChunkRef(chunk);
}

void ChunkPool::give_back(Chunk* chunk) {
    --live_;
    bytes_in_use_ -= chunk->capacity;
    Kept* kept = chunk->capacity == small_chunk_bytes   ? &small_
                 : chunk->capacity == large_chunk_bytes ? &large_
                                                        : nullptr;
    if (!kept || kept->count >= (kept == &small_ ? keep_small : keep_large)) {
        std::free(chunk);
        return;
    }
    PENSTOCK_POISON(chunk->data(), chunk->capacity);
    chunk->next_free = kept->first;
    kept->first = chunk;
    ++kept->count;
}

}  // namespace penstock
