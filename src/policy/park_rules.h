// What the park is told (rules, news of backends) and what it shows (views): plain structs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "policy/balancer.h"
#include "policy/breaker.h"
#include "policy/outlier.h"
#include "policy/retry.h"
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
    Duration max_rest =
        300s;  // of a backend that fails its probing request again and again, without `outlier`
    std::optional<OutlierRules> outlier{};
    Duration slow_start{};
    Balancing balancing = Balancing::least_busy;  // of tickets without key, and without a home
    Affinity affinity = Affinity::none;
    Duration patience{};          // so long a ticket waits for its home while others are free
    uint32_t balance_factor = 0;  // by_hash: percent of its fair share that a backend takes at most
    RetryRules retry{};

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
        eject,         // Resting until `until`, by order; by its failures the park ejects it itself
        unhealthy,     // health checks say so: Resting until they say `healthy`
        healthy,       // it is again; what is left of an ejection it still has to rest
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

// Why a worker is to be restarted.
enum class RestartWhy : uint8_t {
    stuck,      // it is held by work that nobody waits for
    ejected,    // it was ejected so many times in a row
    unhealthy,  // health checks have found it so for so long
    hung,       // it is at work, and nothing has come from it for so long
};
std::string_view to_string(RestartWhy);

// What the main thread is asked to do by tick(). Each is asked once, and again if it has not helped in a
// minute.
struct Action {
    enum class Kind : uint8_t {
        probe,    // this backend is Suspect: find out, and say alive, probe_failed or exited
        restart,  // stop its worker by force, start the next
        stop,     // Draining, and nothing of ours is left on it
        forget,   // removed, and nothing refers to it any more: call forget()
    };
    Kind kind = Kind::probe;
    BackendId backend;
    uint32_t generation = 0;
    RestartWhy why = RestartWhy::stuck;
};

// A limit of the circuit breaker began to refuse, or is no longer met: to be logged.
struct CircuitChange {
    UpstreamId upstream = UpstreamId::none;
    CircuitLimit limit = CircuitLimit::none;
    bool is_open = false;
    uint32_t bound = 0;    // of a budget: 0
    uint64_t refused = 0;  // closed: while it was open
    Duration lasted{};     // closed: how long it was open
};

struct Actions {
    static constexpr size_t capacity = 16;
    std::array<Action, capacity> items;
    size_t count = 0;
    std::array<CircuitChange, capacity> circuits;
    size_t circuit_count = 0;
    bool more = false;  // call tick() again
    const Action* begin() const { return items.data(); }
    const Action* end() const { return items.data() + count; }
};

// What became of a backend while nobody asked: for the log, a line each.
struct BackendChange {
    enum class Kind : uint8_t {
        suspect,  // a connection to it failed; told once a second at most
        trusted,  // it is alive after all
        ejected,  // for `time`
        kept,     // it would have been ejected, if `verdict` did not forbid it
        probed,   // its rest is over, `time` after the ejection: one request is on its way
        back,     // that one went well
    };
    Kind kind = Kind::suspect;
    BackendId backend;
    EjectReason reason = EjectReason::consecutive_5xx;
    EjectVerdict verdict = EjectVerdict::eject;
    uint32_t row = 0;  // ejections in a row
    Duration time{};
};

struct BackendChanges {
    static constexpr size_t capacity = 32;
    std::array<BackendChange, capacity> items;
    size_t count = 0;
    uint64_t lost = 0;  // more than there was room for since the last call
    const BackendChange* begin() const { return items.data(); }
    const BackendChange* end() const { return items.data() + count; }
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
    unhealthy,
    probing,  // its one request after a rest is under way
    draining,
    down,
    restarting,
    busy,
    device_busy,
    own_connections,  // the backend's own max_connections
    max_connections,  // the upstream's circuit breaker, and so max_requests
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
    bool backup = false;
    uint32_t used = 0;                                              // the sum of the next four
    uint32_t granted = 0, running = 0, abandoned = 0, probing = 0;  // granted: nothing sent yet
    uint32_t stuck = 0;                                             // of the abandoned
    uint32_t dialing = 0, busy = 0, idle = 0, closing = 0;  // connections; only where they are counted
    Time since{};
    Time until = never;
    // Outlier detection. `ejected`: Resting because of it, not (only) because it is unhealthy.
    bool ejected = false;
    bool restarting = false;
    RestartWhy restart_why = RestartWhy::stuck;
    EjectReason ejected_for = EjectReason::consecutive_5xx;
    uint32_t ejected_in_row = 0;
    std::array<uint64_t, eject_reasons> ejections{};
    uint64_t kept_by_min_healthy = 0, kept_by_percent = 0;
};

struct CircuitView {
    CircuitLimit limit = CircuitLimit::none;
    uint32_t bound = 0;  // 0: no limit; of a budget too, which has no number of its own
    uint32_t now = 0;    // of what it bounds
    Breaker breaker;
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
    std::vector<CircuitView> circuits;  // those that are set, or ever refused
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
