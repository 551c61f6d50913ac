#include "base/bytes.h"

namespace penstock {

void Bytes::copy(ChunkPool& pool, std::string_view bytes) {
    while (!bytes.empty()) {
        if (count_ == 0 || !has_tail_ || room() == 0) add_tail(pool, bytes.size());
        size_t part = std::min(bytes.size(), room());
        std::memcpy(back().chunk->data() + back().end, bytes.data(), part);
        commit(part);
        bytes.remove_prefix(part);
    }
}

void Bytes::link(const ChunkRef& chunk, uint32_t begin, uint32_t end) {
    if (count_ > 0 && !has_tail_ && back().chunk.get() == chunk.get() && back().end == begin) {
        back().end = end;
        size_ += end - begin;
        return;
    }
    Piece& piece = push();
    piece.chunk = chunk;
    piece.begin = begin;
    piece.end = end;
    has_tail_ = false;
    size_ += end - begin;
    charge_ += chunk->capacity;
}

void Bytes::drop(size_t bytes) {
    assert(bytes <= size_);
    while (bytes > 0) {
        Piece& first = ring_[first_];
        if (first.size() > bytes) {
            first.begin += static_cast<uint32_t>(bytes);
            size_ -= bytes;
            return;
        }
        bytes -= first.size();
        drop_piece();
    }
}

void Bytes::drop_piece() {
    Piece& first = ring_[first_];
    size_ -= first.size();
    charge_ -= first.chunk->capacity;
    first.chunk.reset();
    first_ = (first_ + 1) & (capacity_ - 1);
    if (--count_ == 0) has_tail_ = false;
}

void Bytes::clear() {
    while (count_ > 0) drop_piece();
    larger_.reset();
    ring_ = inline_;
    capacity_ = inline_pieces;
    first_ = 0;
}

int Bytes::gather(iovec* out, int most) const {
    int n = 0;
    for (size_t i = 0; i < count_ && n < most; ++i) {
        const Piece& p = piece(i);
        if (p.size() == 0) continue;
        out[n++] = {p.chunk->data() + p.begin, p.size()};
    }
    return n;
}

// The first tail is a small chunk: most messages fit. What goes on gets large ones.
void Bytes::add_tail(ChunkPool& pool, size_t bytes) {
    ChunkRef fresh =
        count_ == 0 ? pool.take_for(bytes) : pool.take_for(std::max<size_t>(bytes, large_chunk_bytes));
    Piece& piece = push();
    charge_ += fresh->capacity;
    piece.chunk = std::move(fresh);
    piece.begin = piece.end = 0;
    has_tail_ = true;
}

Piece& Bytes::push() {
    if (count_ == capacity_) {
        auto larger = std::make_unique<Piece[]>(size_t{capacity_} * 2);
        for (uint32_t i = 0; i < count_; ++i) larger[i] = std::move(ring_[(first_ + i) & (capacity_ - 1)]);
        larger_ = std::move(larger);
        ring_ = larger_.get();
        capacity_ *= 2;
        first_ = 0;
    }
    ++count_;
    return back();
}

}  // namespace penstock
