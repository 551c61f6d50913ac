// A Worker is one place for a process: the third worker of ocr is ocr/2 for as long as ocr has it, whatever
// processes have served it. It outlives its processes; one at a time, never two: the next generation starts
// only when nothing of the last is left, for two models do not fit one GPU. Its supervisor owns it.
//
//     state     | leaves by
//     ----------+------------------------------------------------------------------------------------
//     starting  | the probe's answer is good: ready. Exit: down. ready.timeout: stopping
//     ready     | exit: down. recycle, restart, retire: draining. Stuck work, no answer: stopping
//     draining  | drained(): stopping. Exit: down
//     stopping  | stop signal, after the grace SIGKILL to all, until nothing is left: down, or stopped
//     down      | the next start is due, and nothing of the last process is left: starting
//     stopped   | start(): starting
//
// The exit of the worker itself is told to the park at once, in every state; what it left behind may take its
// guard a moment longer. Suspect is a state of the park's: here the worker is ready, and a probe under way.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/address.h"
#include "base/turn.h"
#include "config/config.h"
#include "policy/park_rules.h"
#include "policy/restart.h"
#include "workers/journey.h"
#include "workers/probe.h"
#include "workers/process.h"

namespace penstock {

class Supervisor;

enum class WorkerId : uint32_t {};  // its number in the supervisor

enum class WorkerState : uint8_t { starting, ready, draining, stopping, down, stopped };
constexpr size_t worker_states = 6;
std::string_view to_string(WorkerState state);

// Why a process of a worker ended.
enum class WorkerExit : uint8_t {
    asked,
    exit_code,
    signal,
    out_of_memory,
    start_failed,
    start_timeout,
    hung,
    unhealthy,  // so ejected too often, or so found by health checks, that we stopped it
};
constexpr size_t worker_exits = 8;
std::string_view to_string(WorkerExit exit);

// For /status and /metrics.
struct WorkerView {
    std::string_view name;  // ocr/2
    std::string_view upstream;
    uint32_t index = 0;
    WorkerState state = WorkerState::stopped;
    uint32_t generation = 0;  // 0: never started
    pid_t pid = 0;            // 0: none
    std::string_view address;
    std::string_view gpu;
    uint64_t starts = 0;
    std::array<uint64_t, worker_exits> exits{};
    uint64_t rss_bytes = 0;  // of all its processes, some seconds ago
    Time since{};            // in this state
    Time until = never;      // down: when the next start is due
    std::string_view why;    // what went wrong last; empty: nothing
};

class Worker final : Task {
  public:
    Worker(Supervisor& supervisor, WorkerId id, std::string upstream, uint32_t index, const Workers& config,
           Protocol protocol);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // Each does nothing where it makes no sense, or where `generation` is no more.
    void start();                        // from stopped, or at once from down
    void restart(std::string_view why);  // drain, stop, start
    void retire();                       // drain, stop; for good
    void drained(uint32_t generation);   // what draining waits for
    // Stop it without a drain, then start anew.
    void restart_by_force(uint32_t generation, RestartWhy why = RestartWhy::stuck);
    // The park suspects it: is it alive? With `only_connect` it is not asked for more than a connection (all
    // its slots are busy: a request would wait behind them).
    void check(uint32_t generation, bool only_connect);
    void shut_down();  // stop, without a drain, for good
    void kill();       // at once

    void sample(bool memory);  // is it to be recycled? `memory`: measure it, needed or not
    WorkerView view() const;
    WorkerState state() const { return state_; }
    // Nothing of it is left, or what is left cannot be killed and we have said so.
    bool is_over() const { return process_ ? alarmed_ : state_ == WorkerState::stopped; }
    pid_t guard_pid() const { return process_ ? process_->guard_pid() : 0; }
    const std::string& upstream() const { return upstream_; }

  private:
    enum class Next : uint8_t { start, back_off, stay };  // after a stop

    void run(Time now) override;
    void begin(Time now);
    Result<GuardTask> prepare();
    void look_at_process(Time now);
    void look_at_probe(Time now);
    void time_is_up(Time now);
    void ask();
    void stop_asking();
    void became_ready(Time now);
    void drain(Next next, std::string_view why);
    void stop(Next next, WorkerExit exit, Duration grace);
    void kill_all(Time now);
    void ended(Time now);
    WorkerExit why_it_ended(Time now);  // unasked; sets why_
    void gone();
    void alarm(Time now);
    void enter(WorkerState state);
    void tell(BackendNews::Event event, Time until = never);
    std::string who() const;  // ocr/2 (pid 4711)
    std::string last_words() const;

    Supervisor& supervisor_;
    const WorkerId id_;
    const std::string upstream_;
    const uint32_t index_;
    const std::string name_;
    const Workers config_;
    const Protocol protocol_;
    const std::string gpu_;

    WorkerState state_ = WorkerState::stopped;
    Time since_{};
    uint32_t generation_ = 0;
    std::optional<Process> process_;  // until nothing of it is left
    bool exec_seen_ = false;
    bool end_seen_ = false;
    bool killed_ = false;   // by us
    bool alarmed_ = false;  // and in vain
    Address address_;
    uint16_t port_ = 0;  // held against other workers until the process is gone
    Journey journey_;
    Probe probe_;
    bool asked_ = false;  // an outcome is awaited
    bool only_connect_ = false;
    Time suspect_since_ = never;
    Time ready_since_ = never;
    Duration start_took_{};  // the last one; 0: none yet
    RestartBackoff backoff_;
    Next next_ = Next::start;              // draining, stopping: what comes then
    WorkerExit exit_ = WorkerExit::asked;  // stopping: why
    Time next_start_ = never;              // once it has ended; never: not by itself
    std::string why_;                      // what went wrong last
    uint64_t recycle_requests_ = 0;        // of this generation, jitter applied; 0: none
    uint64_t recycle_rss_ = 0;
    uint64_t rss_ = 0;
    uint64_t starts_ = 0;
    std::array<uint64_t, worker_exits> exits_{};

    Deadline state_timer_{*this};  // of the state: start timeout, grace, kill, back-off
    Deadline probe_timer_{*this};  // to the next try
};

}  // namespace penstock
