// KeyUnits are what one request holds of the limits on requests in flight: a unit of each key that it counts
// under. They wait with its ticket, go with its lease, and so come back when the work is proven to be over,
// not when its client has left. Move-only; the destructor gives them back. The limiter outlives them.
#pragma once

#include <cstdint>
#include <utility>

namespace penstock {

class RateLimiter;

class KeyUnits {
  public:
    KeyUnits() = default;  // holds nothing
    KeyUnits(KeyUnits&& other) noexcept { *this = static_cast<KeyUnits&&>(other); }
    KeyUnits& operator=(KeyUnits&& other) noexcept {
        if (this == &other) return *this;
        release();
        limiter_ = std::exchange(other.limiter_, nullptr);
        first_ = other.first_;
        return *this;
    }
    ~KeyUnits() { release(); }

    explicit operator bool() const { return limiter_; }
    void release();

  private:
    friend class RateLimiter;
    RateLimiter* limiter_ = nullptr;
    uint32_t first_ = 0;  // of the limiter's records
};

}  // namespace penstock
