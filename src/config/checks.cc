#include "config/checks.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>

#include "config/path_template.h"
#include "policy/ticket.h"

namespace penstock {

namespace {

constexpr Duration most_delay = 1h;

class Checks {
  public:
    Checks(const Config& config, const Places& places) : config_(config), places_(places) {}

    Findings run() {
        listeners();
        upstreams();
        devices();
        routes();
        rate_limits();
        return std::move(out_);
    }

  private:
    static constexpr size_t most = 100;  // nobody reads more

    bool is_full() const { return out_.errors.size() >= most; }
    void error(std::string path, std::string message) {
        if (!is_full()) out_.errors.push_back(places_.problem(std::move(path), std::move(message)));
    }
    void warn(std::string path, std::string message) {
        if (out_.warnings.size() >= most) return;
        out_.warnings.push_back(places_.problem(std::move(path), std::move(message)));
    }

    void listeners();
    void upstreams();
    void upstream(const Upstream& upstream);
    void workers(const Upstream& upstream, const std::string& path);
    void servers(const Upstream& upstream, const std::string& path);
    void server_names(const Upstream& upstream, const std::string& path);
    void queue(const Upstream& upstream, const std::string& path);
    void timeouts(const Upstream& upstream, const std::string& path);
    void abandoned(const Upstream& upstream, const std::string& path);
    void devices();
    void routes();
    void route(const Route& route, const std::string& path);
    void rate_limits();
    void rate_limit(const RateLimit& limit, const std::set<std::string>& routed, const std::string& path);

    bool is_limited(const Upstream& upstream) const;

