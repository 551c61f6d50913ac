// Who descends from whom, and how much memory they hold, read from /proc. A snapshot: processes come and go
// while it is taken. Only a caller that is the parent of a pid may send it a signal on this evidence: nobody
// else can be sure that the number has not been given to another process since.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace penstock {

std::vector<pid_t> children_of(pid_t parent);

// Resident memory of all that descends from `root`, not of `root` itself; pages that several of them share
// are counted in each.
uint64_t memory_below(pid_t root);

// Those below `root` that cannot be killed at the moment, as "4711 (python3) in state D"; empty: none.
std::string unkillable_below(pid_t root);

// How often the kernel has killed a process on this machine because memory ran out.
uint64_t out_of_memory_kills();

}  // namespace penstock
