#include "proxy/upstream.h"

#include "proxy/affinity.h"
#include "proxy/outlier.h"

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
    : settings(from), id_(id), label_(label), shown_(new std::atomic<Backend*>[max_backends] {}) {}

Backend& LiveUpstream::add_backend(std::string name, BackendId id) {
    if (backends_.size() <= id.index) backends_.resize(id.index + 1U);
    std::unique_ptr<Backend>& place = backends_[id.index];
    const uint32_t first_generation = place ? place->generation() + 1 : 1;
    const uint64_t identity = backend_identity(settings.balance, name);
    auto added = std::make_unique<Backend>(std::move(name), id, identity, first_generation);
    shown_[id.index].store(added.get(), std::memory_order_release);
    place = std::move(added);
    return *place;
}

bool LiveUpstream::is_limited() const {
    const CircuitBreaker& breaker = settings.circuit_breaker;
    if (settings.balance.patience > Duration{}) return true;
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
    rules.counts_connections = from.protocol == Protocol::http1;  // of HTTP/2 one carries many
    rules.max_requests = from.circuit_breaker.max_requests;
    rules.abandon_grace = from.abandon_grace;
    rules.abandon_limit = from.abandon_limit;
    rules.slow_start = from.slow_start;
    switch (from.balance.policy) {
        case BalancePolicy::least_busy: rules.balancing = Balancing::least_busy; break;
        case BalancePolicy::round_robin: rules.balancing = Balancing::round_robin; break;
        case BalancePolicy::random_two: rules.balancing = Balancing::random_two; break;
        case BalancePolicy::first: rules.balancing = Balancing::first; break;
    }
    if (from.balance.hash) rules.affinity = Affinity::by_hash;
    if (from.balance.sticky) rules.affinity = Affinity::by_name;
    rules.patience = from.balance.patience;
    rules.balance_factor = from.balance.factor;
    rules.outlier = outlier_rules_of(from);
    const Retry& retry = from.retry;
    rules.retry = {.attempts = retry.attempts,
                   .on_connect_failure = retry.on_connect_failure,
                   .on_reset_before_response = retry.on_reset_before_response,
                   .on_status = retry.on_status,
                   .idempotent = retry.idempotent,
                   .budget = retry.budget,
                   .max_retries = from.circuit_breaker.max_retries};
    return rules;
}

}  // namespace penstock
