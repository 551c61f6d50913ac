// What the fleet says of itself: for /status and /metrics.
#include <algorithm>
#include <fmt/format.h>

#include "app/fleet.h"

namespace penstock {

namespace {

std::optional<Duration> left(Time until, Time now) {
    if (until == never) return std::nullopt;
    return std::max(until - now, Duration{});
}

// Why it takes no request now; empty: it does.
std::string why(const BackendView& b) {
    switch (b.unfit) {
        case Unfit::resting: return fmt::format("ejected: {}", to_string(b.ejected_for));
        case Unfit::restarting: return fmt::format("to be restarted: {}", to_string(b.restart_why));
        case Unfit::fit:
            return b.state == BackendState::resting ? "has rested: the next request probes it" : "";
        default: return std::string(to_string(b.unfit));
    }
}

EjectionStatus ejections_of(const BackendView& b) {
    EjectionStatus out;
    out.in_row = b.ejected_in_row;
    out.kept_by_min_healthy = b.kept_by_min_healthy;
    out.kept_by_percent = b.kept_by_percent;
    for (size_t i = 0; i < eject_reasons; ++i)
        out.by_reason.emplace_back(to_string(static_cast<EjectReason>(i)), b.ejections[i]);
    return out;
}

// One that comes back while it still drains is there twice, and shown once.
void show(std::vector<BackendStatus>& backends, BackendStatus&& one, bool leaving) {
    auto known = std::ranges::find(backends, one.name, &BackendStatus::name);
    if (known == backends.end()) return backends.push_back(std::move(one));
    BackendStatus& older = *known;
    one.in_flight = older.in_flight += one.in_flight;
    one.connections = older.connections += one.connections;
    if (!leaving) older = std::move(one);
}

}  // namespace

void Fleet::describe(Status& status, Time now) {
    ParkView view;
    park_.describe(view, now);
    for (const UpstreamView& from : view.upstreams) {
        LiveUpstream* known = find(from.id);
        if (!known) continue;
        LiveUpstream& upstream = *known;
        UpstreamStatus& to = status.upstreams.emplace_back();
        to.name = upstream.name();
        to.serving = to_string(from.serving);
        to.queue = {from.depth, from.queue_size, from.bytes};
        to.abandoned = from.abandoned;
        for (const CircuitView& c : from.circuits) {
            const Time since = c.breaker.since();
            to.circuits.push_back({std::string(to_string(c.limit)), c.bound, c.now, c.breaker.is_open(),
                                   since == Time{} ? Duration{} : now - since, c.breaker.refused(),
                                   c.breaker.opened(), c.breaker.closed()});
        }
        for (const BackendView& b : from.backends) {
            const Backend& backend = upstream.backend(b.id);
            BackendStatus out;
            out.name = backend.name();
            out.address = backend.address_text();
            out.state = to_string(b.state);
            out.why = why(b);
            out.generation = b.generation;
            out.slots = b.slots;
            out.weight = b.weight;
            out.backup = b.backup;
            out.in_flight = b.used;
            out.connections = b.dialing + b.busy + b.idle + b.closing;
            out.since = now - b.since;
            out.until = left(b.until, now);
            if (upstream.settings.outlier_detection) out.ejections = ejections_of(b);
            health_.describe(b.id, out, now);
            if (b.unfit == Unfit::unhealthy && out.health) out.why += ": " + out.health->last;
            show(to.backends, std::move(out), backend.leaving);
        }
    }
    describe_workers(status, now);
    discovery_.describe(status);
}

void Fleet::describe_workers(Status& status, Time now) {
    for (const WorkerView& from : supervisor_.view()) {
        auto at = std::ranges::find_if(status.upstreams,
                                       [&](const UpstreamStatus& u) { return u.name == from.upstream; });
        if (at == status.upstreams.end()) continue;
        WorkerStatus& to = at->workers.emplace_back();
        to.name = from.name;
        to.index = from.index;
        to.pid = from.pid;
        to.state = to_string(from.state);
        to.generation = from.generation;
        to.restarts = from.starts > 0 ? static_cast<uint32_t>(from.starts - 1) : 0;
        to.rss_bytes = from.rss_bytes;
        to.since = now - from.since;
        to.until = left(from.until, now);
        to.why = from.why;
        at->worker_starts += from.starts;
        for (size_t i = 0; i < worker_exits; ++i) {
            if (from.exits[i] == 0) continue;
            std::string_view reason = to_string(static_cast<WorkerExit>(i));
            auto known = std::ranges::find_if(at->worker_exits,
                                              [&](const ExitCount& e) { return e.reason == reason; });
            if (known == at->worker_exits.end())
                at->worker_exits.push_back({std::string(reason), from.exits[i]});
            else
                known->count += from.exits[i];
        }
    }
}

}  // namespace penstock
