#include "config/describe.h"

#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>

namespace penstock {

namespace {

using Out = std::back_insert_iterator<std::string>;

// For people: 37.5MiB. Rounded up, because it says how much at most.
std::string roughly(uint64_t bytes) {
    constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    auto value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(units)) {
        value /= 1024;
        ++unit;
    }
    std::string text = fmt::format("{:.1f}", std::ceil(value * 10) / 10);
    if (text.ends_with(".0")) text.resize(text.size() - 2);
    return text + units[unit];
}

std::string or_none(Duration d) { return d == Duration::zero() ? "none" : format_duration(d); }

std::string counted(uint64_t count, std::string_view one) {
    return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

std::string described(const Listen& listen) {
    std::string_view protocols = listen.http1 && listen.http2 ? "http1, http2"
                                 : listen.http2               ? "http2"
                                                              : "http1";
    return fmt::format("{} ({}{})", listen.address.text, protocols, listen.tls ? ", TLS" : "");
}

std::string described(const Match& match) {
    std::string place = match.host;
    if (!match.path.empty())
        place += match.path;
    else if (!match.prefix.empty())
        place += fmt::format("{}*", match.prefix);
    else
        place += place.empty() ? "everything" : "/*";
    std::vector<std::string> conditions(match.methods);
    for (const auto& [name, value] : match.headers) conditions.push_back(fmt::format("{}: {}", name, value));
    return conditions.empty() ? place : fmt::format("{} ({})", place, fmt::join(conditions, ", "));
}

void describe_workers(const Workers& workers, Out out) {
    std::string command =
        workers.shell ? workers.command.back() : fmt::format("{}", fmt::join(workers.command, " "));
    fmt::format_to(out, "  workers   {} x {}\n", workers.count, command);
    if (!workers.directory.empty()) fmt::format_to(out, "            in {}\n", workers.directory);
    if (!workers.gpus.empty()) {
        fmt::format_to(out, "            on GPU {}, in turn\n", fmt::join(workers.gpus, ", "));
    }
    fmt::format_to(out, "            ready when {}, within {}; stopped within {}\n",
                   workers.ready.grpc           ? "grpc.health.v1 says that it serves"
                   : workers.ready.path.empty() ? "it accepts a connection"
                                                : fmt::format("GET {} answers 2xx", workers.ready.path),
                   format_duration(workers.ready.timeout), format_duration(workers.stop.grace));
    std::vector<std::string> limits;
    if (workers.recycle.requests > 0) limits.push_back(counted(workers.recycle.requests, "request"));
    if (workers.recycle.rss > 0)
        limits.push_back(fmt::format("{} of memory", format_size(workers.recycle.rss)));
    if (!limits.empty()) {
        fmt::format_to(out, "            replaced after {}, give or take {}\n", fmt::join(limits, " or "),
                       format_percent(workers.recycle.jitter));
    }
}

void describe_servers(const std::vector<Server>& servers, Out out) {
    std::string_view title = "servers";
    for (const Server& server : servers) {
        fmt::format_to(out, "  {:<9} {}, {}{}{}{}{}\n", title, server.address.text,
                       server.concurrency == 0 ? "any number of requests at a time"
                                               : counted(server.concurrency, "request") + " at a time",
                       server.weight == 1 ? "" : fmt::format(", weight {}", server.weight),
                       server.backup ? ", backup" : "",
                       server.max_connections == 0
                           ? ""
                           : fmt::format(", at most {}", counted(server.max_connections, "connection")),
                       server.resolve == Duration::zero()
                           ? ""
                           : fmt::format(", looked up every {}", format_duration(server.resolve)));
        title = "";
    }
}

uint32_t smaller_limit(uint32_t a, uint32_t b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

std::string described(const Balance& balance) {
    constexpr std::string_view names[] = {"least_busy", "round_robin", "random_two", "first"};
    const std::string_view policy = names[static_cast<size_t>(balance.policy)];
    std::string text;
    if (balance.sticky) text = fmt::format("sticky by cookie {}", balance.sticky->cookie);
    if (balance.hash) {
        constexpr std::string_view keys[] = {"client_ip", "path", "header", "cookie", "query"};
        text = fmt::format("hash of {}{}{}", keys[static_cast<size_t>(*balance.hash)],
                           balance.hash_name.empty() ? "" : " ", balance.hash_name);
        if (balance.factor) text += fmt::format(", at most {} % of a fair share", balance.factor);
    }
    if (text.empty()) return std::string(policy);
    text += balance.patience > Duration{}
                ? fmt::format(", waits {} for a busy home", format_duration(balance.patience))
                : ", goes elsewhere when it is busy";
    return fmt::format("{}; without home {}", text, policy);
}

void describe_slots(const Upstream& upstream, Out out) {
    uint64_t slots = 0;
    bool unlimited = false;
    if (upstream.workers) {
        slots += uint64_t{upstream.concurrency} * upstream.workers->count;
        unlimited = upstream.concurrency == 0;
    }
    for (const Server& server : upstream.servers) {
        const uint32_t most = smaller_limit(server.concurrency, server.max_connections);
        slots += most;
        unlimited = unlimited || most == 0;
    }
    if (unlimited) slots = 0;
    auto at_most = [&slots](uint32_t bound) {
        if (bound && (slots == 0 || bound < slots)) slots = bound;
    };
    at_most(upstream.circuit_breaker.max_requests);
    if (upstream.protocol == Protocol::http1) at_most(upstream.circuit_breaker.max_connections);
    if (slots == 0) return void(fmt::format_to(out, "  slots     not limited: requests never wait\n"));
    fmt::format_to(out, "  slots     {} at a time in all\n", counted(slots, "request"));
    if (upstream.queue_size() == 0) {
        fmt::format_to(out, "  queue     none: refused with {} when all are busy\n",
                       upstream.status.queue_full);
        return;
    }
    fmt::format_to(out, "  queue     {} or {}, then {}; {} at most, then {}\n",
                   counted(upstream.queue_size(), "request"), format_size(upstream.queue.bytes),
                   upstream.status.queue_full, or_none(upstream.queue.timeout),
                   upstream.status.queue_timeout);
}

std::string_view described(OnAbandon what) {
    switch (what) {
        case OnAbandon::drain: return "keeps its slot until the backend has ended it";
        case OnAbandon::close: return "is told by closing its connection";
        case OnAbandon::restart: return "keeps its slot; its worker is restarted";
    }
    return "";
}

void describe_upstream(const Upstream& upstream, Out out) {
    fmt::format_to(out, "\nupstream {}\n", upstream.name);
    if (upstream.workers) describe_workers(*upstream.workers, out);
    describe_servers(upstream.servers, out);
    if (upstream.balance != Balance{}) fmt::format_to(out, "  balance   {}\n", described(upstream.balance));
    describe_slots(upstream, out);
    if (const auto& check = upstream.health_check) {
        fmt::format_to(out, "  checked   every {}: {}; {} in a row that fail, and it gets nothing\n",
                       format_duration(check->interval),
                       check->grpc           ? "grpc.health.v1 says that it serves"
                       : check->path.empty() ? "it accepts a connection"
                                             : fmt::format("GET {} answers {}", check->path, check->expect),
                       check->unhealthy);
    }
    if (const auto& outlier = upstream.outlier_detection) {
        fmt::format_to(out, "  ejected   when it fails again and again: {} to {}, while {} other{} ready\n",
                       format_duration(outlier->base_ejection_time),
                       format_duration(outlier->max_ejection_time), outlier->min_healthy,
                       outlier->min_healthy == 1 ? " is" : "s are");
    }
    const Timeouts& t = upstream.timeouts;
    fmt::format_to(out,
                   "  timeouts  connect {}, first byte {}, idle {}, client stall {}, the whole request {}\n",
                   or_none(t.connect), or_none(t.first_byte), or_none(t.idle), or_none(t.client_stall),
                   or_none(t.request));
    fmt::format_to(out, "  abandoned work {}", described(upstream.on_abandon));
    if (upstream.on_abandon == OnAbandon::restart)
        fmt::format_to(out, " after {}", format_duration(upstream.abandon_grace));
    fmt::format_to(out, ", {}\n",
                   upstream.abandon_limit == Duration::zero()
                       ? std::string("however long that takes")
                       : fmt::format("at most {}", format_duration(upstream.abandon_limit)));
}

void describe_memory(const Config& config, const MemoryBound& bound, Out out) {
    fmt::format_to(out, "\nmemory    at most {}; {} while heads are small and answers are read\n",
                   roughly(bound.most()), roughly(bound.usual()));
    fmt::format_to(out, "  {:>9} of bodies (limits.memory)\n", roughly(bound.bodies));
    fmt::format_to(out, "  {:>9} for {} client connections with a request each (limits.connections)\n",
                   roughly(bound.connections), config.limits.connections);
    fmt::format_to(out, "  {:>9} for the process and its {}\n", roughly(bound.itself),
                   counted(config.threads, "loop"));
    if (bound.rate_limits > 0)
        fmt::format_to(out, "  {:>9} for the keys that rate limits remember (keys)\n",
                       roughly(bound.rate_limits));
    fmt::format_to(out,
                   "  {:>9} more if each client sends a head of {} (limits.header_bytes) and reads nothing\n",
                   roughly(bound.extremes), format_size(config.limits.header_bytes));
    if (bound.http2 > 0)
        fmt::format_to(out, "  {:>9} more if each speaks HTTP/2, with up to {} requests at once\n",
                       roughly(bound.http2), config.limits.max_concurrent_streams);
}

std::string described(const RateLimit& limit) {
    constexpr std::string_view keys[] = {"each client_ip", "each header:", "each cookie:",
                                         "each path:",     "each route",   "all requests together"};
    std::string text;
    if (limit.rate) {
        text = fmt::format("{}, {} at once after a rest", format_rate(*limit.rate), limit.burst);
        if (!limit.cost_header.empty()) text += fmt::format(", a request costs its {}", limit.cost_header);
        text += limit.delay == Duration::zero()
                    ? ", then 429"
                    : fmt::format(", then held back for {} at most, then 429", format_duration(limit.delay));
    }
    if (limit.concurrency > 0)
        text +=
            fmt::format("{}{} in flight", text.empty() ? "" : "; ", counted(limit.concurrency, "request"));
    return fmt::format("{}: {}; {}{}{}{}", limit.name, text, keys[static_cast<size_t>(limit.key)],
                       limit.key_name, limit.match == Match{} ? "" : ", of " + described(limit.match),
                       limit.dry_run ? " (dry run: nobody is refused)" : "");
}

void describe_rate_limits(const Config& config, Out out) {
    std::string_view title = "limits";
    for (const RateLimit& limit : config.rate_limits) {
        fmt::format_to(out, "{:<9} {}\n", title, described(limit));
        title = "";
    }
}

}  // namespace

std::string describe(const Config& config, const MemoryBound& bound, const std::vector<Problem>& warnings) {
    std::string text;
    Out out(text);
    std::string_view title = "listen";
    for (const Listen& listen : config.listen) {
        fmt::format_to(out, "{:<9} {}\n", title, described(listen));
        title = "";
    }
    fmt::format_to(out, "admin     {}\n", config.admin ? config.admin->text : "off");
    fmt::format_to(out, "threads   {}\n", config.threads);
    title = "routes";
    for (const Route& route : config.routes) {
        fmt::format_to(out, "{:<9} {} -> {}{}\n", title, described(route.match), route.upstream,
                       route.strip_prefix ? fmt::format(", without {}", route.match.prefix) : "");
        title = "";
    }
    describe_rate_limits(config, out);
    for (const Upstream& upstream : config.upstreams) describe_upstream(upstream, out);
    describe_memory(config, bound, out);
    if (warnings.empty()) return text;
    fmt::format_to(out, "\n{}\n", counted(warnings.size(), "warning"));
    for (const Problem& warning : warnings) fmt::format_to(out, "  {}\n", warning.text());
    return text;
}

}  // namespace penstock
