// The log's line for what became of a backend by itself: ejected, back, suspect... Pure text; Fleet logs it.
#pragma once

#include <string>
#include <string_view>

#include "base/log.h"
#include "policy/park_rules.h"

namespace penstock {

struct BackendLine {
    log::Level level;
    std::string text;
};

// "upstream main: backend 10.0.0.5:8000 is ejected for 30.000s: consecutive_5xx"
BackendLine line_of(const BackendChange& change, std::string_view upstream, std::string_view backend);

}  // namespace penstock
