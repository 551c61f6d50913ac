// What the kernel knows of this process: the process_* metrics that every Prometheus client library has.
#pragma once

#include <cstdint>

namespace penstock {

struct ProcessFacts {
    double cpu_seconds = 0;
    uint64_t resident_bytes = 0;
    uint64_t virtual_bytes = 0;
    uint64_t open_descriptors = 0;
    uint64_t max_descriptors = 0;
    double start_time = 0;  // in seconds since 1970
};

ProcessFacts facts_of_this_process();

}  // namespace penstock
