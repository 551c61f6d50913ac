#include "base/deadlines.h"

#include <algorithm>
#include <bit>

namespace penstock {

void Deadlines::arm(Deadline& deadline, Time at) {
    deadline.expired_ = false;
    if (at == never) {
        deadline.disarm();
        return;
    }
    deadline.at_ = at;
    if (deadline.is_linked() && ceil_ms(at) >= deadline.slot_ms_) return;
    deadline.unlink();
    insert(deadline);
}

void Deadlines::insert(Deadline& deadline) {
    constexpr uint64_t range = (uint64_t{1} << (bits * levels)) - 1;
    uint64_t due = std::clamp(ceil_ms(deadline.at_), cursor_, cursor_ | range);
    uint64_t differs = due ^ cursor_;
    unsigned level = differs == 0 ? 0 : static_cast<unsigned>(std::bit_width(differs) - 1) / bits;
    unsigned slot = (due >> (level * bits)) % slots;
    deadline.slot_ms_ = due;
    wheel_[level][slot].push_back(deadline);
    busy_[level] |= uint64_t{1} << slot;
}

// Whatever slots the cursor now stands in are emptied at once into lower levels; so all that is left
// on a higher level is later than all that is on a lower one.
void Deadlines::move_to(uint64_t ms) {
    cursor_ = ms;
    for (unsigned level = levels; --level > 0;) {
        unsigned slot = (cursor_ >> (level * bits)) % slots;
        if (!(busy_[level] >> slot & 1)) continue;
        busy_[level] &= ~(uint64_t{1} << slot);
        List<Deadline, DeadlineTag> moved;
        moved.splice_back(wheel_[level][slot]);
        while (Deadline* deadline = moved.pop_front()) insert(*deadline);
    }
}

uint64_t Deadlines::next_ms() const {
    for (unsigned level = 0; level < levels; ++level) {
        unsigned here = (cursor_ >> (level * bits)) % slots;
        uint64_t ahead = busy_[level] >> here;
        if (ahead == 0) continue;
        uint64_t slot = here + static_cast<unsigned>(std::countr_zero(ahead));
        unsigned above = (level + 1) * bits;
        return std::max(cursor_, ((cursor_ >> above) << above) | (slot << (level * bits)));
    }
    return UINT64_MAX;
}

Time Deadlines::next() const {
    uint64_t ms = next_ms();
    return ms == UINT64_MAX ? never : Time(std::chrono::milliseconds(ms));
}

}  // namespace penstock