    const Config& config_;
    const Places& places_;
    Findings out_;
};

// A label of metrics and a word of answers, unescaped.
bool is_name(std::string_view text) {
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return !text.empty() && text.size() <= 64 && text.find_first_not_of(letters) == text.npos;
}

bool contains(const std::vector<std::string>& texts, std::string_view text) {
    return std::find(texts.begin(), texts.end(), text) != texts.end();
}

bool matches_all(const Match& match) {
    return match.host.empty() && match.path.empty() && (match.prefix.empty() || match.prefix == "/") &&
           match.methods.empty() && match.headers.empty();
}

void Checks::listeners() {
    if (config_.listen.empty())
        error("listen", "is empty; write an address, or leave it out for 127.0.0.1:8000");
    std::map<std::string, std::string> seen;  // address -> path
    auto add = [&](const Address& address, std::string path) {
        bool any_port = address.kind != Address::Kind::unix && address.port == 0;
        if (address.text.empty() || any_port) return;
        auto [first, is_new] = seen.emplace(address.text, path);
        if (is_new) return;
        error(std::move(path),
              fmt::format("{} is taken by {} already; give each its own", address.text, first->second));
    };
    for (size_t i = 0; i < config_.listen.size(); ++i)
        add(config_.listen[i].address, fmt::format("listen[{}]", i));
    if (config_.admin) add(*config_.admin, "admin");
}

bool Checks::is_limited(const Upstream& upstream) const {
    return upstream.has_slots() || config_.shares_device(upstream) ||
           upstream.circuit_breaker.max_connections > 0 || upstream.circuit_breaker.max_requests > 0;
}

void Checks::upstreams() {
    if (config_.upstreams.empty()) {
        error("upstreams",
              "is missing: nothing says where the traffic goes; write upstreams: {app: {servers: "
              "[127.0.0.1:9000]}}, or workers with a command");
    }
    if (config_.upstreams.size() > max_upstreams) {
        error("upstreams", fmt::format("{} upstreams; at most {}", config_.upstreams.size(), max_upstreams));
    }
    for (const Upstream& one : config_.upstreams) upstream(one);
}

void Checks::upstream(const Upstream& upstream) {
    std::string path = fmt::format("upstreams.{}", upstream.name);
    if (!is_name(upstream.name)) {
        error(path,
              fmt::format("\"{}\" is not a name; write 1 to 64 letters, digits, _, - or .", upstream.name));
    }
    size_t backends = (upstream.workers ? upstream.workers->count : 0) + upstream.servers.size();
    if (backends > max_backends) error(path, fmt::format("{} backends; at most {}", backends, max_backends));
    if (backends == 0) {
        error(path,
              "has neither workers nor servers; write workers: {command: ...}, or servers: "
              "[127.0.0.1:9000]");
    }
    if (upstream.workers) workers(upstream, path + ".workers");
    servers(upstream, path);
    server_names(upstream, path);
    queue(upstream, path);
    timeouts(upstream, path);
    abandoned(upstream, path);
}

void Checks::workers(const Upstream& upstream, const std::string& path) {
    const Workers& workers = *upstream.workers;
    if (workers.command.empty()) {
        return error(path + ".command",
                     "is missing; write the program to run: [uvicorn, \"app:app\", --uds, \"${SOCKET}\"]");
    }
    bool socket = workers.uses("${SOCKET}");
    bool port = workers.uses("${PORT}");
    if (socket && port) {
        error(path + ".command",
              "uses both ${SOCKET} and ${PORT}, but a worker listens in one place; keep one");
    }
    if (!socket && !port) {
        error(path + ".command",
              "has neither ${SOCKET} nor ${PORT}, so the worker would not know where to listen; add such as "
              "--uds ${SOCKET} or --port ${PORT}, or put one into environment");
    }
    if (workers.uses("${GPU}") && workers.gpus.empty()) {
        error(path + ".command", "uses ${GPU}, but there are no gpus; write gpus: [0]");
    }
    const Duration hung = workers.restart.hung_after, stall = upstream.timeouts.client_stall;
    if (hung > Duration::zero() && (stall == Duration::zero() || hung <= stall)) {
        error(
            path + ".restart.hung_after",
            fmt::format("{} is not longer than timeouts.client_stall ({}), so a worker that waits for a slow "
                        "client would be taken for hung; make it longer",
                        format_duration(hung), stall == Duration::zero() ? "none" : format_duration(stall)));
    }
}

void Checks::servers(const Upstream& upstream, const std::string& path) {
    std::map<std::string, size_t> seen;
    bool limited = false;
    for (size_t i = 0; i < upstream.servers.size(); ++i) {
        const Server& server = upstream.servers[i];
        std::string here = fmt::format("{}.servers[{}]", path, i);
        limited = limited || server.concurrency > 0 || server.max_connections > 0;
        if (server.address.text.empty()) continue;
        auto [first, is_new] = seen.emplace(server.address.text, i);
        if (!is_new) {
            error(here, fmt::format("{} is servers[{}] already; use weight to give it more",
                                    server.address.text, first->second));
        }
        if (server.address.kind != Address::Kind::unix && server.address.port == 0) {
            error(here, fmt::format("{} has port 0; give the port of the server", server.address.text));
        }
        if (server.max_connections > 0 && upstream.protocol == Protocol::http2) {
            error(here + ".max_connections",
                  "counts connections of HTTP/1, one a request; write concurrency, which counts requests");
        }
        if (server.resolve > Duration::zero() && server.address.kind != Address::Kind::name) {
            error(here + ".resolve",
                  fmt::format("{} is no host name; leave resolve out", server.address.text));
        }
    }
    if (upstream.circuit_breaker.max_connections > 0 && upstream.protocol == Protocol::http2) {
        warn(path + ".circuit_breaker.max_connections",
             "has no effect with protocol http2, where a connection carries many requests; write "
             "max_requests");
    }
    bool unlimited = std::any_of(upstream.servers.begin(), upstream.servers.end(), [](const Server& server) {
        return server.concurrency + server.max_connections == 0;
    });
    if (unlimited && (limited || (upstream.workers && upstream.concurrency > 0))) {
        warn(path + ".servers",
             "some have no concurrency beside backends that have: they take all that "
             "would wait, so nothing ever queues; give each a concurrency");
    }
    if (upstream.tls && upstream.servers.empty()) {
        error(path + ".tls",
              "is for servers, and there are none: workers are reached without it; leave it out");
    }
}

void Checks::server_names(const Upstream& upstream, const std::string& path) {
    if (!upstream.tls || !upstream.tls->verify || !upstream.tls->server_name.empty()) return;
    for (size_t i = 0; i < upstream.servers.size(); ++i) {
        if (upstream.servers[i].address.kind != Address::Kind::unix) continue;
        error(path + ".tls",
              fmt::format("lacks server_name: servers[{}] is a unix socket, which says nothing of "
                          "whose certificate is right; give the name that it is for",
                          i));
        return;
    }
}

void Checks::queue(const Upstream& upstream, const std::string& path) {
    const Queue& queue = upstream.queue;
    std::string here = path + ".queue";
    if (!is_limited(upstream)) {
        if (places_.has(here)) {
            warn(here,
                 "has no effect, because nothing limits how many requests run; write concurrency: 1, or "
                 "more");
        }
        std::string breaker = path + ".circuit_breaker.max_pending_requests";
        if (upstream.circuit_breaker.max_pending_requests > 0 && places_.has(breaker)) {
            warn(breaker,
                 "has no effect, because nothing limits how many requests run, so none waits; write "
                 "concurrency: 1, or more, or max_requests beside it");
        }
        return;
    }
    uint32_t pending = upstream.circuit_breaker.max_pending_requests;
    if (pending > 0 && pending < queue.size && places_.has(here + ".size")) {
        warn(path + ".circuit_breaker.max_pending_requests",
             fmt::format("{} is less than queue.size {}; the smaller one counts", pending, queue.size));
    }
    uint64_t size = upstream.queue_size();
    uint64_t each = config_.limits.body == 0 ? upstream.buffer.request
                                             : std::min(upstream.buffer.request, config_.limits.body);
    if (size > 0 && queue.bytes > 0 && queue.bytes < each) {
        warn(here + ".bytes",
             fmt::format("{} is less than one request of buffer.request {}, which is then refused as "
                         "queue_full",
                         format_size(queue.bytes), format_size(each)));
    }
    uint64_t waiting = each > 0 && size > UINT64_MAX / each ? UINT64_MAX : size * each;
    if (queue.bytes > 0) waiting = std::min(waiting, queue.bytes);
    if (waiting > config_.limits.memory) {
        warn(here,
             fmt::format(
                 "up to {} of bodies may wait, but limits.memory is {}: what does not fit is refused as "
                 "memory_full; lower size, bytes or buffer.request, or raise limits.memory",
                 format_size(waiting), format_size(config_.limits.memory)));
    }
}

void Checks::timeouts(const Upstream& upstream, const std::string& path) {
    Duration request = upstream.timeouts.request;
    Duration per_try = upstream.retry.per_try_timeout;
    if (request == Duration::zero()) return;
    if (per_try > request) {
        warn(path + ".retry.per_try_timeout",
             fmt::format("{} is longer than timeouts.request {}, which ends it first",
                         format_duration(per_try), format_duration(request)));
    }
    if (request < upstream.queue.timeout && places_.has(path + ".queue.timeout")) {
        warn(path + ".queue.timeout",
             fmt::format("{} is longer than timeouts.request {}, which ends the wait first with "
                         "status.request_timeout",
                         format_duration(upstream.queue.timeout), format_duration(request)));
    }
}

void Checks::abandoned(const Upstream& upstream, const std::string& path) {
    if (upstream.on_abandon == OnAbandon::restart && !upstream.workers) {
        error(path + ".on_abandon",
              "restart needs workers, and these servers are somebody else's; write drain or close");
    }
    if (upstream.abandon_limit > Duration::zero() && upstream.abandon_grace > upstream.abandon_limit) {
        warn(path + ".abandon_grace",
             fmt::format("{} is longer than abandon_limit {}, which ends it first",
                         format_duration(upstream.abandon_grace), format_duration(upstream.abandon_limit)));
    }
}

void Checks::devices() {
    std::map<std::string, size_t> seen;
    for (size_t i = 0; i < config_.devices.size(); ++i) {
        const Device& device = config_.devices[i];
        std::string path = fmt::format("devices[{}]", i);
        if (device.gpu.empty()) continue;
        auto [first, is_new] = seen.emplace(device.gpu, i);
        if (!is_new)
            error(path, fmt::format("gpu {} is devices[{}] already; keep one", device.gpu, first->second));
        Config only_it;
        only_it.devices.push_back(device);
        bool used = std::any_of(config_.upstreams.begin(), config_.upstreams.end(),
                                [&](const Upstream& upstream) { return only_it.shares_device(upstream); });
        if (!used) {
            warn(path,
                 fmt::format("no workers have gpu {} among their gpus, so it limits nothing", device.gpu));
        }
    }
}

void Checks::routes() {
    if (config_.upstreams.empty()) return;
    if (config_.routes.empty()) {
        return error("routes",
                     fmt::format("is missing, and there are {} upstreams; write which requests go to which: "
                                 "routes: [{{prefix: /, upstream: {}}}]",
                                 config_.upstreams.size(), config_.upstreams[0].name));
    }
    bool all_taken = false;
    std::set<std::string, std::less<>> reached;
    bool by_name = false;
    for (size_t i = 0; i < config_.routes.size(); ++i) {
        const Route& one = config_.routes[i];
        std::string path = fmt::format("routes[{}]", i);
        if (all_taken) {
            warn(path, "is never reached, because the one before it takes everything; move it up");
            break;
        }
        all_taken = matches_all(one.match);
        by_name = by_name || one.upstream.find('{') != one.upstream.npos;
        reached.insert(one.upstream);
        route(one, path);
    }
    for (const Upstream& upstream : config_.upstreams) {
        if (by_name || reached.count(upstream.name)) continue;
        warn("upstreams." + upstream.name, "no route leads to it");
    }
}

void Checks::route(const Route& route, const std::string& path) {
    std::string here = path + ".upstream";
    auto names = template_names(route.upstream);
    if (!names) return error(here, names.error().message);
    auto known = template_names(route.match.path);
    for (const std::string& name : *names) {
        if (known && !contains(*known, name)) {
            error(here, fmt::format("{{{}}} is not in path; write a path that has it, such as /models/{{{}}}",
                                    name, name));
        }
    }
    if (!names->empty() || route.upstream.empty() || config_.upstream(route.upstream)) return;
    if (is_full()) return;
    std::vector<std::string_view> upstreams;
    for (const Upstream& upstream : config_.upstreams) upstreams.emplace_back(upstream.name);
    std::string_view near = nearest_name(route.upstream, upstreams);
    std::string_view some = upstreams.size() == 1 ? upstreams[0] : "the name of one of upstreams";
    error(here, near.empty()
                    ? fmt::format("there is no upstream {}; write {}", route.upstream, some)
                    : fmt::format("there is no upstream {}; did you mean {}?", route.upstream, near));
}

void Checks::rate_limits() {
    if (config_.rate_limits.size() > max_rate_limits) {
        error("rate_limits",
              fmt::format("{} limits; at most {}", config_.rate_limits.size(), max_rate_limits));
    }
    std::set<std::string> names;  // of all routes
    for (const Route& route : config_.routes) {
        if (auto found = template_names(route.match.path)) names.insert(found->begin(), found->end());
    }
    std::map<std::string, size_t> seen;
    for (size_t i = 0; i < config_.rate_limits.size(); ++i) {
        const RateLimit& limit = config_.rate_limits[i];
        std::string path = fmt::format("rate_limits[{}]", i);
        rate_limit(limit, names, path);
        if (limit.name.empty()) continue;
        auto [first, is_new] = seen.emplace(limit.name, i);
        if (!is_new) {
            error(path + ".name", fmt::format("{} is rate_limits[{}] already; give each its own name",
                                              limit.name, first->second));
        }
    }
}

void Checks::rate_limit(const RateLimit& limit, const std::set<std::string>& routed,
                        const std::string& path) {
    if (!limit.name.empty() && !is_name(limit.name)) {
        error(path + ".name",
              fmt::format("\"{}\" is not a name; write 1 to 64 letters, digits, _, - or .", limit.name));
    }
    if (limit.key == LimitKey::path && !routed.count(limit.key_name)) {
        auto own = template_names(limit.match.path);
        if (!own || !contains(*own, limit.key_name)) {
            error(path + ".key",
                  fmt::format("no route has {{{}}} in its path; write one that has", limit.key_name));
        }
    }
    if (limit.key != LimitKey::client_ip && places_.has(path + ".ipv6_prefix")) {
        error(path + ".ipv6_prefix", "is for key: client_ip; leave it out");
    }
    if (limit.delay > Duration::zero() && limit.delay > most_delay) {
        error(path + ".delay", fmt::format("{} is longer than anybody waits; at most {}",
                                           format_duration(limit.delay), format_duration(most_delay)));
    }
}

}  // namespace

Findings check(const Config& config, const Places& places) { return Checks(config, places).run(); }

}  // namespace penstock
