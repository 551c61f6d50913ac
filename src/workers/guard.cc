#include "workers/guard.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "workers/descriptor.h"
#include "workers/process_tree.h"

namespace penstock {

namespace {

class Guard {
  public:
    explicit Guard(GuardTask task) : task_(std::move(task)) {}
    void run();

  private:
    struct StartFailure {
        GuardReport::Step step;
        int32_t error;
    };

    void start();
    [[noreturn]] void become_worker(int report);
    void read_start();
    void read_orders();
    void reap();
    void worker_exited();
    void kill_all();
    void signal_children(int signal);
    void report(const GuardReport& report);
    void clean_up();

    GuardTask task_;
    Descriptor signals_;
    Descriptor start_;  // of the starting worker: its failure, or end of file when exec worked
    pid_t worker_ = 0;  // until it has been waited for
    bool childless_ = false;
    bool penstock_gone_ = false;
    int stop_signal_ = 0;  // the worker was asked to stop
    bool killing_ = false;
    int kill_again_ms_ = 10;  // doubles: a process in the kernel's hands dies when that lets go of it
};

void Guard::run() {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    signals_ = Descriptor(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    start();

    while (!childless_) {
        std::array<pollfd, 3> watched{{{penstock_gone_ ? -1 : guard_control, POLLIN, 0},
                                       {signals_.number(), POLLIN, 0},
                                       {start_.number(), POLLIN, 0}}};
        int ready = ::poll(watched.data(), watched.size(), killing_ ? kill_again_ms_ : -1);
        if (ready == 0) {
            kill_again_ms_ = std::min(kill_again_ms_ * 2, 1000);
            kill_all();
        }
        // The start first: a worker that exits at once was started all the same.
        if (watched[2].revents) read_start();
        if (watched[0].revents) read_orders();
        if (watched[1].revents) reap();
    }
    clean_up();
}

void Guard::start() {
    std::array<int, 2> ends{};
    if (!signals_ || ::pipe2(ends.data(), O_CLOEXEC) != 0) {
        report({.kind = GuardReport::Kind::failed, .step = GuardReport::Step::guard, .error = errno});
        childless_ = true;
        return;
    }
    start_ = Descriptor(ends[0]);
    Descriptor report_end(ends[1]);
    worker_ = ::fork();
    if (worker_ < 0) {
        report({.kind = GuardReport::Kind::failed, .step = GuardReport::Step::fork, .error = errno});
        childless_ = true;
        return;
    }
    if (worker_ == 0) become_worker(report_end.number());

    // The worker's streams and folder are its own from here on: our copies would keep them open.
    Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int stream : {0, 1, 2}) {
        if (null) ::dup2(null.number(), stream);
    }
    [[maybe_unused]] int ignored = ::chdir("/");
}

void Guard::become_worker(int report) {
    pid_t guard = ::getppid();
    auto fail = [&](GuardReport::Step step) {
        StartFailure failure{step, errno};
        [[maybe_unused]] ssize_t n = ::write(report, &failure, sizeof failure);
        ::_exit(127);
    };
    ::setsid();  // a session and a process group of its own
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != guard) ::_exit(127);  // it died before we asked to hear of it
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);

    if (!task_.directory.empty() && ::chdir(task_.directory.c_str()) != 0) fail(GuardReport::Step::directory);

    std::vector<char*> argv, environment;
    for (std::string& word : task_.command) argv.push_back(word.data());
    for (std::string& entry : task_.environment) environment.push_back(entry.data());
    argv.push_back(nullptr);
    environment.push_back(nullptr);
    environ = environment.data();  // so that PATH is the worker's too

    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execvp(argv[0], argv.data());
    fail(GuardReport::Step::exec);
    ::_exit(127);
}

void Guard::read_start() {
    StartFailure failure{};
    ssize_t n = ::read(start_.number(), &failure, sizeof failure);
    start_.close();
    if (n == sizeof failure) {
        report({.kind = GuardReport::Kind::failed, .step = failure.step, .error = failure.error});
        ::waitpid(worker_, nullptr, 0);
        worker_ = 0;
        childless_ = true;
    } else {
        report({.kind = GuardReport::Kind::started, .pid = worker_});
    }
}

void Guard::read_orders() {
    GuardOrder order;
    ssize_t n = ::recv(guard_control, &order, sizeof order, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n != sizeof order) {
        penstock_gone_ = true;
        kill_all();
    } else if (order.kind == GuardOrder::Kind::kill) {
        kill_all();
    } else {
        stop_signal_ = order.signal;
        if (worker_) {
            ::kill(worker_, stop_signal_);
        } else {
            signal_children(stop_signal_);
        }
    }
}

