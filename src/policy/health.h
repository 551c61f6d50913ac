// What health checks make of a backend, and when a worker counts as hung: pure.
//
// The surprising thing: busy is not dead. A check that gets no answer in time, while real requests of the
// same backend go on, is no failure (whoever asks knows that, and says `busy`): bytes of them come, or one is
// at work that may still take its time, as a server that computes one thing at a time says nothing until
// then. And a worker with work on it is only given up when nothing at all has come from it for long.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace penstock {

enum class CheckResult : uint8_t {
    passed,
    failed,
    busy,     // no answer in time, but real requests go on, or one is at work
    skipped,  // no slot was free, or it is not in service
};
constexpr size_t check_results = 4;
std::string_view to_string(CheckResult);

struct HealthRules {
    uint32_t healthy = 2;
    uint32_t unhealthy = 3;
    Duration interval = 5s;
    double jitter = 0.1;  // of the interval
};

class Health {
  public:
    bool is_healthy() const { return healthy_; }
    uint32_t row() const { return row_; }        // checks in a row that speak against what it is
    bool note(const HealthRules&, CheckResult);  // true: it turned

  private:
    bool healthy_ = true;
    uint32_t row_ = 0;
};

Duration next_check(const HealthRules&, double random);   // 0 to 1
Duration first_check(const HealthRules&, double random);  // so that not all begin at once

// Whether a backend may be at work and therefore silent: its oldest work began less than `may_take` ago (0:
// as long as it likes). `never` where nothing runs on it.
bool is_at_work(Time oldest_began, Duration may_take, Time now);

// When a worker is hung: `after` since its oldest work began, and since a byte last came from it. `never`
// where nothing runs on it.
Time hung_at(Time oldest_began, Time last_byte, Duration after);

}  // namespace penstock
