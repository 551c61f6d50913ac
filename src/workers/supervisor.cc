#include "workers/supervisor.h"

#include <algorithm>
#include <csignal>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers/command.h"
#include "workers/process_tree.h"

namespace penstock {

namespace {
constexpr Duration sample_every = 1s;
// Reading the memory of a process with hundreds of threads takes a millisecond: only this often for /metrics.
constexpr unsigned memory_every = 10;
}  // namespace

Supervisor::Supervisor(Loop& loop, WorkerEvents& events, uint64_t seed)
    : loop_(loop), events_(events), random_(seed), environment_(own_environment()) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

// Guards that still live find penstock gone, as if it had been killed.
Supervisor::~Supervisor() { unlink(); }

Result<WorkerId> Supervisor::add(const std::string& upstream, const Workers& config, Protocol protocol) {
    if (config.address == WorkerAddress::socket && directory_.path().empty()) {
        auto made = RuntimeDirectory::make(RuntimeDirectory::usual_places());
        if (!made) return tl::unexpected(made.error());
        directory_ = std::move(*made);
    }
    auto first = static_cast<WorkerId>(workers_.size());
    for (uint32_t index = 0; index < config.count; ++index) {
        auto id = static_cast<WorkerId>(workers_.size());
        workers_.push_back(std::make_unique<Worker>(*this, id, upstream, index, config, protocol));
    }
    return first;
}

void Supervisor::start() {
    for (auto& worker : workers_) worker->start();
    loop_.turn().arm(sample_, loop_.now() + sample_every);
}

std::vector<WorkerView> Supervisor::view() const {
    std::vector<WorkerView> views;
    for (auto& worker : workers_) views.push_back(worker->view());
    return views;
}

void Supervisor::shut_down() {
    shutting_down_ = true;
    for (auto& worker : workers_) worker->shut_down();
    worker_over();
}

void Supervisor::kill() {
    for (auto& worker : workers_) worker->kill();
}

void Supervisor::run(Time now) {
    if (shutting_down_ && !told_ && all_over()) {
        told_ = true;
        events_.workers_stopped();
    }
    if (!sample_.expired()) return;
    loop_.turn().arm(sample_, now + sample_every);
    bool memory = samples_++ % memory_every == 0;
    for (auto& worker : workers_) worker->sample(memory);
}

bool Supervisor::all_over() const {
    return std::all_of(workers_.begin(), workers_.end(), [](auto& worker) { return worker->is_over(); });
}

// One at a time of each upstream: the others take its place meanwhile.
bool Supervisor::may_recycle(const Worker& worker) const {
    return !shutting_down_ && std::none_of(workers_.begin(), workers_.end(), [&](const auto& other) {
        WorkerState state = other->state();
        return other.get() != &worker && other->upstream() == worker.upstream() &&
               (state == WorkerState::starting || state == WorkerState::draining ||
                state == WorkerState::stopping);
    });
}

void Supervisor::worker_over() {
    if (shutting_down_) loop_.turn().mark(*this);
}

size_t Supervisor::kill_strays() {
    size_t left = 0;
    for (pid_t child : children_of(::getpid())) {
        bool is_guard = std::any_of(workers_.begin(), workers_.end(),
                                    [child](auto& worker) { return worker->guard_pid() == child; });
        if (is_guard) continue;
        ::kill(child, SIGKILL);
        if (::waitpid(child, nullptr, WNOHANG) == 0) ++left;
    }
    return left;
}

}  // namespace penstock
