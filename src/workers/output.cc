#include "workers/output.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <event2/event.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

namespace penstock {

namespace {
// Of one stream in one turn: four full pipes, about 0.1 ms. The rest waits for the next turn.
constexpr size_t most_a_turn = 256 * KiB;
// As much as a pipe can hold (the worker may have enlarged it to pipe-max-size).
constexpr size_t most_in_a_pipe = 1 * MiB;
}  // namespace

Result<Descriptor> WorkerOutput::open(Loop& loop) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return failure(fmt::format("no pipe for its output: {}", std::strerror(errno)));
    }
    close();
    pipe_ = Descriptor(ends[0]);
    Descriptor worker_end(ends[1]);
    ::fcntl(pipe_.number(), F_SETFL, O_NONBLOCK);  // ours alone: the worker's end blocks as it expects
    event_assign(&event_, loop.base(), pipe_.number(), EV_READ | EV_PERSIST, on_readable, this);
    event_add(&event_, nullptr);
    return worker_end;
}

void WorkerOutput::catch_up() {
    if (pipe_ && !read_some(most_in_a_pipe)) close();
}

void WorkerOutput::close() {
    if (!pipe_) return;
    if (!lines_.is_empty()) lines_.finish([this](std::string_view line) { take(line); });
    event_del(&event_);
    pipe_.close();
}

void WorkerOutput::on_readable(int, short, void* self) {
    auto& output = *static_cast<WorkerOutput*>(self);
    if (!output.read_some(most_a_turn)) output.close();
}

bool WorkerOutput::read_some(size_t most) {
    std::array<char, 64 * KiB> buffer;  // as much as a pipe holds
    for (size_t done = 0; done < most;) {
        ssize_t n = ::read(pipe_.number(), buffer.data(), buffer.size());
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        if (n == 0) return false;
        done += static_cast<size_t>(n);
        lines_.feed({buffer.data(), static_cast<size_t>(n)}, [this](std::string_view line) { take(line); });
        if (static_cast<size_t>(n) < buffer.size() / 2) return true;  // most likely empty now
    }
    return true;
}

void WorkerOutput::take(std::string_view line) {
    log::info("{}: {}", name_, line);
    last_lines_.add(line);
}

}  // namespace penstock
