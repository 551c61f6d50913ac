#include "plan.h"

#include <fmt/format.h>

#include "proxy/upstream.h"

namespace penstock::sim {

namespace {

template <class T, size_t n>
const T& one_of(Chance& chance, const T (&from)[n]) {
    return from[chance.below(n)];
}

// Half of all seeds do without a given fault, so that the rest of the story is told, too.
uint32_t fault(Chance& chance, uint32_t most) {
    return chance.one_in(2) ? 0 : static_cast<uint32_t>(chance.between(1, most));
}

Timeouts timeouts_for(Chance& chance, Duration work) {
    Timeouts out;
    out.connect = chance.between(20ms, 300ms);
    out.first_byte = work * static_cast<int64_t>(chance.between(4, 60));
    out.idle = work * static_cast<int64_t>(chance.between(4, 60));
    out.client_stall = chance.one_in(4) ? Duration{} : work * static_cast<int64_t>(chance.between(5, 40));
    if (chance.one_in(2)) return out;
    // With a bound on the whole, any of the others may be missing.
    out.request = work * static_cast<int64_t>(chance.between(10, 200));
    if (chance.one_in(4)) out.first_byte = {};
    if (chance.one_in(4)) out.idle = {};
    return out;
}

Retry retry_for(Chance& chance, Duration work) {
    Retry out;
    out.attempts = static_cast<uint32_t>(chance.below(4));
    out.on_connect_failure = !chance.one_in(4);
    out.on_reset_before_response = !chance.one_in(4);
    out.idempotent = chance.one_in(4);
    out.backoff = one_of(chance, {Duration{}, Duration{1ms}, work});
    out.max_backoff = out.backoff * 10;
    if (chance.one_in(3)) out.per_try_timeout = work * static_cast<int64_t>(chance.between(2, 30));
    out.budget = one_of(chance, {0.0, 0.2, 1.0});
    if (chance.one_in(3))
        for (unsigned status : {500, 502, 503}) out.on_status.add(status);
    return out;
}

Deeds deeds_for(Chance& chance) {
    Deeds out;
    out.early = fault(chance, 60);
    out.unanswered = fault(chance, 60);
    out.cut = fault(chance, 60);
    out.rubbish = fault(chance, 60);
    out.hangs = fault(chance, 20);
    out.dies = fault(chance, 15);
    out.closes = one_of(chance, {0U, 50U, 300U, 1000U});
    out.interims = fault(chance, 100);
    out.slow_reader = fault(chance, 100);
    out.fails = fault(chance, 100);
    return out;
}

// Times are short and numbers small, so that a seed sees ejections, and the ends of ejections.
std::optional<OutlierRules> outliers_for(Chance& chance, Duration work) {
    if (chance.one_in(3)) return std::nullopt;
    OutlierRules out;
    out.consecutive_5xx = static_cast<uint32_t>(chance.below(5));
    out.consecutive_gateway_errors = static_cast<uint32_t>(chance.below(4));
    out.consecutive_local_errors = static_cast<uint32_t>(chance.below(5));
    out.interval = work * static_cast<int64_t>(chance.between(10, 100));
    out.base_ejection_time = work * static_cast<int64_t>(chance.between(5, 50));
    out.max_ejection_time = out.base_ejection_time * static_cast<int64_t>(chance.between(1, 8));
    if (chance.one_in(3)) out.ejection_jitter = work * 5;
    out.max_ejection_percent = one_of(chance, {0U, 10U, 50U, 100U});
    out.min_healthy = one_of(chance, {0U, 1U, 1U, 3U});
    if (chance.one_in(3)) out.success_rate = {.stdev_factor = 1.0, .min_backends = 3, .min_requests = 5};
    if (chance.one_in(3)) out.failure_percentage = {.threshold = 50, .min_backends = 2, .min_requests = 5};
    out.restart_after = one_of(chance, {0U, 0U, 1U, 3U});
    return out;
}

// Half of the pools tie requests to backends. (What a request without a home gets is drawn elsewhere.)
Balance balance_for(Chance& chance, Duration work) {
    Balance out;
    if (chance.one_in(2)) return out;
    if (chance.one_in(2)) {
        out.hash = one_of(chance, {HashKey::header, HashKey::header, HashKey::path});
        out.hash_name = "x-key";
        out.factor = one_of(chance, {0U, 110U, 150U});
    } else {
        out.sticky = Sticky{.cookie = "home"};
    }
    if (!chance.one_in(3)) out.patience = work * static_cast<int64_t>(chance.between(1, 20));
    return out;
}

PoolPlan pool_plan(Chance& chance, unsigned number, bool has_device) {
    PoolPlan out;
    out.spawned = !chance.one_in(3);
    out.work = one_of(chance, {2ms, 10ms, 40ms});
    out.start = out.work * static_cast<int64_t>(chance.between(2, 50));
    out.one_by_one = chance.one_in(3);
    out.obeys = one_of(chance, {1000U, 500U, 0U});
    out.fails_to_start = fault(chance, 200);
    out.slow_ones = fault(chance, 300);
    out.deeds = deeds_for(chance);

    Upstream& to = out.settings;
    to.name = fmt::format("pool{}", number);
    to.timeouts = timeouts_for(chance, out.work);
    to.retry = retry_for(chance, out.work);
    to.circuit_breaker.max_retries = one_of(chance, {0U, 1U, 3U, 100U});
    to.queue.size = one_of(chance, {0U, 5U, 30U, 100U, 300U});
    to.queue.timeout = out.work * static_cast<int64_t>(chance.between(2, 100));
    to.queue.start_timeout = out.work * static_cast<int64_t>(chance.between(10, 200));
    to.queue.bytes = one_of<uint64_t>(chance, {0, 64 * KiB, 1 * MiB});
    to.queue.refuse_hopeless = chance.one_in(4);
    to.buffer.request = one_of<uint64_t>(chance, {16 * KiB, 64 * KiB, 256 * KiB});
    to.buffer.response = one_of<uint64_t>(chance, {16 * KiB, 64 * KiB, 256 * KiB});
    to.on_abandon =
        one_of(chance, {OnAbandon::drain, OnAbandon::drain, OnAbandon::close, OnAbandon::restart});
    to.abandon_grace = out.work * static_cast<int64_t>(chance.between(2, 40));
    to.abandon_limit = out.work * static_cast<int64_t>(chance.between(20, 200));
    to.pool.idle = chance.between(1ms, 2s);
    to.slow_start = chance.one_in(5) ? out.work * 50 : Duration{};
    if (chance.one_in(8)) to.circuit_breaker.max_connections = static_cast<uint32_t>(chance.between(1, 8));
    if (chance.one_in(8)) to.circuit_breaker.max_requests = static_cast<uint32_t>(chance.between(1, 8));
    if (chance.one_in(5)) to.circuit_breaker.max_requests_per_connection = 3;

    to.balance = balance_for(chance, out.work);

    const bool is_fleet = chance.one_in(6);
    uint32_t slots = is_fleet ? one_of(chance, {1U, 1U, 2U, 4U}) : one_of(chance, {1U, 1U, 2U, 4U, 16U, 64U});
    if (!has_device && chance.one_in(10)) slots = 0;  // nothing is limited
    to.concurrency = slots;
    auto count = static_cast<uint32_t>(is_fleet ? chance.between(1, 64) : chance.between(1, 4));
    if (out.spawned) to.workers.emplace().count = count;
    for (uint32_t i = 0; i < count; ++i) {
        BackendRules& rules = out.backends.emplace_back();
        rules.slots = slots;
        rules.spawned = out.spawned;
        rules.weight = static_cast<uint32_t>(chance.between(1, 3));
        rules.backup = i > 0 && chance.one_in(6);
        if (has_device && chance.one_in(2)) rules.device = DeviceId{0};
        if (!out.spawned) to.servers.emplace_back().concurrency = slots;
    }
    out.rules = rules_of(to);
    out.rules.balancing = one_of(
        chance, {Balancing::least_busy, Balancing::round_robin, Balancing::random_two, Balancing::first});
    out.rules.outlier = outliers_for(chance, out.work);
    return out;
}

}  // namespace

Plan::Plan(uint64_t seed) : chance(seed) {
    loops = static_cast<unsigned>(chance.between(1, 4));
    requests = static_cast<uint32_t>(one_of(chance, {200, 500, 1000}));
    tempo = one_of(chance, {2us, 20us, 200us});
    if (chance.one_in(4)) device_slots = static_cast<uint32_t>(chance.between(1, 8));

    uint64_t capacity = 0;
    auto count = chance.between(1, 3);
    for (unsigned i = 0; i < count; ++i) {
        pools.push_back(pool_plan(chance, i, device_slots > 0));
        PoolPlan& pool = pools.back();
        for (const BackendRules& b : pool.backends) {
            const uint64_t slots = b.device != DeviceId::none ? 1 : b.slots ? b.slots : 16;
            pool.capacity += slots * static_cast<uint64_t>(1s / pool.work);
        }
        capacity += pool.capacity;
    }
    double load = one_of(chance, {0.2, 0.4, 0.6, 0.8, 1.1, 4.0});
    clients.gap = Duration(
        static_cast<int64_t>(2e9 / (static_cast<double>(capacity) * load)));  // a connection asks twice or so
    clients.bursts = fault(chance, 100);
    clients.leave = fault(chance, 200);
    clients.slow_up = fault(chance, 120);
    clients.slow_down = fault(chance, 120);
    clients.broken = fault(chance, 20);
    clients.large = fault(chance, 60);
    clients.upgrades = fault(chance, 60);

    if (!chance.one_in(3)) clients.patience = pools[0].start;

    wire.latency = one_of<Duration>(chance, {5us, 100us, 2ms});
    wire.dial_lost = fault(chance, 10);
    wire.dial_refused = fault(chance, 20);
    wire.no_socket = fault(chance, 10);
    wakes.delay = one_of<Duration>(chance, {1us, 100us, 5ms});
    wakes.lost = fault(chance, 100);
    wakes.doubled = fault(chance, 200);
    if (!chance.one_in(3)) changes = chance.between(5ms, 500ms);
    set_changes = chance.one_in(2);
    if (chance.one_in(5)) drains_at = static_cast<uint32_t>(chance.between(requests / 2, requests));

    config.limits.memory = one_of<uint64_t>(chance, {1 * MiB, 8 * MiB, 64 * MiB, 64 * MiB, 64 * MiB});
    config.limits.body = one_of<uint64_t>(chance, {0, 100 * KiB, 1 * MiB});
    config.limits.client_body_timeout = chance.between(20ms, 2s);
    config.limits.client_write_timeout = chance.between(20ms, 2s);
    for (const PoolPlan& pool : pools) {
        config.upstreams.push_back(pool.settings);
        Route& route = config.routes.emplace_back();
        route.match.prefix = fmt::format("/{}/", pool.settings.name);
        route.upstream = pool.settings.name;
    }
}

size_t Plan::choose_pool(Chance& random) const {
    uint64_t all = 0;
    for (const PoolPlan& pool : pools) all += pool.capacity;
    if (random.one_in(10)) return random.below(pools.size());
    uint64_t at = random.below(all);
    size_t chosen = 0;
    while (at >= pools[chosen].capacity) at -= pools[chosen++].capacity;
    return chosen;
}

}  // namespace penstock::sim
