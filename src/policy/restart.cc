#include "policy/restart.h"

namespace penstock {

namespace {
// Workers that died together (one bad request, one GPU gone) must not come back together. Only downwards, so
// that max_backoff is the longest wait there is.
constexpr double jitter = 0.3;
}  // namespace

Time RestartBackoff::failed(Time now, Time ready_since, double random) {
    if (ready_since != never && now - ready_since >= stable_after()) failures_ = 0;
    ++failures_;
    if (gave_up()) return never;

    Duration longest = std::max(rules_.max_backoff, shortest);
    Duration wait = std::clamp(rules_.backoff, shortest, longest);
    for (unsigned i = 1; i < failures_ && wait < longest; ++i) wait = wait > longest / 2 ? longest : wait * 2;
    wait = std::chrono::duration_cast<Duration>(wait * (1 - jitter * random));
    return now + std::max(wait, shortest);
}

}  // namespace penstock
