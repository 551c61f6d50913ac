// How much memory a configuration can make penstock use, as `penstock check` prints it. Bodies are bounded
// by their own account (base/memory.h); what remains is so much per connection.
#pragma once

#include <cstdint>

#include "base/text.h"
#include "config/config.h"

namespace penstock {

struct MemoryBound {
    // What the data path holds itself to; tests/unit and tests/scenario measure it.
    static constexpr uint64_t idle_connection = 600;   // session and channel
    static constexpr uint64_t request = 2 * KiB;       // an exchange in flight, without head and body
    static constexpr uint64_t small_chunk = 2 * KiB;   // a head is read into one,
    static constexpr uint64_t large_chunk = 16 * KiB;  // or, if it is large, into one of these
    static constexpr uint64_t output = 64 * KiB;       // what waits in a connection to be read
    static constexpr uint64_t tls = 16 * KiB;          // of OpenSSL, on top of an idle connection
    static constexpr uint64_t h2_session = 20 * KiB;   // of nghttp2: a frame, HPACK's tables
    static constexpr uint64_t h2_stream = 1 * KiB;     // beside its exchange
    static constexpr uint64_t certain = 32 * KiB;      // what a request takes of limits.memory, or is refused
    static constexpr uint64_t process = 24 * MiB;      // program, libraries, metrics, logs
    static constexpr uint64_t loop = 4 * MiB;          // its stack, tables and kept chunks

    uint64_t bodies = 0;       // limits.memory
    uint64_t itself = 0;       // the process and its loops
    uint64_t rate_limits = 0;  // their tables, full of keys
    uint64_t connections = 0;  // limits.connections, each with a small request in flight
    uint64_t extremes = 0;     // on top: every head as large as allowed, and nobody reads what is sent to him

    uint64_t http2 = 0;  // on top: all clients speak HTTP/2, each with as many streams as it may have

    uint64_t usual() const { return bodies + itself + rate_limits + connections; }
    uint64_t most() const { return usual() + extremes + http2; }
};

MemoryBound memory_bound(const Config& config);

}  // namespace penstock
