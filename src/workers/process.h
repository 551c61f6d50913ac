// A Process is one run of a worker's command, behind its guard (see guard.h): from start() until nothing of
// it is left. It lives on the main loop. Its events only note what happened and mark the owner, who then
// looks: has_started, start_failure, exit, is_gone. Process outlives the operating system's process; it is
// used once, and must be gone before it dies, else it lets go of the guard, which then kills everything.
//
//     start() ──> has_started ──> exit ──> is_gone        stop(), kill() at any time
//         └─────> start_failure ─────────> is_gone
//
// The surprising thing: exit is the worker's own end, is_gone the end of all that it left behind, too. Only
// then may the next generation have its GPU.
#pragma once

#include <event2/event_struct.h>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/time.h"
#include "net/loop.h"
#include "workers/descriptor.h"
#include "workers/guard.h"
#include "workers/output.h"

namespace penstock {

struct ProcessExit {
    int status = 0;  // as of wait()
    uint64_t peak_memory = 0;
    bool out_of_memory = false;  // a guess: SIGKILL, and the kernel killed for want of memory meanwhile
};
std::string to_string(
    const ProcessExit& exit);  // "exit code 3", "signal 11 (Segmentation fault), core dumped"

class Process {
  public:
    // `owner` is marked at every change. `name` is the worker's, as in ocr/0.
    Process(Loop& loop, Task& owner, std::string name);
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    // An error means that nothing was started: no descriptors, no memory, no processes.
    Result<> start(GuardTask task);

    void stop(int signal);  // to the worker; then to what it leaves behind
    void kill();            // SIGKILL to all

    pid_t pid() const { return pid_; }              // of the worker; 0: it does not run yet
    pid_t guard_pid() const { return guard_pid_; }  // 0: gone
    bool has_started() const { return pid_ != 0; }
    const std::string& start_failure() const { return start_failure_; }  // empty: none
    const std::optional<ProcessExit>& exit() const { return exit_; }
    bool is_gone() const { return gone_; }
    // The guard ended without a word: somebody killed it. What the worker left is penstock's child now.
    bool is_guard_lost() const { return gone_ && !exit_ && start_failure_.empty(); }

    const LastLines& last_lines() const { return last_lines_; }

  private:
    static void on_control(int, short, void* self);
    static void on_guard_exit(int, short, void* self);
    Result<> spawn_guard(Descriptor control, Descriptor task, Descriptor out, Descriptor err);
    void read_reports();
    void take(const GuardReport& report);
    void order(const GuardOrder& order);

    Loop& loop_;
    Task& owner_;
    const std::string name_;
    GuardTask task_;
    LastLines last_lines_;
    WorkerOutput out_{name_, last_lines_};
    WorkerOutput err_{name_, last_lines_};
    Descriptor control_;
    Descriptor guard_;  // a pidfd
    event control_event_{};
    event guard_event_{};
    pid_t guard_pid_ = 0;
    pid_t pid_ = 0;
    bool gone_ = false;
    std::string start_failure_;
    std::optional<ProcessExit> exit_;
    bool killed_ = false;        // by us
    uint64_t kernel_kills_ = 0;  // for want of memory, on this machine, until it was started
};

}  // namespace penstock
