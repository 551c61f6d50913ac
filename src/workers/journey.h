// The journey of a start: which steps it took, when, and where it stands. It is what a message about a start
// that failed is made of. Pure.
//
//     exec ok 0.01s, port open 3.20s, GET /ready -> 503 (37 tries)
#pragma once

#include <string>

#include "base/time.h"

namespace penstock {

class Journey {
  public:
    Journey() = default;
    Journey(Time begun, std::string where) : begun_(begun), where_(std::move(where)) {}

    void exec_worked(Time now) { exec_at_ = now; }
    void opened(Time now) {  // something accepted a connection
        if (open_at_ == never) open_at_ = now;
    }
    void tried(std::string outcome);  // one probe that did not find it ready: "GET /ready -> 503"

    Time begun() const { return begun_; }
    std::string text() const;

  private:
    Time begun_ = never;
    Time exec_at_ = never;
    Time open_at_ = never;
    std::string where_;  // "port 41233" or "socket /run/..."
    std::string outcome_;
    unsigned tries_ = 0;  // with this outcome, in a row
};

}  // namespace penstock
