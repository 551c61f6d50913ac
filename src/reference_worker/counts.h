// What the worker has seen, for its own /metrics: the view from behind penstock. The first three have the
// names that Triton gives them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/time.h"

namespace penstock::reference {

struct Counts {
    uint64_t succeeded = 0, failed = 0;
    Duration spent{};  // by those that succeeded, from the end of the request to their answer

    uint64_t in_flight = 0, most_in_flight = 0;  // inferences read and not yet answered
    uint64_t most_running = 0;                   // of these, computed at once
    uint64_t connections = 0, connections_in_all = 0, most_connections = 0;  // those that brought a request
    uint64_t most_on_a_connection = 0;                                       // requests

    std::string text(std::string_view model) const;
};

}  // namespace penstock::reference
