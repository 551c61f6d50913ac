// When a worker that failed may be started again: exponential back-off with jitter, and when to stop trying.
//
// One RestartBackoff a worker; it outlives the worker's processes, which is the point: a process that dies
// right after its start must not be started anew as fast as the machine can fork. Only what happens unasked
// counts (a start that failed, an exit nobody wanted); a recycle or a restart that we ordered does not.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace penstock {

struct RestartRules {
    Duration backoff = 500ms;    // before the first restart; doubles with each failure in a row
    Duration max_backoff = 30s;  // never longer than this
    unsigned give_up_after = 0;  // failures in a row; 0: never
};

class RestartBackoff {
  public:
    // However short the configuration wants it: a worker that cannot start costs at most 20 forks a second.
    static constexpr Duration shortest = 50ms;

    RestartBackoff() = default;
    explicit RestartBackoff(const RestartRules& rules) : rules_(rules) {}

    // A start failed or a worker ended unasked, at `now`. `ready_since` says when it became ready (`never`:
    // it never did), `random` is from [0, 1). Returns when the next start is due; `never`: given up.
    Time failed(Time now, Time ready_since, double random);

    // An operator wants another try, whatever happened before.
    void forgive() { failures_ = 0; }

    unsigned failures() const { return failures_; }  // in a row
    bool gave_up() const { return rules_.give_up_after > 0 && failures_ >= rules_.give_up_after; }

    // A worker that was ready for this long has recovered: its next failure is a first one. As long as the
    // longest wait, so that a worker that dies again and again is down at most half of the time it is up.
    Duration stable_after() const { return std::max<Duration>(10s, rules_.max_backoff); }

  private:
    RestartRules rules_;
    unsigned failures_ = 0;
};

}  // namespace penstock
