// What a worker writes to stdout or stderr, line by line into the log under the worker's name.
//
// Always read, so that a worker never blocks on a full pipe: a log that is behind drops lines and counts
// them (base/log.h), and a flood costs a bounded part of each turn. Nobody waits for the end of this pipe:
// it may be held open by a process that the worker left behind.
#pragma once

#include <event2/event_struct.h>
#include <string>

#include "base/error.h"
#include "net/loop.h"
#include "workers/descriptor.h"
#include "workers/lines.h"

namespace penstock {

class WorkerOutput {
  public:
    // `name` and `last_lines` outlive it.
    WorkerOutput(const std::string& name, LastLines& last_lines) : name_(name), last_lines_(last_lines) {}
    ~WorkerOutput() { close(); }
    WorkerOutput(const WorkerOutput&) = delete;
    WorkerOutput& operator=(const WorkerOutput&) = delete;

    // Returns the end to write to, for the worker.
    Result<Descriptor> open(Loop& loop);
    void catch_up();  // what lies in the pipe now
    void close();

  private:
    static void on_readable(int, short, void* self);
    bool read_some(size_t most);  // false: at the end
    void take(std::string_view line);

    const std::string& name_;
    LastLines& last_lines_;
    LineCutter lines_;
    Descriptor pipe_;
    event event_{};
};

}  // namespace penstock
