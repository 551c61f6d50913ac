// What the park is told (rules, news of backends) and what it shows (views): plain structs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "policy/balancer.h"
#include "policy/ticket.h"

namespace penstock {

// What a ticket's key says of its home, the backend that it should go to if it can.
enum class Affinity : uint8_t {
    none,
    by_hash,  // each key likes each backend in an order of its own: balancer.h, by_hash
    by_name,  // the key is the `identity` of a backend
};

// A count of 0 is no limit and a Duration of 0 none, unless it says otherwise.
struct UpstreamRules {
    uint32_t queue_size = 100;  // 0: no queue, busy is refused at once
    uint32_t max_pending = 0;   // the smaller of the two bounds the queue
    uint64_t queue_bytes = 0;
    Duration queue_timeout = 30s;
    Duration start_timeout = 120s;
    bool refuse_hopeless = false;
    uint32_t max_connections = 0;
    uint32_t max_requests = 0;
    bool counts_connections = true;  // HTTP/1: one request a connection
    Duration abandon_grace = 30s;
    Duration abandon_limit = 300s;
    Duration max_rest = 300s;  // of a backend that fails its probing request again and again
    Duration slow_start{};
    Balancing balancing = Balancing::least_busy;  // of tickets without key, and without a home
    Affinity affinity = Affinity::none;
    Duration patience{};          // so long a ticket waits for its home while others are free
    uint32_t balance_factor = 0;  // by_hash: percent of its fair share that a backend takes at most

    uint32_t queue_bound() const {
        return max_pending && max_pending < queue_size ? max_pending : queue_size;
    }
    uint32_t connection_bound() const { return counts_connections ? max_connections : 0; }
};

struct BackendRules {
    uint32_t slots = 1;
    uint32_t weight = 1;
    uint32_t max_connections = 0;
    uint64_t identity = 0;  // a hash of its name; 0: of its number
    bool backup = false;    // only while no other is Ready
    bool spawned = false;   // ours: can be restarted
    DeviceId device = DeviceId::none;
};

enum class BackendState : uint8_t { starting, ready, suspect, resting, draining, down };
std::string_view to_string(BackendState);

// What somebody learned about a backend. News of a generation that has ended are dropped, except `starting`,
// which begins the next one. (Connect failures and early closes come with Park::finish.)
struct BackendNews {
    enum class Event : uint8_t {
        starting,  // a worker of this generation was spawned; until: when it should be ready
        ready,     // it is, or a health check succeeds again. Before it says so, whoever probed a starting
                   // worker has closed his connection
        suspect,   // somebody else met a connect failure
        alive,     // Suspect only: the process is there, or a probe got through
        probe_failed,  // Suspect only: nobody need wait for it until it is alive
        eject,         // Resting until `until`; never: until it is `ready` (a health check says unhealthy)
        drain,         // no new work; tick() says `stop` when it is empty. until: when it will be back
        undrain,       // Ready again, where it has not been stopped yet
        idle_stop,     // drain, but only if nothing is used at this moment
        exited,        // the process is gone; until: when the next one is started
        gave_up,       // it will not be started again
    };

    Event event = Event::ready;
    uint32_t generation = 0;
    Time until = never;
    Duration restart_cost{};  // ready: back-off and start time of a restart; 0: as long as this start took
    bool warm = false;        // ready: it has served before we came, and needs no slow start
};

// What the main thread is asked to do by tick(). Each is asked once, and again if it has not helped in a
// minute.
struct Action {
    enum class Kind : uint8_t {
        probe,    // this backend is Suspect: find out, and say alive, probe_failed or exited
        restart,  // its worker is held by work that nobody waits for: stop it by force, start the next
        stop,     // Draining, and nothing of ours is left on it
        forget,   // removed, and nothing refers to it any more: call forget()
    };
    Kind kind = Kind::probe;
    BackendId backend;
    uint32_t generation = 0;
};

struct Actions {
    static constexpr size_t capacity = 16;
    std::array<Action, capacity> items;
    size_t count = 0;
    bool more = false;  // call tick() again
    const Action* begin() const { return items.data(); }
    const Action* end() const { return items.data() + count; }
};

// Idle connections to be closed by one loop. They already count as closing: each must be confirmed.
struct Trims {
    struct Item {
        BackendId backend;
        uint32_t generation = 0;
        uint32_t connections = 0;
    };
    static constexpr size_t capacity = 16;
    std::array<Item, capacity> items;
    size_t count = 0;
    bool more = false;
    const Item* begin() const { return items.data(); }
    const Item* end() const { return items.data() + count; }
};

// Serving: one is Ready. Coming: none, but it is known when. None: all are refused at once.
enum class Serving : uint8_t { none, coming, serving };
std::string_view to_string(Serving);

// Why a backend takes no request now, for /status.
enum class Unfit : uint8_t {
    fit,
    starting,
    suspect,
    resting,
    draining,
    down,
    restarting,
    busy,
    device_busy,
    max_connections,
    max_requests,
    backup
};
std::string_view to_string(Unfit);

struct BackendView {
    BackendId id;
    BackendState state = BackendState::down;
    Unfit unfit = Unfit::fit;
    uint32_t generation = 0;
    uint32_t slots = 0, weight = 0;
    uint32_t used = 0;                                              // the sum of the next four
    uint32_t granted = 0, running = 0, abandoned = 0, probing = 0;  // granted: nothing sent yet
    uint32_t stuck = 0;                                             // of the abandoned
    uint32_t dialing = 0, busy = 0, idle = 0, closing = 0;  // connections; only where they are counted
    Time since{};
    Time until = never;
};

struct UpstreamView {
    UpstreamId id = UpstreamId::none;
    Serving serving = Serving::none;
    uint32_t depth = 0, queue_size = 0;
    uint64_t bytes = 0;
    uint32_t slots = 0;  // of all its backends that are Ready
    uint32_t used = 0, abandoned = 0, connections = 0;
    Duration mean_hold{};       // 0: no sample yet
    Duration wasted{};          // slot time after nobody waited for the answer, in all
    Time oldest_since = never;  // when its longest running work began
    std::vector<BackendView> backends;
};

struct DeviceView {
    DeviceId id = DeviceId::none;
    uint32_t slots = 0, used = 0;
};

struct ParkView {
    std::vector<UpstreamView> upstreams;
    std::vector<DeviceView> devices;
};

}  // namespace penstock
