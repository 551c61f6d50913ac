// A TCP port of 127.0.0.1 for a worker to listen on.
//
// Between our look and the worker's bind() anybody may take it, and loading a model can take minutes. So the
// port comes from outside the kernel's ephemeral range, where neither an outgoing connection nor a bind to
// port 0 is ever put, and is tried by binding it; whoever still loses the race gets another one with its next
// start.
#pragma once

#include <cstdint>
#include <random>
#include <set>

#include "base/error.h"

namespace penstock {

// None of `taken`: other workers of ours that may not have bound theirs yet.
Result<uint16_t> free_port(std::mt19937_64& random, const std::set<uint16_t>& taken);

}  // namespace penstock
