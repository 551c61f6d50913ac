// Server owns everything that runs: loops, upstreams, workers, the current snapshot, the admin listener.
// Main thread. run() starts it all, serves until a signal says otherwise, and returns the exit status.
//
//     TERM, INT   drain: stop accepting, finish what was accepted (limits.drain), stop the workers, exit 0
//                 the same again: exit at once
//     HUP         read certificates again
//     USR1        reopen logs
#pragma once

#include "config/config.h"

namespace penstock {

int run(const Config& config);

}  // namespace penstock
