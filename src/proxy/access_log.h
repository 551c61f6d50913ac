// The access log: one line an exchange, formatted into a buffer of its loop and handed over to the one
// LineWriter of the process when the buffer is full or a quarter of a second is over. The loop never waits:
// what the writer has no room for is dropped, and counted by the writer.
//
// An AccessLines belongs to one loop; the writer outlives it. Whatever a client sends stays inside its field:
// control characters, quotes and broken UTF-8 are escaped, long values cut. Formatting allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/time.h"
#include "base/turn.h"
#include "config/config.h"

namespace penstock {

class LineWriter;

// What is known of an exchange when it ends. The views need to live for the call only; what is empty (a
// negative duration) was not known or did not happen, and is left out of the JSON.
struct AccessRecord {
    static constexpr Duration not_measured = Duration(-1);

    int64_t unix_ns = 0;      // wall clock, when the request began
    std::string_view client;  // address without port, as the trusted proxies say
    std::string_view method;
    std::string_view host;
    std::string_view target;       // as sent, with the query
    std::string_view protocol;     // HTTP/1.1
    uint16_t status = 0;           // 499: the client left
    std::string_view grpc_status;  // of a gRPC request, by its name
    std::string_view reason;       // of x-penstock-reason, where we answered
    std::string_view rule;         // the rule broken, of a bad_request
    std::string_view limit;        // the rate limit that refused
    std::string_view upstream;
    std::string_view backend;  // address or, of a worker, its name: ocr/0
    std::string_view route;
    std::string_view model;
    std::string_view request_id;
    std::string_view ended_by;  // client, backend or penstock, where it did not end well
    std::string_view step;      // what it waited for when it ended; empty for a good end
    std::string_view user_agent;
    std::string_view referer;
    Duration total = not_measured;
    Duration queue = not_measured;
    Duration backend_time = not_measured;
    Duration first_byte = not_measured;
    uint64_t request_bytes = 0;  // of the bodies
    uint64_t response_bytes = 0;
    uint32_t attempts = 0;  // how often it went to a backend
};

// The text of one line, with its end. `out` has access_line_bound bytes; returns how many were used.
constexpr size_t access_line_bound = 48 * 1024;
size_t format_access_line(const AccessRecord& record, LogFormat format, char* out);

class AccessLines final : public Task {
  public:
    static constexpr Duration longest_wait = 250ms;

    AccessLines(Turn& turn, LineWriter& writer, LogFormat format);
    ~AccessLines();  // hands over what it has

    void add(const AccessRecord& record);
    void hand_over();  // what is buffered, now
    void run(Time now) override;

  private:
    static constexpr size_t capacity = 2 * access_line_bound;

    Turn& turn_;
    LineWriter& writer_;
    const LogFormat format_;
    Deadline flush_at_;
    std::unique_ptr<char[]> buffer_;
    size_t size_ = 0;
    size_t lines_ = 0;
};

}  // namespace penstock