// The worker is looked at before it is waited for: as long as it has not been, its number is its group's
// and nobody else's.
void Guard::reap() {
    signalfd_siginfo seen{};
    while (::read(signals_.number(), &seen, sizeof seen) > 0) {
    }
    for (;;) {
        siginfo_t info{};
        if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
            childless_ = errno == ECHILD;
            return;
        }
        if (info.si_pid == 0) break;
        if (info.si_pid == worker_) {
            worker_exited();
        } else {
            ::waitpid(info.si_pid, nullptr, WNOHANG);
        }
    }
    if (killing_) kill_all();  // what has lost its parent since is our child now
}

void Guard::worker_exited() {
    if (start_) read_start();
    if (!worker_) return;
    // Asked to stop, it may have left others behind that know how to end; else there is nothing to wait for.
    if (!stop_signal_ || killing_) {
        kill_all();
    } else {
        ::kill(-worker_, stop_signal_);
    }
    GuardReport gone{.kind = GuardReport::Kind::exited, .pid = worker_};
    rusage used{};
    int status = 0;
    ::wait4(worker_, &status, 0, &used);
    gone.status = status;
    gone.peak_memory = static_cast<uint64_t>(used.ru_maxrss) * KiB;
    pid_t group = std::exchange(worker_, 0);
    report(gone);
    if (stop_signal_ && !killing_) {
        for (pid_t child : children_of(::getpid())) {
            if (::getpgid(child) != group) ::kill(child, stop_signal_);
        }
    }
}

void Guard::kill_all() {
    killing_ = true;
    if (worker_) ::kill(-worker_, SIGKILL);
    signal_children(SIGKILL);
}

void Guard::signal_children(int signal) {
    for (pid_t child : children_of(::getpid())) ::kill(child, signal);
}

void Guard::report(const GuardReport& report) {
    if (!penstock_gone_) ::send(guard_control, &report, sizeof report, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Guard::clean_up() {
    if (task_.socket.empty()) return;
    ::unlink(task_.socket.c_str());
    // The last one that penstock left behind removes the folder too; for all others it is not empty.
    if (penstock_gone_) ::rmdir(task_.socket.substr(0, task_.socket.rfind('/')).c_str());
}

std::string read_task() {
    std::string bytes;
    std::array<char, 16384> buffer{};
    ::lseek(guard_task, 0, SEEK_SET);
    for (ssize_t n; (n = ::read(guard_task, buffer.data(), buffer.size())) > 0;) {
        bytes.append(buffer.data(), static_cast<size_t>(n));
    }
    ::close(guard_task);
    return bytes;
}

}  // namespace

// Texts end with a zero byte: folder, socket, how many words, the words, and the environment to the end.
std::string encode(const GuardTask& task) {
    std::string bytes;
    auto add = [&bytes](std::string_view text) { bytes.append(text).push_back('\0'); };
    add(task.directory);
    add(task.socket);
    add(fmt::to_string(task.command.size()));
    for (const std::string& word : task.command) add(word);
    for (const std::string& entry : task.environment) add(entry);
    return bytes;
}

Result<GuardTask> decode_guard_task(std::string_view bytes) {
    auto next = [&bytes]() -> std::optional<std::string> {
        size_t end = bytes.find('\0');
        if (end == bytes.npos) return std::nullopt;
        std::string text(bytes.substr(0, end));
        bytes.remove_prefix(end + 1);
        return text;
    };
    GuardTask task;
    auto directory = next(), socket = next(), words = next();
    uint64_t count = words ? parse_number(*words).value_or(0) : 0;
    if (!directory || !socket || count == 0) return failure("a guard's task is damaged");
    task.directory = *directory;
    task.socket = *socket;
    for (uint64_t i = 0; i < count; ++i) {
        auto word = next();
        if (!word) return failure("a guard's task is cut short");
        task.command.push_back(*word);
    }
    while (auto entry = next()) task.environment.push_back(*entry);
    return task;
}

bool is_guard(int argc, const char* const* argv) { return argc == 3 && std::strcmp(argv[1], "_guard") == 0; }

int guard_main() {
    // Not "penstock": whoever kills penstock by its name must not take the guards with it.
    ::prctl(PR_SET_NAME, "guard");
    ::fcntl(guard_control, F_SETFD, FD_CLOEXEC);
    ::fcntl(guard_task, F_SETFD, FD_CLOEXEC);
    sigset_t all;
    sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    auto task = decode_guard_task(read_task());
    if (!task) return 2;
    Guard(std::move(*task)).run();
    ::_exit(0);  // nothing to tear down
}

}  // namespace penstock
