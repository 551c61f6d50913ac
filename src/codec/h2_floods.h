// What the other end of an HTTP/2 connection may do for nothing, and how often: frames that cost us work and
// cost it none. Each kind has a bucket that honest traffic never empties; who empties one is told
// ENHANCE_YOUR_CALM and cut off. Pure; time is passed in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace penstock {

enum class H2Flood : uint8_t {
    none,
    reset,           // streams opened and reset before their answer began (rapid reset, CVE-2023-44487)
    provoked_reset,  // streams that the other end made us reset ("MadeYouReset", CVE-2025-8671)
    ping,
    settings,
    empty_data,
    priority,  // and other frames that change nothing
    window_update,
    continuation,
    header_bomb,  // a head many times larger than its limit
    unread,       // answers to its own frames that it does not read
};
constexpr size_t h2_flood_count = size_t(H2Flood::unread) + 1;

std::string_view to_string(H2Flood kind);

class H2Floods {
  public:
    // `tolerance`: how many times more than a client may. A backend is one that somebody chose, and what ends
    // its connection ends the requests of many.
    explicit H2Floods(float tolerance = 1) : tolerance_(tolerance) {}

    // One more of a kind. False: that was one too many.
    [[nodiscard]] bool count(H2Flood kind, Time now);
    // Honest window updates answer DATA that we have sent: two dozen for each at most. So do the PINGs by
    // which gRPC measures its way, one a round trip for as long as DATA comes: one for each at most.
    void sent_data() {
        earn(H2Flood::window_update, 24);
        earn(H2Flood::ping, 2);
    }

  private:
    static constexpr float most = 4096;
    void earn(H2Flood kind, float more) {
        float& left = left_[size_t(kind)];
        left = std::max(left, std::min(left + more, most));
    }

    float tolerance_;
    float left_[size_t(H2Flood::continuation)] = {};
    Time at_[size_t(H2Flood::continuation)] = {};
};

}  // namespace penstock
