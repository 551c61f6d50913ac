// Body: the bytes of one message between the side that fills it and the side that drains it. It has a budget
// of chunk capacity and a share of the loop's memory account; over either it has no room, and its filler must
// pause. It can keep what was sent, so that a request can be sent again; what is kept goes first when room is
// needed. A body that discards takes everything, holds nothing and is never full.
//
// A body belongs to its exchange, which the pool and the account outlive.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/memory.h"

namespace penstock {

class Body {
  public:
    Body(ChunkPool& pool, MemoryAccount& account) : pool_(pool), account_(account) {}
    ~Body() { clear(); }
    Body(const Body&) = delete;
    Body& operator=(const Body&) = delete;

    static constexpr uint64_t unknown_length = UINT64_MAX;

    // Once, before the first byte: takes what this body needs for certain from the account, or says no (then
    // nothing changed). With a known length that is min(what its chunks take, budget), and it will not ask
    // again unless it is longer than the budget; without one, `certain` bytes, and at least two chunks: one
    // that is filled while the other is drained.
    [[nodiscard]] bool open(uint64_t budget, uint64_t length, bool keep, uint64_t certain = 0);

    // --- the filler
    // For `bytes` more, however they come. An HTTP/2 stream asks for all that may come while it cannot stop
    // it.
    bool has_room(size_t bytes = large_chunk_bytes);
    void append(const ChunkRef& chunk, std::string_view run);  // what lies in `chunk`; large runs are linked
    void copy(std::string_view run);
    // What comes although nobody asked whether there is room, before open() too: no where no memory is left.
    [[nodiscard]] bool try_copy(std::string_view run);
    uint64_t total() const { return total_; }  // all that was ever filled, discarded bytes too

    // --- the drainer
    std::string_view next() const;  // the first run not sent; empty if there is none
    Piece next_piece() const;       // the same, with its chunk
    void sent(size_t bytes);
    size_t unsent() const { return unsent_; }
    bool wants_more() const;  // below half: a paused filler should be woken

    // --- the exchange
    // Its first bytes, sent or not. False: they have not come, or are not kept any more.
    [[nodiscard]] bool copy_start(std::span<char> to) const;
    bool replayable() const { return keep_; }  // nothing of it has been let go
    void rewind();                             // send it again from its start: only while replayable
    void stop_keeping();
    void discard();  // nobody drains it any more
    bool discards() const { return discards_; }
    void clear();  // gives everything back

  private:
    bool hold(uint64_t bytes);
    void let_go_sent();

    ChunkPool& pool_;
    MemoryAccount& account_;
    Bytes bytes_;
    uint64_t budget_ = 0;
    uint64_t length_ = unknown_length;
    uint64_t held_ = 0;  // of the account
    uint64_t total_ = 0;
    size_t unsent_ = 0;
    uint32_t at_piece_ = 0;   // where the first byte not sent is
    uint32_t at_offset_ = 0;  // counted from that piece's begin
    bool keep_ = false;
    bool discards_ = false;
};

}  // namespace penstock
