// How a fuzz target says that it found something: prints it, then traps.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "oracle.h"

namespace penstock::fuzz {

inline void expect_empty(const std::string& complaint, std::string_view bytes) {
    if (complaint.empty()) return;
    std::fprintf(stderr, "%s\n  %s\n", complaint.c_str(), readable(bytes).c_str());
    __builtin_trap();
}

}  // namespace penstock::fuzz
