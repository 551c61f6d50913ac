#include "proxy/upstream.h"

namespace penstock {

void deliver(Park& park, Wakes& wakes, Time now, Post& post) {
    while (true) {
        for (const Wake& wake : wakes) post.wake(wake);
        if (wakes.main) post.wake_main();
        if (!wakes.more) return;
        wakes.count = 0;
        wakes.more = wakes.main = false;
        park.resume(now, wakes);
    }
}

LiveUpstream::LiveUpstream(const Upstream& from, UpstreamId id, UpstreamLabel label)
    : settings(from), id_(id), label_(label) {}

bool LiveUpstream::is_limited() const {
    const CircuitBreaker& breaker = settings.circuit_breaker;
    return settings.has_slots() || breaker.max_connections || breaker.max_requests ||
           breaker.max_pending_requests;
}

UpstreamRules rules_of(const Upstream& from) {
    UpstreamRules rules;
    rules.queue_size = from.queue.size;
    rules.max_pending = from.circuit_breaker.max_pending_requests;
    rules.queue_bytes = from.queue.bytes;
    rules.queue_timeout = from.queue.timeout;
    rules.start_timeout = from.queue.start_timeout;
    rules.refuse_hopeless = from.queue.refuse_hopeless;
    rules.max_connections = from.circuit_breaker.max_connections;
    rules.max_requests = from.circuit_breaker.max_requests;
    rules.abandon_grace = from.abandon_grace;
    rules.abandon_limit = from.abandon_limit;
    rules.slow_start = from.slow_start;
    return rules;
}

}  // namespace penstock
