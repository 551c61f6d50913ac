// A Breaker is what one limit of an upstream's circuit breaker has done: how many it refused, and whether it
// is open. The limits themselves are the park's, which asks at each request; a breaker only keeps the books.
//
// It opens at the first refusal. It closes once the limit has room again and nobody was refused for a
// second: a limit that is met again and again by a steady overload is open all the while, and says so once.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace penstock {

// Which bound refused: the label `limit` of penstock_circuit_open_total.
enum class CircuitLimit : uint8_t { none, connections, requests, pending, retries, retry_budget };
constexpr size_t circuit_limits = 6;
std::string_view to_string(CircuitLimit);

class Breaker {
  public:
    static constexpr Duration quiet = 1s;

    void refuse(Time now) {
        ++refused_;
        last_ = now;
        if (is_open_) return;
        is_open_ = true;
        ++opened_;
        since_ = now;
        refused_before_ = refused_ - 1;
    }
    // True if it closed.
    bool settle(Time now, bool has_room) {
        if (!is_open_ || !has_room || now < last_ + quiet) return false;
        is_open_ = false;
        ++closed_;
        since_ = now;
        return true;
    }

    bool is_open() const { return is_open_; }
    uint64_t refused() const { return refused_; }
    uint64_t opened() const { return opened_; }
    uint64_t closed() const { return closed_; }
    uint64_t refused_since_opened() const { return refused_ - refused_before_; }
    Time since() const { return since_; }  // that it is open, or closed again; zero: it never was open

  private:
    uint64_t refused_ = 0, refused_before_ = 0, opened_ = 0, closed_ = 0;
    Time since_{}, last_{};
    bool is_open_ = false;
};

}  // namespace penstock
