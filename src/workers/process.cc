#include "workers/process.h"

#include <array>
#include <cassert>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <event2/event.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers/process_tree.h"

namespace penstock {

namespace {

tl::unexpected<Error> failed(std::string_view what, int error = errno) {
    return failure(fmt::format("{}: {}", what, std::strerror(error)));
}

// Above the numbers that a guard finds its descriptors under, so that none is overwritten before it is moved.
Result<Descriptor> moved_up(Descriptor from) {
    Descriptor moved(::fcntl(from.number(), F_DUPFD_CLOEXEC, guard_task + 1));
    if (!moved) return failed("no descriptor for a worker");
    return moved;
}

Result<Descriptor> task_file(const GuardTask& task) {
    Descriptor file(::memfd_create("penstock-worker", MFD_CLOEXEC));
    std::string bytes = encode(task);
    if (!file) return failed("memfd_create");
    if (::write(file.number(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
        return failed("writing to a memfd");
    }
    return moved_up(std::move(file));
}

std::string start_failure_text(const GuardReport& report, const GuardTask& task) {
    std::string_view error = std::strerror(report.error);
    switch (report.step) {
        case GuardReport::Step::guard: return fmt::format("its guard: {}", error);
        case GuardReport::Step::fork: return fmt::format("fork: {}", error);
        case GuardReport::Step::directory: return fmt::format("directory {}: {}", task.directory, error);
        case GuardReport::Step::exec: break;
    }
    const std::string& program = task.command.front();
    bool searched = program.find('/') == program.npos && report.error == ENOENT;
    return fmt::format("exec {}: {}{}", program, error, searched ? " in any folder of PATH" : "");
}

}  // namespace

std::string to_string(const ProcessExit& exit) {
    if (WIFEXITED(exit.status)) return fmt::format("exit code {}", WEXITSTATUS(exit.status));
    int signal = WTERMSIG(exit.status);
    return fmt::format("signal {} ({}){}{}", signal, ::strsignal(signal),
                       WCOREDUMP(exit.status) ? ", core dumped" : "",
                       exit.out_of_memory ? ", probably because memory ran out: the kernel was killing" : "");
}

Process::Process(Loop& loop, Task& owner, std::string name)
    : loop_(loop), owner_(owner), name_(std::move(name)) {}

Process::~Process() {
    if (control_) event_del(&control_event_);
    if (guard_) event_del(&guard_event_);
}

Result<> Process::start(GuardTask task) {
    assert(!guard_ && !gone_);
    task_ = std::move(task);
    kernel_kills_ = out_of_memory_kills();
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0) {
        return failed("socketpair");
    }
    Descriptor ours(ends[0]);
    auto control = moved_up(Descriptor(ends[1]));
    if (!control) return tl::unexpected(control.error());
    auto file = task_file(task_);
    if (!file) return tl::unexpected(file.error());
    auto out = out_.open(loop_), err = err_.open(loop_);
    if (!out || !err) return tl::unexpected((out ? err : out).error());

    control_ = std::move(ours);
    auto spawned = spawn_guard(std::move(*control), std::move(*file), std::move(*out), std::move(*err));
    if (!spawned) {
        control_.close();
        out_.close();
        err_.close();
        return spawned;
    }
    event_assign(&control_event_, loop_.base(), control_.number(), EV_READ | EV_PERSIST, on_control, this);
    event_assign(&guard_event_, loop_.base(), guard_.number(), EV_READ, on_guard_exit, this);
    event_add(&control_event_, nullptr);
    event_add(&guard_event_, nullptr);
    return {};
}

Result<> Process::spawn_guard(Descriptor control, Descriptor task, Descriptor out, Descriptor err) {
    auto out_up = moved_up(std::move(out)), err_up = moved_up(std::move(err));
    if (!out_up || !err_up) return tl::unexpected((out_up ? err_up : out_up).error());
    Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    auto null_up = null ? moved_up(std::move(null)) : failed("/dev/null");
    if (!null_up) return tl::unexpected(null_up.error());

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, null_up->number(), 0);
    posix_spawn_file_actions_adddup2(&files, out_up->number(), 1);
    posix_spawn_file_actions_adddup2(&files, err_up->number(), 2);
    posix_spawn_file_actions_adddup2(&files, control.number(), guard_control);
    posix_spawn_file_actions_adddup2(&files, task.number(), guard_task);
    posix_spawn_file_actions_addclosefrom_np(&files, guard_task + 1);

    // Every signal blocked from its first instruction on, and at its default: the worker gets none of ours.
    // A session of its own, so that a terminal's Ctrl-C reaches penstock alone.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t all;
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &all);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(
        &attributes, static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID));

    // /proc/self/exe is this very program, even when the file was replaced meanwhile.
    std::string program = "guard", command = "_guard", name = name_;
    std::array<char*, 4> argv{program.data(), command.data(), name.data(), nullptr};
    int error = ::posix_spawn(&guard_pid_, "/proc/self/exe", &files, &attributes, argv.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error) {
        guard_pid_ = 0;
        return failed("starting its guard", error);
    }
    // Not by <sys/pidfd.h>: glibc 2.36 declares it without C linkage.
    guard_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, guard_pid_, 0)));
    if (!guard_) {
        auto result = failed("pidfd_open");
        control_.close();  // at which the guard ends
        ::waitpid(guard_pid_, nullptr, 0);
        guard_pid_ = 0;
        return result;
    }
    return {};
}

void Process::stop(int signal) { order({GuardOrder::Kind::stop, signal}); }

void Process::kill() {
    killed_ = true;
    order({GuardOrder::Kind::kill, 0});
}

void Process::order(const GuardOrder& order) {
    if (control_) ::send(control_.number(), &order, sizeof order, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Process::on_control(int, short, void* self) {
    auto& process = *static_cast<Process*>(self);
    process.read_reports();
    process.loop_.turn().mark(process.owner_);
}

void Process::read_reports() {
    while (control_) {
        GuardReport report;
        ssize_t n = ::recv(control_.number(), &report, sizeof report, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n == sizeof report) {
            take(report);
        } else {  // it is ending: its pidfd tells
            event_del(&control_event_);
            control_.close();
        }
    }
}

void Process::take(const GuardReport& report) {
    if (report.kind == GuardReport::Kind::started) {
        pid_ = report.pid;
        return;
    }
    // Its last words first: whoever asks why it ended wants them.
    out_.catch_up();
    err_.catch_up();
    if (report.kind == GuardReport::Kind::failed) {
        start_failure_ = start_failure_text(report, task_);
        return;
    }
    bool sigkill = WIFSIGNALED(report.status) && WTERMSIG(report.status) == SIGKILL;
    exit_ = ProcessExit{.status = report.status,
                        .peak_memory = report.peak_memory,
                        .out_of_memory = sigkill && !killed_ && out_of_memory_kills() > kernel_kills_};
}

void Process::on_guard_exit(int, short, void* self) {
    auto& process = *static_cast<Process*>(self);
    process.read_reports();
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(process.guard_.number()), &info, WEXITED);
    process.guard_.close();
    process.guard_pid_ = 0;
    process.gone_ = true;
    for (WorkerOutput* output : {&process.out_, &process.err_}) {
        output->catch_up();
        output->close();
    }
    process.loop_.turn().mark(process.owner_);
}

}  // namespace penstock
