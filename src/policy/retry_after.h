// How long a newcomer would wait, and the Retry-After made of it.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace penstock {

// The mean of how long a slot is held: of all samples while they are few, then the newer count more.
class MeanHold {
  public:
    void add(Duration held);
    bool has_samples() const { return samples_ > 0; }
    Duration value() const { return mean_; }

  private:
    Duration mean_{};
    uint32_t samples_ = 0;
};

// What the estimate is made of, at one moment.
struct Load {
    uint64_t ahead = 0;  // tickets that wait before this one
    uint64_t slots = 0;  // of the whole pool, at least 1
    MeanHold mean;
    Duration oldest{};    // age of the oldest running work: a slot is held at least that long
    Duration to_ready{};  // until the first backend is Ready
    Duration queue_timeout{};
};

// (ahead + 1) mean holds over the slots; before any sample half the queue timeout.
Duration expected_wait(const Load&);

// Whole seconds from 1 to 3600, with up to a fifth added at random, so that those refused together do not
// come back together.
uint32_t retry_after(Duration wait, uint64_t random);

}  // namespace penstock
