// Bytes: a queue of bytes in pieces of chunks, filled behind and emptied in front. Small runs are copied into
// a tail chunk of its own; large ones that already lie in a chunk are linked, not copied. Used for a body
// and for a channel's output. A few pieces fit inside it; a longer queue has a ring of its own until it is
// cleared.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <memory>
#include <string_view>
#include <sys/uio.h>

#include "base/chunk.h"

namespace penstock {

struct Piece {
    ChunkRef chunk;
    uint32_t begin = 0;
    uint32_t end = 0;

    uint32_t size() const { return end - begin; }
    std::string_view view() const { return {chunk->data() + begin, size()}; }
};

class Bytes {
  public:
    Bytes() = default;
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;

    // A shorter run is copied: a piece of its own would cost more than the copy, and would hold a chunk that
    // is mostly empty. So a queue of long runs is at least half full of bytes.
    static constexpr size_t least_linked = 8192;

    bool empty() const { return size_ == 0; }
    size_t size() const { return size_; }
    size_t charge() const { return charge_; }  // the capacities of all chunks, each piece's for itself
    size_t charge_with(size_t more) const {    // at most, once `more` were copied
        size_t left = count_ && has_tail_ ? last().chunk->capacity - last().end : 0;
        if (more <= left) return charge_;
        return charge_ + (more - left + large_chunk_bytes - 1) / large_chunk_bytes * large_chunk_bytes;
    }
    size_t pieces() const { return count_; }
    const Piece& piece(size_t i) const { return ring_[(first_ + i) & (capacity_ - 1)]; }

    // Room for `bytes` in one run behind the last byte; what is written there counts once committed.
    char* reserve(ChunkPool& pool, size_t bytes) {
        if (count_ == 0 || !has_tail_ || room() < bytes) add_tail(pool, bytes);
        Piece& last = back();
        return last.chunk->data() + last.end;
    }
    void commit(size_t bytes) {
        back().end += static_cast<uint32_t>(bytes);
        size_ += bytes;
    }

    void copy(ChunkPool& pool, std::string_view bytes);
    void link(const ChunkRef& chunk, uint32_t begin, uint32_t end);
    // Links what is large and copies what is small; `bytes` lie in `chunk`.
    void append(ChunkPool& pool, const ChunkRef& chunk, std::string_view bytes) {
        if (bytes.size() < least_linked) return copy(pool, bytes);
        auto begin = static_cast<uint32_t>(bytes.data() - chunk.get()->data());
        link(chunk, begin, begin + static_cast<uint32_t>(bytes.size()));
    }

    std::string_view front() const { return count_ ? piece(0).view() : std::string_view(); }
    void drop(size_t bytes);  // from the front
    void drop_piece();        // the first one, whole
    void clear();
    int gather(iovec* out, int most) const;

  private:
    Piece& back() { return ring_[(first_ + count_ - 1) & (capacity_ - 1)]; }
    const Piece& last() const { return ring_[(first_ + count_ - 1) & (capacity_ - 1)]; }
    size_t room() { return back().chunk->capacity - back().end; }
    void add_tail(ChunkPool& pool, size_t bytes);
    Piece& push();

    static constexpr uint32_t inline_pieces = 2;  // most messages need no more, and then allocate nothing

    Piece inline_[inline_pieces];
    std::unique_ptr<Piece[]> larger_;
    Piece* ring_ = inline_;
    uint32_t capacity_ = inline_pieces;  // a power of two
    uint32_t first_ = 0;
    uint32_t count_ = 0;
    bool has_tail_ = false;  // the last piece's chunk was taken here, so the room behind it is ours to fill
    size_t size_ = 0;
    size_t charge_ = 0;
};

}  // namespace penstock
