#include "config/memory_bound.h"

#include <algorithm>

#include "policy/limit_table.h"

namespace penstock {

namespace {

// At once: one a slot; where nothing limits them, one a client.
uint64_t backend_connections(const Config& config) {
    uint64_t slots = 0;
    bool unlimited = false;
    for (const Upstream& upstream : config.upstreams) {
        if (upstream.workers) {
            unlimited = unlimited || upstream.concurrency == 0;
            slots += uint64_t{upstream.concurrency} * upstream.workers->count;
        }
        for (const Server& server : upstream.servers) {
            unlimited = unlimited || server.concurrency == 0;
            slots += server.concurrency;
        }
    }
    return slots + (unlimited ? config.limits.connections : 0);
}

}  // namespace

MemoryBound memory_bound(const Config& config) {
    uint64_t clients = config.limits.connections;
    uint64_t backends = backend_connections(config);

    MemoryBound bound;
    bound.bodies = config.limits.memory;
    bound.itself = MemoryBound::process + config.threads * MemoryBound::loop;
    for (const RateLimit& limit : config.rate_limits)
        bound.rate_limits += LimitTable::bytes(limit.most_keys());
    uint64_t small = MemoryBound::idle_connection + MemoryBound::request + MemoryBound::small_chunk;
    bound.connections =
        clients * small + backends * (MemoryBound::idle_connection + MemoryBound::small_chunk);
    if (std::any_of(config.listen.begin(), config.listen.end(),
                    [](const Listen& l) { return l.tls.has_value(); }))
        bound.connections += clients * MemoryBound::tls;
    if (std::any_of(config.upstreams.begin(), config.upstreams.end(),
                    [](const Upstream& u) { return u.tls.has_value(); }))
        bound.connections += backends * MemoryBound::tls;

    // The chunk that a head was read into, its copy in the exchange, and the response's likewise.
    uint64_t head = config.limits.header_bytes;
    uint64_t read = std::max(head, MemoryBound::large_chunk) - MemoryBound::small_chunk;
    bound.extremes = (clients + backends) * (read + head + MemoryBound::output);

    bool http2 =
        std::any_of(config.listen.begin(), config.listen.end(), [](const Listen& l) { return l.http2; });
    if (http2) {
        uint64_t streams = std::min(clients * (config.limits.max_concurrent_streams - 1),
                                    config.limits.memory / MemoryBound::certain);
        bound.http2 = clients * MemoryBound::h2_session +
                      streams * (MemoryBound::request + MemoryBound::small_chunk + MemoryBound::h2_stream);
    }
    return bound;
}

}  // namespace penstock
