// A LimitTable is what the keys of one limit owe: for each the time when it owes nothing any more, and how
// many of its requests are in flight. A key that owes nothing and has nothing in flight is as good as one
// that was never seen, and is forgotten; so the table holds live keys only, and memory for as many as it may
// hold is all that it ever takes (touched as they come).
//
// Where a new key finds the table full of live ones, the one that would be free the soonest makes room: it is
// forgiven the little that it owes. A key with requests in flight never goes.
//
// Found by hash (open addressing); what is due next is known from a heap. A key's time only moves on, and the
// heap is told late: what it has is a lower bound, put right when it comes to the top.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/hash.h"
#include "base/time.h"

namespace penstock {

class LimitTable {
  public:
    static constexpr uint32_t none = UINT32_MAX;

    struct Entry {
        Hash128 key;
        Time free_at;    // when it owes nothing any more: GCRA's theoretical arrival time
        uint32_t units;  // requests in flight
        uint32_t place;  // in the heap
    };

    explicit LimitTable(uint32_t most_keys);

    uint32_t find(const Hash128& key) const;  // none: it owes nothing
    Entry& operator[](uint32_t entry) { return entries_[entry]; }

    // A key that is not there; it is to owe something, or to have something in flight, at once. Not where
    // is_stuck().
    uint32_t add(const Hash128& key, Time free_at, uint32_t units, Time now);
    void take_unit(uint32_t entry) { holding_ += entries_[entry].units++ == 0; }
    void give_unit(uint32_t entry, Time now);
    void forget_old(Time now, int most = 2);

    bool is_stuck() const { return holding_ == most_keys_; }  // full, and all have requests in flight
    uint32_t size() const { return size_; }
    uint64_t forgiven() const { return forgiven_; }  // keys that made room though they owed something
    static size_t bytes(uint32_t most_keys);         // at most, of memory

  private:
    struct Slot {
        uint32_t tag;   // of the hash; its low bits say where it would like to be
        uint32_t next;  // the entry's number and 1; 0: free
    };
    struct Due {
        Time at;  // not later than is true
        uint32_t entry;
    };
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };

    static uint32_t slots_for(uint32_t most_keys);
    Time due(const Entry& entry) const { return entry.units ? never : entry.free_at; }
    void make_room(Time now);
    void forget(uint32_t entry);
    uint32_t slot_of(uint32_t entry) const;
    void put(uint32_t place, Due item);
    void rise(uint32_t place, Due item);
    void sink(uint32_t place, Due item);

    const uint32_t most_keys_;
    const uint32_t mask_;
    std::unique_ptr<Slot[], Free> slots_;  // zeroed by the system, and so untouched until it is used
    std::unique_ptr<Entry[]> entries_;
    std::unique_ptr<Due[]> heap_;
    uint32_t size_ = 0;
    uint32_t holding_ = 0;  // entries with units
    uint32_t used_ = 0;     // entries from here on were never used
    uint32_t free_ = none;  // a list of those that were, by `place`
    uint64_t forgiven_ = 0;
};

}  // namespace penstock
