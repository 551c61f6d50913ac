// A LineWriter puts lines into a file, pipe, terminal or socket from a thread of its own, so that whoever
// has lines never waits for whoever reads them. put() copies into a buffer of fixed size under a mutex that
// is held for the copy only; when the reader is too slow and the buffer is full, lines are dropped and
// counted. A broken reader (EPIPE, ENOSPC, EIO) costs the lines and nothing else.
//
// The surprising part is the end: the destructor waits a moment for what is buffered, but not for a reader
// that has stopped reading. It then leaves its thread, and the little that the thread uses, behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/time.h"

namespace penstock {

class LineWriter {
  public:
    static constexpr size_t default_capacity = 1 << 20;

    // stdout, stderr or the path of a file, which is appended to and made where it is missing.
    static Result<std::unique_ptr<LineWriter>> open(const std::string& path,
                                                    size_t capacity = default_capacity);
    // A descriptor that somebody else closes.
    static std::unique_ptr<LineWriter> to_descriptor(int fd, size_t capacity = default_capacity);
    ~LineWriter();
    LineWriter(const LineWriter&) = delete;
    LineWriter& operator=(const LineWriter&) = delete;

    // Any thread. `text` is whole lines, each with its end; all of it is taken or none. False: dropped.
    bool put(std::string_view text, size_t lines = 1);

    void reopen();  // the file of that path anew (it was renamed); nothing to do for a descriptor
    bool flush(Duration at_most);  // until all that was put is written or dropped; false: not in that time

    uint64_t dropped_lines() const;  // any thread: for want of room, or for a write that failed

  private:
    struct Shared;
    explicit LineWriter(std::shared_ptr<Shared> shared);
    std::shared_ptr<Shared> shared_;
    std::thread thread_;
};

}  // namespace penstock
