// The one source of randomness of a simulation: everything that a seed decides is drawn from here, in the
// order in which it happens, so that a seed tells the same story each time.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/time.h"

namespace penstock::sim {

class Chance {
  public:
    explicit Chance(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d) {}

    uint64_t draw() {  // splitmix64
        uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    uint64_t below(uint64_t n) { return draw() % n; }
    uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
    Duration between(Duration low, Duration high) {
        return low + Duration(below(static_cast<uint64_t>((high - low).count()) + 1));
    }
    bool one_in(uint64_t n) { return below(n) == 0; }
    bool in_thousand(uint32_t n) { return below(1000) < n; }
    // Mostly near the mean, now and then many times as long.
    Duration around(Duration mean) {
        double u = (static_cast<double>(draw() >> 11) + 1) * 0x1p-53;
        return Duration(static_cast<int64_t>(-std::log(u) * static_cast<double>(mean.count())));
    }

  private:
    uint64_t state_;
};

}  // namespace penstock::sim
