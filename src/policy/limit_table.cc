#include "policy/limit_table.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>

namespace penstock {

namespace {

constexpr uint32_t branches = 4;  // of the heap: half as deep as with two, and four items are one cache line
// How many of the heap's times are put right to find who makes room: a bound on one call. Beyond it the one
// that seems to be due first goes.
constexpr int most_looks = 64;

template <class T>
T* zeroed(size_t count) {
    void* memory = std::calloc(count, sizeof(T));
    if (!memory) throw std::bad_alloc();
    return static_cast<T*>(memory);
}

}  // namespace

// At most half full, so that a search ends soon.
uint32_t LimitTable::slots_for(uint32_t most_keys) { return std::bit_ceil(std::max(most_keys, 4u) * 2); }

size_t LimitTable::bytes(uint32_t most_keys) {
    return most_keys * (sizeof(Entry) + sizeof(Due)) + slots_for(most_keys) * sizeof(Slot);
}

LimitTable::LimitTable(uint32_t most_keys)
    : most_keys_(most_keys),
      mask_(slots_for(most_keys) - 1),
      slots_(zeroed<Slot>(mask_ + size_t{1})),
      entries_(std::make_unique_for_overwrite<Entry[]>(most_keys)),
      heap_(std::make_unique_for_overwrite<Due[]>(most_keys)) {
    assert(most_keys > 0);
}

uint32_t LimitTable::find(const Hash128& key) const {
    const auto tag = static_cast<uint32_t>(key.low);
    for (uint32_t at = tag & mask_; slots_[at].next; at = (at + 1) & mask_)
        if (slots_[at].tag == tag && entries_[slots_[at].next - 1].key == key) return slots_[at].next - 1;
    return none;
}

uint32_t LimitTable::add(const Hash128& key, Time free_at, uint32_t units, Time now) {
    if (size_ == most_keys_) make_room(now);
    uint32_t entry = free_;
    if (entry == none)
        entry = used_++;
    else
        free_ = entries_[entry].place;
    entries_[entry] = {key, free_at, units, 0};
    holding_ += units > 0;

    const auto tag = static_cast<uint32_t>(key.low);
    uint32_t at = tag & mask_;
    while (slots_[at].next) at = (at + 1) & mask_;
    slots_[at] = {tag, entry + 1};
    rise(size_++, {due(entries_[entry]), entry});
    return entry;
}

void LimitTable::give_unit(uint32_t number, Time now) {
    Entry& entry = entries_[number];
    assert(entry.units > 0);
    if (--entry.units > 0) return;
    --holding_;
    if (entry.free_at <= now) return forget(number);
    // While it had units the heap may have been told `never`.
    if (heap_[entry.place].at > entry.free_at) rise(entry.place, {entry.free_at, number});
}

void LimitTable::forget_old(Time now, int most) {
    while (most-- > 0 && size_ > 0 && heap_[0].at <= now) {
        const uint32_t number = heap_[0].entry;
        const Time at = due(entries_[number]);
        if (at <= now)
            forget(number);
        else
            sink(0, {at, number});
    }
}

void LimitTable::make_room(Time now) {
    assert(!is_stuck());
    for (int looks = 0;; ++looks) {
        const uint32_t number = heap_[0].entry;
        const Time at = due(entries_[number]);
        const bool is_first = at == heap_[0].at || looks >= most_looks;
        if (at != never && (is_first || at <= now)) {
            forgiven_ += at > now;
            return forget(number);
        }
        sink(0, {at, number});
    }
}

uint32_t LimitTable::slot_of(uint32_t entry) const {
    uint32_t at = static_cast<uint32_t>(entries_[entry].key.low) & mask_;
    while (slots_[at].next != entry + 1) at = (at + 1) & mask_;
    return at;
}

void LimitTable::forget(uint32_t entry) {
    // Who stands behind the hole and would like to be nearer moves into it, so that no search stops short.
    uint32_t hole = slot_of(entry);
    for (uint32_t at = (hole + 1) & mask_; slots_[at].next; at = (at + 1) & mask_) {
        const uint32_t home = slots_[at].tag & mask_;
        if (((at - home) & mask_) < ((at - hole) & mask_)) continue;
        slots_[hole] = slots_[at];
        hole = at;
    }
    slots_[hole] = {};

    const uint32_t place = entries_[entry].place;
    const Due last = heap_[--size_];
    if (place < size_) {
        if (last.at < heap_[place].at)
            rise(place, last);
        else
            sink(place, last);
    }
    entries_[entry].place = free_;
    free_ = entry;
}

void LimitTable::put(uint32_t place, Due item) {
    heap_[place] = item;
    entries_[item.entry].place = place;
}

void LimitTable::rise(uint32_t place, Due item) {
    while (place > 0) {
        const uint32_t above = (place - 1) / branches;
        if (heap_[above].at <= item.at) break;
        put(place, heap_[above]);
        place = above;
    }
    put(place, item);
}

void LimitTable::sink(uint32_t place, Due item) {
    while (true) {
        const uint64_t first = uint64_t{place} * branches + 1;
        if (first >= size_) break;
        const uint64_t end = std::min<uint64_t>(first + branches, size_);
        auto least = static_cast<uint32_t>(first);
        for (auto i = static_cast<uint32_t>(first) + 1; i < end; ++i)
            if (heap_[i].at < heap_[least].at) least = i;
        if (heap_[least].at >= item.at) break;
        put(place, heap_[least]);
        place = least;
    }
    put(place, item);
}

}  // namespace penstock
