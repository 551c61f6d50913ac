// What one seed plays: a configuration, the workers behind it and the clients in front of it, with their bad
// habits. A plan is made once from the seed's first random numbers and never changes.
#pragma once

#include <cstdint>
#include <vector>

#include "chance.h"
#include "config/config.h"
#include "policy/park_rules.h"

namespace penstock::sim {

// How many of a thousand requests a worker treats so.
struct Deeds {
    uint32_t early = 0;        // answers before it has read the request
    uint32_t unanswered = 0;   // closes without an answer
    uint32_t cut = 0;          // ends the connection in the middle of an answer
    uint32_t rubbish = 0;      // sends what is no HTTP, and works on
    uint32_t hangs = 0;        // never answers
    uint32_t dies = 0;         // and its process with it
    uint32_t closes = 0;       // after its answer
    uint32_t interims = 0;     // sends some first
    uint32_t slow_reader = 0;  // of the request's body
    uint32_t fails = 0;        // answers with a 5xx
};

struct PoolPlan {
    Upstream settings;
    UpstreamRules rules;
    std::vector<BackendRules> backends;  // device: 0 stands for the plan's one
    bool spawned = false;
    bool one_by_one = false;      // a process serves no more connections at once than it has slots
    uint32_t obeys = 1000;        // of a thousand requests: stops when we shut our side of the connection
    Duration work{};              // mean time of an answer
    Duration start{};             // mean time until a worker is ready
    uint32_t fails_to_start = 0;  // of a thousand starts
    uint32_t slow_ones = 0;       // of a thousand processes: take many times as long
    Deeds deeds;
    uint64_t capacity = 0;  // requests a second
};

struct ClientsPlan {
    Duration gap{};          // mean time between two connections
    Duration patience{};     // how long they wait before the first one
    uint32_t bursts = 0;     // of a thousand: this one brings friends
    uint32_t leave = 0;      // of a thousand requests: hangs up before the end
    uint32_t slow_up = 0;    // uploads slowly, or stops
    uint32_t slow_down = 0;  // reads slowly, or not at all
    uint32_t broken = 0;     // sends rubbish, in head or body
    uint32_t large = 0;      // has a body that does not fit into the buffer
    uint32_t upgrades = 0;
};

struct WirePlan {
    Duration latency{};
    uint32_t dial_lost = 0;     // of a thousand: nobody ever says yes or no
    uint32_t dial_refused = 0;  // the backlog was full
    uint32_t no_socket = 0;     // our own lack of descriptors
};

struct WakePlan {
    Duration delay{};
    uint32_t lost = 0;
    uint32_t doubled = 0;
};

struct Plan {
    explicit Plan(uint64_t seed);

    size_t choose_pool(Chance& chance) const;  // by their capacity, or any

    Chance chance;  // goes on in the world
    unsigned loops = 1;
    uint32_t requests = 0;
    Duration tempo{};  // how long one step of one loop takes, at most
    Config config;
    std::vector<PoolPlan> pools;
    uint32_t device_slots = 0;  // 0: there is none
    ClientsPlan clients;
    WirePlan wire;
    WakePlan wakes;
    Duration changes{};        // mean time between two changes from outside; 0: none
    bool set_changes = false;  // backends are among what changes: they come and go
    uint32_t drains_at = 0;    // after so many requests; 0: never
};

}  // namespace penstock::sim
