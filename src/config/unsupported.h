// What a configuration asks for and this version can't do yet. load() accepts it, because the names are a
// contract; `check` and `run` refuse it by this list, because a limit that is silently not there does harm.
// The list is the only place that knows: when a feature lands, its lines go.
#pragma once

#include <vector>

#include "config/config.h"
#include "config/problem.h"

namespace penstock {

std::vector<Problem> unsupported(const Config& config, const Places& places);

}  // namespace penstock
