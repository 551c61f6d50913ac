// The guard: a tiny process between penstock and each worker, so that nothing of a worker outlives penstock
// or its own generation, not even when penstock is killed with SIGKILL.
//
//     penstock ── guard of ocr/0 ── worker ── whatever it starts
//
// It is the same binary, started as `guard _guard ocr/0` with every signal blocked. It is a subreaper: what
// its worker leaves behind, daemonized or in a session of its own, becomes its child, and it ends only when
// it has no child left. So the guard's exit is proof that nothing of this generation still holds a GPU. The
// control socket is the lifeline: end of file on it means that penstock is gone, and everything is killed.
// Being the parent, it alone sends signals, so none can meet a process number that was given away.
//
// Why not less: a parent-death signal reaches only the worker itself, and not what it forked (gunicorn, sh);
// a process group is left by setsid(). Why not one guard for all: exit statuses, pids and end-of-all would
// have to be sorted out by it, and one crash would lose every worker. Why not a plain fork() of penstock: the
// copy would pin, page by page, the memory that penstock had at that moment. A worker whose guard is killed
// dies by its parent-death signal; what it leaves becomes penstock's child (see Supervisor).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/error.h"

namespace penstock {

// What is to be run. The worker's own standard streams are already those of its guard.
struct GuardTask {
    std::string directory;  // empty: where penstock is
    std::string socket;     // removed when all is over; empty: none
    std::vector<std::string> command;
    std::vector<std::string> environment;  // NAME=value, the whole of it
};

std::string encode(const GuardTask& task);
Result<GuardTask> decode_guard_task(std::string_view bytes);

// The descriptors that a guard finds open, beside 0, 1 and 2.
constexpr int guard_control = 3;  // a seqpacket socket: reports out, orders in
constexpr int guard_task = 4;     // a file with the encoded task

struct GuardReport {
    enum class Kind : uint32_t {
        started,  // the command runs, as `pid`
        failed,   // it does not: `step` failed with `error`
        exited,   // `status` as of wait(); what it left behind is being killed
    };
    enum class Step : uint32_t { guard, fork, directory, exec };

    Kind kind = Kind::started;
    Step step = Step::guard;
    int32_t pid = 0;
    int32_t error = 0;
    int32_t status = 0;
    uint64_t peak_memory = 0;  // of the worker and what it waited for; bytes
};

struct GuardOrder {
    enum class Kind : uint32_t {
        stop,  // `signal` to the worker; when it ends, also to what it leaves, which then has until `kill`
        kill,  // SIGKILL to all
    };
    Kind kind = Kind::kill;
    int32_t signal = 0;
};

// main() asks this first, before it parses anything or starts a thread.
bool is_guard(int argc, const char* const* argv);
int guard_main();

}  // namespace penstock
