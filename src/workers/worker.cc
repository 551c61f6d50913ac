#include "workers/worker.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/text.h"
#include "workers/command.h"
#include "workers/free_port.h"
#include "workers/process_tree.h"
#include "workers/supervisor.h"

namespace penstock {

namespace {

// A process that is killed closes its connections before its listening socket, and its exit is seen last: who
// asks too soon is let in by a dead worker.
constexpr Duration dying_time = 30ms;

// One try of a probe while a worker starts. Long, because a server may accept early and answer when its model
// is loaded, and then is ready at that very moment.
constexpr Duration ready_try = 10s;
constexpr Duration check_try = 2s;
// For work that nobody wants: only to clean up.
constexpr Duration forced_grace = 5s;
// SIGKILL works at once, except on a process that the kernel (most likely a GPU driver) will not let go.
constexpr Duration killed_within = 10s;
constexpr Duration alarm_every = 60s;
constexpr Duration strays_every = 20ms;

}  // namespace

std::string_view to_string(WorkerState state) {
    constexpr std::array<std::string_view, worker_states> names = {"starting", "ready", "draining",
                                                                   "stopping", "down",  "stopped"};
    return names[static_cast<size_t>(state)];
}

std::string_view to_string(WorkerExit exit) {
    constexpr std::array<std::string_view, worker_exits> names = {
        "asked",        "exit_code",     "signal", "out_of_memory",
        "start_failed", "start_timeout", "hung",   "unhealthy"};
    return names[static_cast<size_t>(exit)];
}

Worker::Worker(Supervisor& supervisor, WorkerId id, std::string upstream, uint32_t index,
               const Workers& config, Protocol protocol)
    : supervisor_(supervisor),
      id_(id),
      upstream_(std::move(upstream)),
      index_(index),
      name_(fmt::format("{}/{}", upstream_, index)),
      config_(config),
      protocol_(protocol),
      gpu_(gpu_of(config, index)),
      since_(supervisor.loop_.now()),
      probe_(supervisor.loop_, *this),
      backoff_({config.restart.backoff, config.restart.max_backoff, config.restart.give_up_after}) {}

Worker::~Worker() { unlink(); }

// --- What others want of it

void Worker::start() {
    if (state_ != WorkerState::stopped && state_ != WorkerState::down) return;
    Time now = supervisor_.loop_.now();
    backoff_.forgive();
    next_start_ = now;
    enter(WorkerState::down);
    if (!process_) begin(now);  // else when it is gone
}

void Worker::restart(std::string_view why) {
    if (state_ == WorkerState::ready) return drain(Next::start, why);
    if (state_ == WorkerState::starting) return stop(Next::start, WorkerExit::asked, config_.stop.grace);
    start();
}

void Worker::retire() {
    if (state_ == WorkerState::ready) return drain(Next::stay, "not needed any more");
    shut_down();
}

void Worker::drained(uint32_t generation) {
    if (generation != generation_ || state_ != WorkerState::draining) return;
    stop(next_, WorkerExit::asked, config_.stop.grace);
}

void Worker::restart_by_force(uint32_t generation, RestartWhy reason) {
    if (generation != generation_) return;
    if (state_ != WorkerState::ready && state_ != WorkerState::draining) return;
    // What is wrong with the worker itself may be so again: then it is started later each time.
    bool may_help = reason == RestartWhy::stuck;
    why_ = to_string(reason);
    log::warn("worker {} is stopped: {}", who(), why_);
    Next next = state_ == WorkerState::draining ? next_ : may_help ? Next::start : Next::back_off;
    WorkerExit exit = reason == RestartWhy::stuck  ? WorkerExit::asked
                      : reason == RestartWhy::hung ? WorkerExit::hung
                                                   : WorkerExit::unhealthy;
    stop(next, exit, std::min<Duration>(config_.stop.grace, forced_grace));
}

void Worker::check(uint32_t generation, bool only_connect) {
    if (generation != generation_ || state_ != WorkerState::ready || asked_ || probe_timer_.is_armed())
        return;
    Time now = supervisor_.loop_.now();
    if (suspect_since_ == never) suspect_since_ = now;
    only_connect_ = only_connect;
    supervisor_.loop_.turn().arm(probe_timer_, now + dying_time);
}

void Worker::shut_down() {
    switch (state_) {
        case WorkerState::starting:
        case WorkerState::ready:
        case WorkerState::draining: return stop(Next::stay, WorkerExit::asked, config_.stop.grace);
        case WorkerState::stopping:
            next_ = Next::stay;
            if (end_seen_ && next_start_ != never) tell(BackendNews::Event::gave_up);
            next_start_ = never;
            return;
        case WorkerState::down:
            next_start_ = never;
            enter(WorkerState::stopped);
            tell(BackendNews::Event::gave_up);
            if (!process_) state_timer_.disarm();
            return supervisor_.worker_over();
        case WorkerState::stopped: return;
    }
}

void Worker::kill() {
    if (process_) kill_all(supervisor_.loop_.now());
}

void Worker::sample(bool memory) {
    if (!process_) return;
    if (memory || recycle_rss_ > 0) rss_ = memory_below(process_->guard_pid());
    if (state_ != WorkerState::ready || suspect_since_ != never || !supervisor_.may_recycle(*this)) return;
    if (recycle_rss_ > 0 && rss_ > recycle_rss_) {
        return drain(Next::start, fmt::format("recycled: it holds {}", format_size(rss_)));
    }
    if (recycle_requests_ == 0) return;
    uint64_t requests = supervisor_.events_.requests_of(id_, generation_);
    if (requests >= recycle_requests_)
        drain(Next::start, fmt::format("recycled after {} requests", requests));
}

WorkerView Worker::view() const {
    return {.name = name_,
            .upstream = upstream_,
            .index = index_,
            .state = state_,
            .generation = generation_,
            .pid = process_ && !end_seen_ ? process_->pid() : 0,
            .address = address_.text,
            .gpu = gpu_,
            .starts = starts_,
            .exits = exits_,
            .rss_bytes = rss_,
            .since = since_,
            .until = state_ == WorkerState::down ? next_start_ : never,
            .why = why_};
}

// --- A start

void Worker::begin(Time now) {
    ++generation_;
    ++starts_;
    exec_seen_ = end_seen_ = killed_ = alarmed_ = only_connect_ = false;
    ready_since_ = suspect_since_ = never;
    next_ = Next::start;
    double early = 1 - config_.recycle.jitter * supervisor_.random_fraction();
    recycle_requests_ =
        static_cast<uint64_t>(std::ceil(static_cast<double>(config_.recycle.requests) * early));
    recycle_rss_ = static_cast<uint64_t>(static_cast<double>(config_.recycle.rss) * early);

    auto task = prepare();
    enter(WorkerState::starting);
    tell(BackendNews::Event::starting, start_took_ > Duration::zero() ? now + start_took_ : never);
    Result<> started;
    if (task) {
        log::info("worker {} starts: {}", name_, fmt::join(task->command, " "));
        process_.emplace(supervisor_.loop_, static_cast<Task&>(*this), name_);
        started = process_->start(std::move(*task));
    } else {
        started = tl::unexpected(task.error());
    }
    if (started)
        return supervisor_.loop_.turn().arm(state_timer_, deadline_after(now, config_.ready.timeout));

    why_ = started.error().message;
    process_.reset();
    ended(now);
    gone();
}

// Where it will listen, and what is run there.
Result<GuardTask> Worker::prepare() {
    Placeholders values{.socket = "", .port = 0, .index = index_, .gpu = gpu_};
    std::string text, where = "socket";
    if (config_.address == WorkerAddress::socket) {
        values.socket = supervisor_.directory_.socket(upstream_, index_, generation_);
        text = fmt::format("unix:{}", values.socket);
    } else {
        auto port = free_port(supervisor_.random_, supervisor_.ports_);
        if (!port) return tl::unexpected(port.error());
        values.port = port_ = *port;
        supervisor_.ports_.insert(port_);
        text = fmt::format("127.0.0.1:{}", port_);
        where = fmt::format("port {}", port_);
    }
    auto address = parse_address(text);
    if (!address) return tl::unexpected(address.error());
    address_ = std::move(*address);
    journey_ = Journey(supervisor_.loop_.now(), where);
    return GuardTask{.directory = fill_in(config_.directory, values),
                     .socket = values.socket,
                     .command = command_of(config_, values),
                     .environment = environment_of(config_, values, supervisor_.environment_)};
}

void Worker::became_ready(Time now) {
    start_took_ = now - journey_.begun();
    ready_since_ = now;
    rss_ = memory_below(process_->guard_pid());
    why_.clear();
    state_timer_.disarm();
    enter(WorkerState::ready);
    log::info("worker {} is ready after {:.2f}s", who(), seconds(start_took_));
    tell(BackendNews::Event::ready);
}

// --- What happened

void Worker::run(Time now) {
    if (process_) look_at_process(now);
    if (asked_ && !probe_.is_asking()) look_at_probe(now);
    if (probe_timer_.expired()) {
        probe_timer_.disarm();
        ask();
    }
    if (state_timer_.expired()) {
        state_timer_.disarm();
        time_is_up(now);
    }
}

void Worker::look_at_process(Time now) {
    if (!exec_seen_ && process_->has_started()) {
        exec_seen_ = true;
        journey_.exec_worked(now);
        if (state_ == WorkerState::starting) ask();
    }
    bool has_ended = process_->exit() || !process_->start_failure().empty() || process_->is_gone();
    if (has_ended && !end_seen_) ended(now);
    if (!process_->is_gone()) return;
    if (process_->is_guard_lost() && supervisor_.kill_strays() > 0) {
        return supervisor_.loop_.turn().arm(state_timer_, now + strays_every);  // and look again
    }
    gone();
}

void Worker::ask() {
    asked_ = true;
    Duration at_most = state_ == WorkerState::starting ? ready_try : check_try;
    Probe::Question question{.address = address_, .timeout = at_most, .http2 = protocol_ == Protocol::http2};
    if (!only_connect_) question.path = config_.ready.path;
    if (!only_connect_) question.grpc = config_.ready.grpc;
    probe_.ask(std::move(question));
}

void Worker::stop_asking() {
    probe_.cancel();
    probe_timer_.disarm();
    asked_ = false;
}

void Worker::look_at_probe(Time now) {
    asked_ = false;
    const Probe::Outcome& outcome = probe_.outcome();
    if (outcome.accepted) journey_.opened(now);
    if (state_ == WorkerState::starting) {
        if (outcome.is_good) return became_ready(now);
        journey_.tried(outcome.text);
    } else {
        if (outcome.is_good || outcome.is_busy) {  // busy is not dead
            suspect_since_ = never;
            return tell(BackendNews::Event::alive);
        }
        tell(BackendNews::Event::probe_failed);
        if (now >= deadline_after(suspect_since_, config_.ready.timeout)) {
            why_ = fmt::format("no answer for {}: {}", format_duration(config_.ready.timeout), outcome.text);
            log::error("worker {} is stopped: {}", who(), why_);
            return stop(Next::back_off, WorkerExit::hung, config_.stop.grace);
        }
    }
    supervisor_.loop_.turn().arm(probe_timer_, now + config_.ready.interval);
}

void Worker::time_is_up(Time now) {
    if (state_ == WorkerState::starting) {
        why_ = fmt::format("not ready after {}: {}{}", format_duration(config_.ready.timeout),
                           journey_.text(), last_words());
        log::error("worker {} {}", who(), why_);
        stop(Next::back_off, WorkerExit::start_timeout, config_.stop.grace);
    } else if (process_ && killed_) {
        alarm(now);
    } else if (process_) {
        kill_all(now);
    } else if (state_ == WorkerState::down) {
        begin(now);
    }
}

// --- An end

void Worker::drain(Next next, std::string_view why) {
    Time now = supervisor_.loop_.now();
    log::info("worker {} takes no more requests: {}", who(), why);
    stop_asking();
    next_ = next;
    enter(WorkerState::draining);
    tell(BackendNews::Event::drain, next == Next::start ? now + start_took_ : never);
}

void Worker::stop(Next next, WorkerExit exit, Duration grace) {
    Time now = supervisor_.loop_.now();
    stop_asking();
    next_ = next;
    exit_ = exit;
    enter(WorkerState::stopping);
    process_->stop(config_.stop.signal);
    if (grace <= Duration::zero()) return kill_all(now);
    supervisor_.loop_.turn().arm(state_timer_, now + grace);
}

void Worker::kill_all(Time now) {
    if (!killed_) log::warn("worker {} does not end by itself and is killed", who());
    killed_ = true;
    process_->kill();
    supervisor_.loop_.turn().arm(state_timer_, now + killed_within);
}

// The worker itself has ended; what it left may not have.
void Worker::ended(Time now) {
    end_seen_ = true;
    stop_asking();
    bool asked_for = state_ == WorkerState::stopping;
    bool stays = next_ == Next::stay && (asked_for || state_ == WorkerState::draining);
    WorkerExit exit = asked_for ? exit_ : why_it_ended(now);
    ++exits_[static_cast<size_t>(exit)];
    if (stays) {
        next_start_ = never;
    } else if (asked_for && next_ == Next::start) {
        next_start_ = now;
    } else {
        next_start_ = backoff_.failed(now, ready_since_, supervisor_.random_fraction());
    }

    std::string then = stays ? ""
                       : next_start_ == never
                           ? fmt::format("; given up after {} failures in a row", backoff_.failures())
                           : fmt::format("; starts again in {:.2f}s", seconds(next_start_ - now));
    if (asked_for) {
        std::string how = process_ && process_->exit() ? to_string(*process_->exit()) : "never started";
        log::info("worker {} has stopped: {}{}", who(), how, then);
    } else {
        log::at(next_start_ == never ? log::Level::err : log::Level::warn, "worker {} {}{}", who(), why_,
                then);
        enter(next_start_ == never ? WorkerState::stopped : WorkerState::down);
        killed_ = true;  // by its guard, what it left behind
        supervisor_.loop_.turn().arm(state_timer_, now + killed_within);
    }
    tell(next_start_ == never ? BackendNews::Event::gave_up : BackendNews::Event::exited, next_start_);
}

WorkerExit Worker::why_it_ended(Time now) {
    if (!process_) {  // why_ says it
        why_ = fmt::format("could not be started: {}", why_);
        return WorkerExit::start_failed;
    }
    if (!process_->start_failure().empty()) {
        why_ = fmt::format("could not be started: {}", process_->start_failure());
        return WorkerExit::start_failed;
    }
    std::string how = process_->exit() ? to_string(*process_->exit()) : "somebody killed its guard";
    if (ready_since_ == never) {
        why_ = fmt::format("ended after {:.2f}s, before it was ready: {}; {}{}",
                           seconds(now - journey_.begun()), how, journey_.text(), last_words());
    } else {
        why_ = fmt::format("ended unasked, {:.2f}s after it was ready: {}{}", seconds(now - ready_since_),
                           how, last_words());
    }
    if (!process_->exit()) return WorkerExit::signal;
    if (process_->exit()->out_of_memory) return WorkerExit::out_of_memory;
    return WIFEXITED(process_->exit()->status) ? WorkerExit::exit_code : WorkerExit::signal;
}

// Nothing of this generation is left.
void Worker::gone() {
    process_.reset();
    rss_ = 0;
    alarmed_ = false;
    supervisor_.ports_.erase(port_);
    port_ = 0;
    state_timer_.disarm();
    if (next_start_ == never) {
        enter(WorkerState::stopped);
        return supervisor_.worker_over();
    }
    enter(WorkerState::down);
    supervisor_.loop_.turn().arm(state_timer_, next_start_);
}

void Worker::alarm(Time now) {
    std::string who_stays = unkillable_below(process_->guard_pid());
    log::error("worker {}: SIGKILL does not end it{}{}; nothing is started in its place", name_,
               who_stays.empty() ? "" : ": ", who_stays);
    alarmed_ = true;
    process_->kill();
    supervisor_.loop_.turn().arm(state_timer_, now + alarm_every);
    supervisor_.worker_over();
}

// --- Small things

void Worker::enter(WorkerState state) {
    if (state == state_) return;
    state_ = state;
    since_ = supervisor_.loop_.now();
}

void Worker::tell(BackendNews::Event event, Time until) {
    supervisor_.events_.worker_news(id_, {.event = event, .generation = generation_, .until = until},
                                    address_);
}

std::string Worker::who() const {
    return process_ && process_->has_started() ? fmt::format("{} (pid {})", name_, process_->pid()) : name_;
}

std::string Worker::last_words() const {
    std::string lines = process_ ? process_->last_lines().text() : "";
    return lines.empty() ? "; it wrote nothing" : fmt::format("; its last lines: {}", lines);
}

}  // namespace penstock
