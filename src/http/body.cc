#include "http/body.h"

#include <cassert>
#include <cstring>

namespace penstock {

namespace {

// The capacity that `length` bytes can take at most: one chunk where they fit in one, else chunks that are at
// least half full (Bytes::least_linked).
uint64_t capacity_for(uint64_t length) {
    if (length == 0) return 0;
    if (length <= small_chunk_bytes) return small_chunk_bytes;
    if (length <= large_chunk_bytes) return large_chunk_bytes;
    return length > UINT64_MAX / 4 ? UINT64_MAX : 2 * length + large_chunk_bytes;
}

}  // namespace

bool Body::open(uint64_t budget, uint64_t length, bool keep, uint64_t certain) {
    budget = std::max<uint64_t>(budget, 2 * large_chunk_bytes);
    certain = std::max<uint64_t>(certain, 2 * large_chunk_bytes);  // it must be able to move at all
    uint64_t held = length == unknown_length ? std::min<uint64_t>(certain, budget)
                                             : std::min(capacity_for(length), budget);
    if (held > held_) {  // something may have come before
        if (!account_.reserve(static_cast<int64_t>(held - held_))) return false;
        held_ = held;
    }
    budget_ = budget;
    length_ = length;
    keep_ = keep;
    return true;
}

bool Body::has_room(size_t bytes) {
    if (discards_ || length_ <= large_chunk_bytes) return true;  // reserved for all of it
    if (bytes_.size() > unsent_ && bytes_.charge() + bytes > budget_) let_go_sent();
    if (bytes_.charge() + bytes > budget_) return false;
    if (bytes_.charge() + bytes <= held_) return true;
    bool grows_blindly = length_ == unknown_length && unsent_ > 0;
    if (grows_blindly && account_.is_tight()) return false;
    if (hold(bytes_.charge() + bytes)) return true;
    // What is kept must not stand in the way of what is to come.
    if (bytes_.size() > unsent_) let_go_sent();
    return bytes_.charge() + bytes <= held_;
}

bool Body::hold(uint64_t bytes) {
    if (!account_.reserve(static_cast<int64_t>(bytes - held_))) return false;
    held_ = bytes;
    return true;
}

bool Body::try_copy(std::string_view run) {
    uint64_t most = bytes_.charge_with(run.size());
    if (!discards_ && length_ > large_chunk_bytes && most > held_ && !hold(most)) return false;
    copy(run);
    return true;
}

void Body::append(const ChunkRef& chunk, std::string_view run) {
    if (run.size() < Bytes::least_linked || discards_) return copy(run);
    total_ += run.size();
    unsent_ += run.size();
    bytes_.append(pool_, chunk, run);
}

void Body::copy(std::string_view run) {
    total_ += run.size();
    if (discards_ || run.empty()) return;
    if (bytes_.pieces() == 0 && length_ <= large_chunk_bytes) bytes_.reserve(pool_, length_);
    unsent_ += run.size();
    bytes_.copy(pool_, run);
}

Piece Body::next_piece() const {
    uint32_t at = at_piece_;
    uint32_t offset = at_offset_;
    while (at < bytes_.pieces()) {
        const Piece& piece = bytes_.piece(at);
        if (offset < piece.size()) return {piece.chunk, piece.begin + offset, piece.end};
        ++at;
        offset = 0;
    }
    return {};
}

std::string_view Body::next() const {
    if (unsent_ == 0) return {};
    Piece piece = next_piece();
    return piece.chunk ? piece.view() : std::string_view();
}

void Body::sent(size_t bytes) {
    assert(bytes <= unsent_);
    unsent_ -= bytes;
    if (!keep_) return bytes_.drop(bytes);
    while (bytes > 0) {
        uint32_t left = bytes_.piece(at_piece_).size() - at_offset_;
        if (bytes < left) {
            at_offset_ += static_cast<uint32_t>(bytes);
            return;
        }
        bytes -= left;
        // The last piece may still grow: stay behind its last byte.
        if (at_piece_ + 1 == bytes_.pieces()) {
            at_offset_ += left;
        } else {
            ++at_piece_;
            at_offset_ = 0;
        }
    }
}

bool Body::copy_start(std::span<char> to) const {
    if (bytes_.size() < total_) return false;
    for (size_t at = 0; at < bytes_.pieces() && !to.empty(); ++at) {
        std::string_view run = bytes_.piece(at).view().substr(0, to.size());
        std::memcpy(to.data(), run.data(), run.size());
        to = to.subspan(run.size());
    }
    return to.empty();
}

bool Body::wants_more() const { return discards_ || bytes_.charge() * 2 <= budget_ || unsent_ == 0; }

void Body::rewind() {
    assert(keep_);
    at_piece_ = at_offset_ = 0;
    unsent_ = bytes_.size();
}

void Body::stop_keeping() {
    if (keep_) let_go_sent();
}

void Body::let_go_sent() {
    bytes_.drop(bytes_.size() - unsent_);
    at_piece_ = at_offset_ = 0;
    keep_ = false;
}

void Body::discard() {
    discards_ = true;
    keep_ = false;
    unsent_ = 0;
    at_piece_ = at_offset_ = 0;
    bytes_.clear();
}

void Body::clear() {
    bytes_.clear();
    account_.release(static_cast<int64_t>(held_));
    held_ = 0;
    unsent_ = 0;
    at_piece_ = at_offset_ = 0;
}

}  // namespace penstock
