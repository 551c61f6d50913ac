#include "codec/h2_floods.h"

#include <cassert>

namespace penstock {

namespace {

struct Allowance {
    std::string_view name;
    float burst;
    float a_second;
};

constexpr Allowance allowances[] = {
    {"none", 0, 0},
    // A user who leaves a page cancels what it had open: a hundred streams, and soon again.
    {"reset", 200, 50},
    // An honest client makes few mistakes.
    {"provoked_reset", 100, 10},
    // Beside those that DATA earns: to see whether we are still there.
    {"ping", 500, 100},
    // A proxy asks with them whether a reset was read, as we do: one for each reset at most.
    {"settings", 250, 60},
    // Some libraries end a stream with one, none sends many without an end.
    {"empty_data", 100, 10},
    // Old Firefox makes a tree of six; others reprioritize what they have open.
    {"priority", 500, 50},
    {"window_update", 1000, 200},
    {"continuation", 0, 0},
    {"header_bomb", 0, 0},
    {"unread", 0, 0},
};
static_assert(std::size(allowances) == h2_flood_count);

}  // namespace

std::string_view to_string(H2Flood kind) { return allowances[size_t(kind)].name; }

bool H2Floods::count(H2Flood kind, Time now) {
    assert(kind < H2Flood::continuation);
    auto i = size_t(kind);
    const float burst = allowances[i].burst * tolerance_;
    if (at_[i] == Time{}) {
        left_[i] = std::max(left_[i], burst);
    } else {
        float gained = static_cast<float>(seconds(now - at_[i])) * allowances[i].a_second * tolerance_;
        // What DATA has earned may stand above the burst.
        if (left_[i] < burst) left_[i] = std::min(left_[i] + gained, burst);
    }
    at_[i] = now;
    if (left_[i] < 1) return false;
    left_[i] -= 1;
    return true;
}

}  // namespace penstock
