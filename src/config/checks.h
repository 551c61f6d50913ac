// What the settings of a Config must agree on: done after reading, on the whole, and also for what was not
// read from a file (config/exec.h). Errors make the Config unusable; warnings are for people.
#pragma once

#include <vector>

#include "config/config.h"
#include "config/problem.h"

namespace penstock {

struct Findings {
    std::vector<Problem> errors;
    std::vector<Problem> warnings;
};

Findings check(const Config& config, const Places& places);

}  // namespace penstock
