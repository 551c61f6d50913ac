// The one number that bounds the bodies of all exchanges: MemoryTotal is the process's (`limits.memory`),
// a MemoryAccount is one loop's, which borrows from it in steps so that a reservation is a subtraction.
// The total outlives its accounts. total.used() counts what the loops have borrowed, so it never passes the
// limit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdint>

namespace penstock {

class MemoryTotal {
  public:
    explicit MemoryTotal(uint64_t limit, unsigned loops)
        : limit_(static_cast<int64_t>(limit)),
          // 1 MiB; less where that would lock up a good part of a small limit in idle loops
          step_(std::clamp<int64_t>(static_cast<int64_t>(limit / (16 * std::max(1U, loops))), 16 << 10,
                                    1 << 20)) {}

    int64_t limit() const { return limit_; }
    int64_t borrowed() const { return borrowed_.load(std::memory_order_relaxed); }

  private:
    friend class MemoryAccount;
    bool borrow(int64_t bytes) {
        int64_t now = borrowed_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
        if (now <= limit_) return true;
        borrowed_.fetch_sub(bytes, std::memory_order_relaxed);
        return false;
    }
    void repay(int64_t bytes) { borrowed_.fetch_sub(bytes, std::memory_order_relaxed); }

    const int64_t limit_;
    const int64_t step_;
    std::atomic<int64_t> borrowed_{0};
};

class MemoryAccount {
  public:
    explicit MemoryAccount(MemoryTotal& total) : total_(total) {}
    MemoryAccount(const MemoryAccount&) = delete;
    MemoryAccount& operator=(const MemoryAccount&) = delete;
    ~MemoryAccount() {
        assert(used_ == 0);
        total_.repay(credit_);
    }

    [[nodiscard]] bool reserve(int64_t bytes) {
        if (bytes > credit_) {
            int64_t missing = bytes - credit_;
            int64_t stepped = (missing + total_.step_ - 1) / total_.step_ * total_.step_;
            int64_t got = total_.borrow(stepped) ? stepped : total_.borrow(missing) ? missing : 0;
            if (got == 0) return false;
            credit_ += got;
        }
        credit_ -= bytes;
        used_ += bytes;
        return true;
    }
    void release(int64_t bytes) {
        used_ -= bytes;
        credit_ += bytes;
        assert(used_ >= 0);
        if (credit_ > 2 * total_.step_) {
            total_.repay(credit_ - total_.step_);
            credit_ = total_.step_;
        }
    }
    int64_t used() const { return used_; }
    // Three quarters of the whole are taken: bodies that grow without a known end must stop growing.
    bool is_tight() const { return total_.borrowed() - credit_ > total_.limit_ / 4 * 3; }

  private:
    MemoryTotal& total_;
    int64_t credit_ = 0;
    int64_t used_ = 0;
};

}  // namespace penstock
