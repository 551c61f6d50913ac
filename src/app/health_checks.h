// Health checks: asks each backend of an upstream with `health_check` how it is, every interval, and tells
// the park when it turns; and gives up workers that are unhealthy for too long, or hung. Main thread; the
// fleet owns it and outlives its rounds.
//
// A check takes a free slot of its backend for as long as it lasts, and is skipped when there is none: a
// server that serves one request at a time is asked when it has nothing else to do, or not at all.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "app/status.h"
#include "net/loop.h"
#include "policy/admission.h"
#include "proxy/upstream.h"

namespace penstock {

class Fleet;
class HealthRound;
class HungWatch;

class HealthChecks {
  public:
    HealthChecks(Loop& loop, Fleet& fleet);
    ~HealthChecks();

    void add(LiveUpstream& upstream, Backend& backend);
    void forget(BackendId backend);
    void describe(BackendId backend, BackendStatus& status, Time now) const;

  private:
    friend class HealthRound;
    double random() { return std::generate_canonical<double, 53>(random_); }

    Loop& loop_;
    Fleet& fleet_;
    std::mt19937_64 random_{std::random_device{}()};
    std::vector<std::unique_ptr<HealthRound>> rounds_;
    std::vector<std::unique_ptr<HungWatch>> watches_;
};

}  // namespace penstock
