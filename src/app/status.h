// Status: what a running penstock says about itself, as plain structs. Server fills one when somebody asks;
// /status shows it as JSON, /metrics takes its gauges from it, `penstock status` prints that JSON for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"

namespace penstock {

using CountsByName = std::vector<std::pair<std::string, uint64_t>>;

struct EjectionStatus {
    uint32_t in_row = 0;                                    // without a good interval between them
    CountsByName by_reason{};                               // since the start
    uint64_t kept_by_min_healthy = 0, kept_by_percent = 0;  // ejections that were not
};

struct HealthStatus {
    bool healthy = true;
    std::string last{};  // what the last check found; empty: there was none yet
    std::optional<Duration> ago{};
    CountsByName by_result{};
};

struct BackendStatus {
    std::string name{};  // of a worker ocr/0, else the address
    std::string address{};
    std::string state{};  // starting ready suspect resting draining down
    std::string why{};    // why it takes no request now; empty: it does
    uint32_t generation = 0;
    uint32_t slots = 0;  // 0: no limit
    uint32_t weight = 1;
    bool backup = false;
    uint32_t in_flight = 0;
    uint32_t connections = 0;
    bool counted_by_loops = false;              // unlimited: in_flight is read from the loops' own counters
    Duration since{};                           // how long it has been in this state
    std::optional<Duration> until{};            // how long it will be, where that is known
    std::optional<EjectionStatus> ejections{};  // where there is outlier detection
    std::optional<HealthStatus> health{};       // where there are health checks
};

struct WorkerStatus {
    std::string name{};
    uint32_t index = 0;
    int pid = 0;  // 0: there is no process
    std::string state{};
    uint32_t generation = 0;
    uint32_t restarts = 0;
    uint64_t rss_bytes = 0;
    Duration since{};
    std::optional<Duration> until{};
    std::string why{};  // what went wrong last
};

struct ExitCount {
    std::string reason{};
    uint64_t count = 0;
};

// A server that is given by name.
struct NameStatus {
    std::string name{};
    std::vector<std::string> addresses{};
    uint64_t found = 0, failed = 0;  // look-ups
    std::string failure{};           // of the last one; empty: it was found
};

// One limit of the circuit breaker: those that are set, and those that ever refused.
struct CircuitStatus {
    std::string limit{};
    uint32_t bound = 0;  // 0: no number
    uint32_t now = 0;
    bool is_open = false;
    Duration for_so_long{};  // open, or closed again; 0: it never was open
    uint64_t refused = 0;
    uint64_t opened = 0;
    uint64_t closed = 0;
};

struct UpstreamStatus {
    std::string name;
    std::string serving;  // serving coming none
    struct {
        uint32_t depth = 0;
        uint32_t size = 0;
        uint64_t bytes = 0;
    } queue;
    uint32_t abandoned = 0;
    std::vector<CircuitStatus> circuits{};
    std::vector<BackendStatus> backends;
    std::vector<NameStatus> names;
    std::vector<WorkerStatus> workers;
    uint64_t worker_starts = 0;
    std::vector<ExitCount> worker_exits;
};

struct RateLimitStatus {
    std::string name;
    bool dry_run = false;
    uint32_t keys = 0;       // that owe something or have requests in flight now
    uint32_t most_keys = 0;  // that are remembered at a time
    uint64_t in_flight = 0;  // as far as the limit counts them
    uint64_t passed = 0;
    uint64_t held = 0;     // of those: for a while
    uint64_t refused = 0;  // in a dry run: would have been
    uint64_t forgiven = 0;
};

struct Status {
    std::string version;
    std::string state;  // starting ready draining
    std::vector<std::string> listeners;
    std::string admin;
    uint32_t loops = 0;
    Duration up{};
    std::vector<UpstreamStatus> upstreams;
    std::vector<RateLimitStatus> rate_limits;
    uint64_t memory_reserved = 0;
    uint64_t memory_limit = 0;
    std::vector<uint64_t> turns;      // of each data loop
    uint64_t access_log_dropped = 0;  // lines
    uint64_t log_dropped = 0;
    uint64_t reloads = 0, failed_reloads = 0;

    // Traffic makes sense: started, not draining, and some upstream has a backend that is up.
    bool is_ready() const;
};

// Whoever can be asked, on the main thread.
class StatusSource {
  public:
    virtual Status status() = 0;

  protected:
    ~StatusSource() = default;
};

std::string status_json(const Status& status);
// The same JSON (of another process) as a table for people; nothing if it is no such JSON.
std::string status_for_people(std::string_view json);

}  // namespace penstock
