// A Wire is one connection between a loop's Connection (our end) and a simulated Process (theirs). Bytes are
// positions on it: what one end has written or made reaches the other with an event, a while later, and what
// lies between is on its way. It lives in the world until both ends have let go of it.
#pragma once

#include <cstdint>

#include "base/slab.h"
#include "base/time.h"
#include "http/rules.h"
#include "timeline.h"

namespace penstock::sim {

class Process;

constexpr uint64_t window = 64 * 1024;  // a socket takes so much before its reader must read

// What a process does with one request.
struct Work {
    enum class Phase : uint8_t { none, reading, thinking, answering, lingering, hanging };
    enum class Deed : uint8_t { answers, early, unanswered, cut, rubbish, hangs, dies };

    uint32_t step = 0;  // events of earlier steps are late
    Phase phase = Phase::none;
    Deed deed = Deed::answers;
    bool busy = false;  // it counts as at work
    bool obeys = true;  // stops when we shut our side
    bool stops = false;
    bool keeps = true;     // the connection, after its answer
    bool blocked = false;  // by us: we do not read
    bool slow_reader = false;
    uint8_t interims = 0;
    uint32_t request = 0;
    uint32_t piece = 0;
    Duration pause{};
    uint64_t goes_wrong_at = 0;  // of the answer's body
};

struct Wire {
    enum class Dial : uint8_t { under_way, accepted, refused, lost };
    struct Request {
        bool head = false;
        bool complete = false;
        bool shut = false;
        bool upgrade = false;
        uint64_t body = 0;
    };
    struct Answer {
        uint8_t interims = 0;
        bool head = false;
        bool rubbish = false;
        bool complete = false;
        bool keeps = true;
        bool is_full = false;
        BodyKind kind = BodyKind::none;
        uint16_t status = 200;
        uint64_t length = 0;
        uint64_t body = 0;
    };
    enum class End : uint8_t { none, fin, reset };

    Wire(Process& to, Where from, uint32_t for_generation)
        : process(&to), loop(from), generation(for_generation) {}

    Process* process;
    Where loop;
    Handle connection{};  // our end
    uint32_t generation;  // of the backend that it was dialed for
    uint32_t life = 0;    // of the process that accepted it
    bool ours_open = true;
    bool theirs_open = false;
    bool we_wait = false;  // for room to write
    Dial dial = Dial::under_way;
    Dial dial_arrived = Dial::under_way;
    Time given_up_at = never;  // abandoned, and its limit passes then

    uint32_t request = 0;  // the number of the one on it
    Request written, seen;
    Answer made, arrived;
    uint64_t taken = 0;  // of the answer's body, by us
    End end_made = End::none;
    End end_arrived = End::none;
    Work work;

    bool is_unused() const { return !ours_open && !theirs_open && dial != Dial::under_way; }
};

}  // namespace penstock::sim
