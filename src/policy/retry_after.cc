#include "policy/retry_after.h"

#include <algorithm>
#include <cmath>

namespace penstock {

void MeanHold::add(Duration held) {
    // 1/16 for the newest: one odd request moves the estimate by little, a change of load shows after some
    // tens.
    constexpr uint32_t most = 16;
    samples_ = std::min(samples_ + 1, most);
    mean_ += (held - mean_) / samples_;
}

Duration expected_wait(const Load& load) {
    const Duration longest = 24h;  // keeps the product in range; nobody waits that long
    if (!load.mean.has_samples()) return std::min(load.to_ready, longest) + load.queue_timeout / 2;
    const Duration mean = std::max(load.mean.value(), load.oldest);
    const double turns =
        static_cast<double>(load.ahead + 1) / static_cast<double>(std::max<uint64_t>(load.slots, 1));
    const double wait = seconds(mean) * turns + seconds(std::min(load.to_ready, longest));
    return std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(std::min(wait, seconds(longest))));
}

uint32_t retry_after(Duration wait, uint64_t random) {
    const double spread = 1 + 0.2 * static_cast<double>(random >> 11) * 0x1p-53;
    return static_cast<uint32_t>(std::clamp(std::ceil(seconds(wait) * spread), 1.0, 3600.0));
}

}  // namespace penstock
