// What this test program is when it is started by itself: the guard of a worker.
#include <unistd.h>

#include "workers/guard.h"

namespace {

[[gnu::constructor]] void live_another_life(int argc, char** argv) {
    if (penstock::is_guard(argc, argv)) ::_exit(penstock::guard_main());
}

}  // namespace
