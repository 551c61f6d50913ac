// The keys that session tickets are sealed with: one for new tickets, and the one before it for those that
// are still about. They change every hour. One for the process, so that a ticket is good on every loop and
// after a reload of certificates; it outlives all TlsServers. Any thread, behind a mutex of its own that is
// held for a copy of some bytes, once a ticket.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "base/time.h"

namespace penstock {

struct TicketKey {
    std::array<uint8_t, 16> name;
    std::array<uint8_t, 32> cipher;
    std::array<uint8_t, 32> mac;
    Time made;
};

class TicketKeys {
  public:
    static constexpr Duration lifetime = 1h;  // of a key, and of a ticket

    TicketKeys() = default;
    TicketKeys(const TicketKeys&) = delete;
    TicketKeys& operator=(const TicketKeys&) = delete;

    TicketKey current(Time now);
    struct Found {
        TicketKey key;
        bool is_current;
    };
    // Nothing where the ticket was sealed too long ago, or not by us.
    std::optional<Found> find(const uint8_t* name, Time now);

  private:
    void rotate(Time now);

    std::mutex mutex_;
    std::optional<TicketKey> current_, previous_;
};

}  // namespace penstock
