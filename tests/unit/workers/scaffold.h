// What the tests of processes share: a loop that is turned until something has happened, folders and files
// through which workers speak, and what was logged. The test program is also its own guard, and its own
// penstock to be killed: see other_lives_test.cc.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/line_writer.h"
#include "base/log.h"
#include "net/loop.h"
#include "workers/descriptor.h"

namespace penstock::testing {

constexpr Duration patience = 60s;  // nothing in a test takes that long, even under sanitizers

// Turns `loop` until `condition` holds. It sleeps in the loop: what is waited for must be an event of it.
template <class Condition>
bool run_until(Loop& loop, Condition&& condition) {
    struct Alarm final : Task {
        void run(Time) override {}
    } alarm;
    Deadline deadline(alarm);
    loop.turn().arm(deadline, monotonic_now() + patience);
    while (!condition() && !deadline.expired()) loop.run_once();
    alarm.unlink();
    return condition();
}

// The same, for a condition that no event tells: files of other processes.
template <class Condition>
bool look_until(Loop& loop, Condition&& condition) {
    struct Tick final : Task {
        void run(Time now) override { loop.turn().arm(deadline, now + 2ms); }
        explicit Tick(Loop& l) : loop(l) {}
        Loop& loop;
        Deadline deadline{*this};
    } tick(loop);
    tick.run(monotonic_now());
    bool held = run_until(loop, condition);
    tick.unlink();
    return held;
}

// Lets time pass that nobody waits for: what is due by then happens now. The loop's own clock catches up only
// when that time has really passed, so whatever is armed after this comes late, or with the next pass().
inline void pass(Loop& loop, Duration time) { loop.turn().run(loop.now() + time); }

// A folder that is removed, with all that is in it, at the end of the test.
class Folder {
  public:
    Folder() : path_("/tmp/penstock-test-XXXXXX") {
        if (!::mkdtemp(path_.data())) std::abort();
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

inline std::string contents(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// The number in the first line of a file; 0 as long as the line is not complete.
inline int number_in(const std::string& path) {
    std::string text = contents(path);
    return text.find('\n') == text.npos ? 0 : std::atoi(text.c_str());
}

inline bool is_alive(int pid) {  // a zombie is not
    std::string stat = contents(fmt::format("/proc/{}/stat", pid));
    size_t name_end = stat.rfind(')');
    return name_end != stat.npos && stat[name_end + 2] != 'Z' && stat[name_end + 2] != 'X';
}

// A process that is not our child, to wait for its end.
class Watched {
  public:
    explicit Watched(int pid) : pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
    bool is_watched() const { return static_cast<bool>(pidfd_); }
    bool ends() const {  // waits for it
        pollfd end{pidfd_.number(), POLLIN, 0};
        return ::poll(&end, 1, static_cast<int>(patience / 1ms)) == 1;
    }

  private:
    Descriptor pidfd_;
};

// What is logged while it lives goes into it instead of to stderr.
class CapturedLog {
  public:
    CapturedLog() : file_(::memfd_create("log", MFD_CLOEXEC)) {
        log::open(LineWriter::to_descriptor(file_.number()));
    }
    ~CapturedLog() { log::close(); }
    CapturedLog(const CapturedLog&) = delete;
    CapturedLog& operator=(const CapturedLog&) = delete;

    std::string text() const {
        log::flush();
        std::string text;
        char buffer[4096];
        for (ssize_t n;
             (n = ::pread(file_.number(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0;) {
            text.append(buffer, static_cast<size_t>(n));
        }
        return text;
    }
    bool has(std::string_view part) const { return text().find(part) != std::string::npos; }

  private:
    Descriptor file_;
};

}  // namespace penstock::testing
