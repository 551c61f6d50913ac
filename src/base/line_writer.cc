#include "base/line_writer.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <mutex>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace penstock {

namespace {

// A pipe that polls as writable takes this much without blocking (PIPE_BUF); so does a terminal.
constexpr size_t piece_bytes = 4096;
constexpr Duration last_wait = 1s;

int open_file(const std::string& path) {
    return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

size_t count_lines(std::string_view text) {
    size_t lines = 0;
    for (char c : text) lines += c == '\n';
    return lines;
}

struct Buffer {
    explicit Buffer(size_t capacity) : bytes(std::make_unique_for_overwrite<char[]>(capacity)) {}
    std::unique_ptr<char[]> bytes;  // pages are touched only as far as it was ever filled
    size_t size = 0;
};

}  // namespace

// What the thread uses. It holds this by itself, so that it can be left behind.
struct LineWriter::Shared {
    Shared(int descriptor, std::string file, size_t most)
        : path(std::move(file)), capacity(most), filling(most), writing(most), fd(descriptor) {}
    ~Shared() {
        if (!path.empty()) ::close(fd);
    }

    const std::string path;  // empty: the descriptor is not ours
    const size_t capacity;

    std::mutex mutex;
    std::condition_variable work;  // something to write, to reopen, or the end
    std::condition_variable idle;  // all is written
    Buffer filling;
    bool busy = false;  // the thread has something in `writing`
    bool reopening = false;
    bool stopping = false;
    bool ended = false;
    uint64_t dropped = 0;

    // The thread's own.
    Buffer writing;
    int fd;

    void run();
    size_t write_all(std::string_view text);  // how many lines were lost
    ssize_t write_some(std::string_view text);
};

void LineWriter::Shared::run() {
    std::unique_lock lock(mutex);
    while (true) {
        if (filling.size) {
            std::swap(filling, writing);
            busy = true;
            lock.unlock();
            size_t lost = write_all({writing.bytes.get(), writing.size});
            lock.lock();
            writing.size = 0;
            dropped += lost;
            busy = false;
            continue;  // lines put before reopen() go to the old file
        }
        if (reopening) {
            lock.unlock();
            // Where the new file cannot be opened, the old one goes on: late lines beat lost ones.
            if (int fresh = open_file(path); fresh >= 0) {
                ::close(fd);
                fd = fresh;
            }
            lock.lock();
            reopening = false;
            continue;
        }
        if (stopping) break;
        idle.notify_all();
        work.wait(lock);
    }
    ended = true;
    idle.notify_all();
}

size_t LineWriter::Shared::write_all(std::string_view text) {
    while (!text.empty()) {
        ssize_t n = write_some(text);
        if (n > 0) {
            text.remove_prefix(static_cast<size_t>(n));
        } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
            return count_lines(text);
        }
    }
    return 0;
}

// Waits in poll(), not in write(), wherever the kernel allows: our stdout may be a pipe that others write
// to as well, so its O_NONBLOCK is not ours to set.
ssize_t LineWriter::Shared::write_some(std::string_view text) {
    struct stat kind {};
    ::fstat(fd, &kind);
    if (S_ISREG(kind.st_mode)) return ::write(fd, text.data(), text.size());
    pollfd ready{fd, POLLOUT, 0};
    if (::poll(&ready, 1, -1) < 0) return -1;
    if (S_ISSOCK(kind.st_mode)) return ::send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return ::write(fd, text.data(), std::min(text.size(), piece_bytes));
}

Result<std::unique_ptr<LineWriter>> LineWriter::open(const std::string& path, size_t capacity) {
    if (path == "stdout") return to_descriptor(STDOUT_FILENO, capacity);
    if (path == "stderr") return to_descriptor(STDERR_FILENO, capacity);
    int fd = open_file(path);
    if (fd < 0) return failure(fmt::format("cannot open {} for appending: {}", path, std::strerror(errno)));
    return std::unique_ptr<LineWriter>(new LineWriter(std::make_shared<Shared>(fd, path, capacity)));
}

std::unique_ptr<LineWriter> LineWriter::to_descriptor(int fd, size_t capacity) {
    return std::unique_ptr<LineWriter>(new LineWriter(std::make_shared<Shared>(fd, "", capacity)));
}

LineWriter::LineWriter(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
    // The thread takes no signals: they are the main thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([kept = shared_] { kept->run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

LineWriter::~LineWriter() {
    std::unique_lock lock(shared_->mutex);
    shared_->stopping = true;
    shared_->work.notify_one();
    bool ended = shared_->idle.wait_for(lock, last_wait, [this] { return shared_->ended; });
    lock.unlock();
    if (ended)
        thread_.join();
    else
        thread_.detach();
}

bool LineWriter::put(std::string_view text, size_t lines) {
    {
        std::lock_guard lock(shared_->mutex);
        Buffer& to = shared_->filling;
        if (text.size() > shared_->capacity - to.size) {
            shared_->dropped += lines;
            return false;
        }
        std::memcpy(to.bytes.get() + to.size, text.data(), text.size());
        to.size += text.size();
    }
    shared_->work.notify_one();
    return true;
}

void LineWriter::reopen() {
    if (shared_->path.empty()) return;
    {
        std::lock_guard lock(shared_->mutex);
        shared_->reopening = true;
    }
    shared_->work.notify_one();
}

bool LineWriter::flush(Duration at_most) {
    std::unique_lock lock(shared_->mutex);
    return shared_->idle.wait_for(lock, at_most, [this] {
        return shared_->filling.size == 0 && !shared_->busy && !shared_->reopening;
    });
}

uint64_t LineWriter::dropped_lines() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->dropped;
}

}  // namespace penstock
