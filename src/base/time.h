// Time on the one clock that everything uses: monotonic, nanoseconds. Pure code takes a Time as an
// argument; only net/loop (once a turn), main and tests read the clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace penstock {

using Duration = std::chrono::nanoseconds;

struct Clock {  // the type of our time points; not a std clock on purpose: it has no now() to call by mistake
    using rep = Duration::rep;
    using period = Duration::period;
    using duration = Duration;
    using time_point = std::chrono::time_point<Clock, Duration>;
    static constexpr bool is_steady = true;
};
using Time = Clock::time_point;

using namespace std::chrono_literals;

constexpr Time never = Time::max();

inline Time monotonic_now() {
    return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

inline double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline int64_t milliseconds(Duration d) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

// A deadline `d` after `from`; zero means none, and sums saturate at `never`.
inline Time deadline_after(Time from, Duration d) {
    if (d <= Duration::zero() || d >= never - from) return never;
    return from + d;
}

}  // namespace penstock
