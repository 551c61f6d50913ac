// What `penstock check` prints of a good configuration: what was understood, for people; how much memory it
// can take; and the warnings.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "config/memory_bound.h"
#include "config/problem.h"

namespace penstock {

std::string describe(const Config& config, const MemoryBound& bound,
                     const std::vector<Problem>& warnings = {});

}  // namespace penstock
