#include "app/status.h"

#include <algorithm>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace penstock {

namespace {

using Json = nlohmann::ordered_json;

Json json_of(const std::optional<Duration>& time) { return time ? Json(seconds(*time)) : Json(nullptr); }

Json json_of(const CountsByName& counts) {
    Json out = Json::object();
    for (auto& [name, count] : counts)
        if (count > 0) out[name] = count;
    return out;
}

Json json_of(const EjectionStatus& e) {
    uint64_t total = 0;
    for (auto& [reason, count] : e.by_reason) total += count;
    return {
        {"total", total},
        {"in_row", e.in_row},
        {"by_reason", json_of(e.by_reason)},
        {"kept_by", {{"min_healthy", e.kept_by_min_healthy}, {"max_ejection_percent", e.kept_by_percent}}}};
}

Json json_of(const HealthStatus& h) {
    return {{"healthy", h.healthy},
            {"last", h.last},
            {"seconds_ago", json_of(h.ago)},
            {"checks", json_of(h.by_result)}};
}

Json json_of(const BackendStatus& b) {
    Json json = {{"name", b.name},
                 {"address", b.address},
                 {"state", b.state},
                 {"why", b.why},
                 {"since_seconds", seconds(b.since)},
                 {"until_seconds", json_of(b.until)},
                 {"generation", b.generation},
                 {"slots", b.slots},
                 {"weight", b.weight},
                 {"backup", b.backup},
                 {"in_flight", b.in_flight},
                 {"connections", b.connections}};
    if (b.ejections) json["ejections"] = json_of(*b.ejections);
    if (b.health) json["health"] = json_of(*b.health);
    return json;
}

Json json_of(const WorkerStatus& w) {
    return {{"name", w.name},
            {"index", w.index},
            {"pid", w.pid},
            {"state", w.state},
            {"generation", w.generation},
            {"restarts", w.restarts},
            {"rss_bytes", w.rss_bytes},
            {"since_seconds", seconds(w.since)},
            {"until_seconds", json_of(w.until)},
            {"why", w.why}};
}

Json json_of(const NameStatus& n) {
    return {{"name", n.name},
            {"addresses", n.addresses},
            {"found", n.found},
            {"failed", n.failed},
            {"failure", n.failure}};
}

Json json_of(const CircuitStatus& c) {
    return {{"limit", c.bound},     {"now", c.now},
            {"open", c.is_open},    {"for_seconds", seconds(c.for_so_long)},
            {"refused", c.refused}, {"opened", c.opened},
            {"closed", c.closed}};
}

Json json_of(const UpstreamStatus& u) {
    Json backends = Json::array(), workers = Json::array(), exits = Json::object(), circuits = Json::object();
    for (auto& circuit : u.circuits) circuits[circuit.limit] = json_of(circuit);
    for (auto& backend : u.backends) backends.push_back(json_of(backend));
    for (auto& worker : u.workers) workers.push_back(json_of(worker));
    for (auto& exit : u.worker_exits) exits[exit.reason] = exit.count;
    Json queue = {{"depth", u.queue.depth}, {"size", u.queue.size}, {"bytes", u.queue.bytes}};
    Json result = {{"serving", u.serving},        {"queue", queue},       {"abandoned", u.abandoned},
                   {"circuit_breaker", circuits}, {"backends", backends}, {"workers", workers}};
    for (auto& name : u.names) result["names"].push_back(json_of(name));
    if (!u.workers.empty()) {
        result["worker_starts"] = u.worker_starts;
        result["worker_exits"] = exits;
    }
    return result;
}

Json json_of(const RateLimitStatus& l) {
    return {{"name", l.name},           {"dry_run", l.dry_run},     {"keys", l.keys},
            {"most_keys", l.most_keys}, {"in_flight", l.in_flight}, {"passed", l.passed},
            {"held", l.held},           {"refused", l.refused},     {"forgiven", l.forgiven}};
}

// Columns as wide as their widest cell; two spaces between; nothing behind the last.
class Table {
  public:
    explicit Table(std::vector<std::string> titles) { rows_.push_back(std::move(titles)); }
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    std::string text() const {
        if (rows_.size() == 1) return "";
        std::string out;
        for (auto& row : rows_) {
            std::string line = "  ";
            for (size_t column = 0; column < row.size(); ++column)
                line += fmt::format("{:<{}}", row[column], width(column) + 2);
            line.erase(line.find_last_not_of(' ') + 1);
            out += line + '\n';
        }
        return out;
    }

  private:
    size_t width(size_t column) const {
        size_t widest = 0;
        for (auto& row : rows_) widest = std::max(widest, row[column].size());
        return widest;
    }
    std::vector<std::vector<std::string>> rows_;
};

std::string number(const Json& from, const char* name) {
    return fmt::format("{}", from.value(name, uint64_t{0}));
}
std::string size_text(const Json& from, const char* name) {
    uint64_t bytes = from.value(name, uint64_t{0});
    if (bytes < 10 * KiB) return fmt::format("{} B", bytes);
    if (bytes < 10 * MiB) return fmt::format("{} KiB", bytes / KiB);
    return fmt::format("{} MiB", bytes / MiB);
}

// "4s", "17m", "3h": roughly, for people.
std::string roughly(double seconds) {
    if (seconds < 10) return fmt::format("{:.1f}s", seconds);
    if (seconds < 600) return fmt::format("{:.0f}s", seconds);
    if (seconds < 36000) return fmt::format("{:.0f}m", seconds / 60);
    return fmt::format("{:.0f}h", seconds / 3600);
}

std::string time_text(const Json& from, const char* name) {
    return from.contains(name) && from[name].is_number() ? roughly(from[name].get<double>()) : "";
}

std::string with(const std::string& text, const std::string& more) {
    return text.empty() || more.empty() ? text + more : text + ", " + more;
}

// Why it takes no request, for how long still; its ejections; what its last check found, where that was not
// good.
std::string remarks(const Json& b) {
    std::string text = b.value("why", "");
    if (std::string left = time_text(b, "until_seconds"); !left.empty() && !text.empty())
        text = with(text, left + " left");
    if (b.contains("ejections"))
        if (uint64_t total = b["ejections"].value("total", uint64_t{0}))
            text = with(text, fmt::format("{} ejection{}", total, total == 1 ? "" : "s"));
    if (b.contains("health") && !b["health"].value("last", "").empty())
        text = with(text, b["health"].value("last", ""));
    if (uint64_t weight = b.value("weight", uint64_t{1}); weight != 1)
        text = with(text, fmt::format("weight {}", weight));
    if (b.value("backup", false) && b.value("why", "") != "backup") text = with(text, "backup");
    return text;
}

std::string backends_for_people(const Json& backends) {
    Table table(
        {"backend", "state", "for", "in flight", "slots", "connections", "generation", "address", ""});
    for (auto& b : backends) {
        uint64_t slots = b.value("slots", uint64_t{0});
        table.add({b.value("name", ""), b.value("state", ""), time_text(b, "since_seconds"),
                   number(b, "in_flight"), slots ? fmt::format("{}", slots) : "no limit",
                   number(b, "connections"), number(b, "generation"), b.value("address", ""), remarks(b)});
    }
    return table.text();
}

std::string workers_for_people(const Json& workers) {
    Table table({"worker", "state", "for", "pid", "generation", "restarts", "memory", ""});
    for (auto& w : workers) {
        auto pid = w.value("pid", int64_t{0});
        std::string next = time_text(w, "until_seconds");
        table.add({w.value("name", ""), w.value("state", ""), time_text(w, "since_seconds"),
                   pid ? fmt::format("{}", pid) : "-", number(w, "generation"), number(w, "restarts"),
                   size_text(w, "rss_bytes"),
                   with(w.value("why", ""), next.empty() ? next : "starts in " + next)});
    }
    return table.text();
}

std::string rate_limits_for_people(const Json& limits) {
    Table table({"rate limit", "keys", "in flight", "passed", "held back", "refused", ""});
    for (auto& l : limits)
        table.add({l.value("name", ""), number(l, "keys"), number(l, "in_flight"), number(l, "passed"),
                   number(l, "held"), number(l, "refused"), l.value("dry_run", false) ? "dry run" : ""});
    std::string text = table.text();
    return text.empty() ? text : "\n" + text;
}

std::string circuits_for_people(const Json& circuits) {
    Table table({"circuit breaker", "state", "now", "limit", "refused"});
    for (auto& [name, c] : circuits.items()) {
        uint64_t bound = c.value("limit", uint64_t{0});
        table.add({name, c.value("open", false) ? "open" : "closed", number(c, "now"),
                   bound ? fmt::format("{}", bound) : "-", number(c, "refused")});
    }
    return table.text();
}

std::string upstream_for_people(const std::string& name, const Json& u) {
    const Json queue = u.value("queue", Json::object());
    std::string out = fmt::format("\nupstream {}: {}, {} of {} queued ({})", name, u.value("serving", "?"),
                                  number(queue, "depth"), number(queue, "size"), size_text(queue, "bytes"));
    if (uint64_t abandoned = u.value("abandoned", uint64_t{0}))
        out += fmt::format(", {} abandoned", abandoned);
    out += '\n';
    out += circuits_for_people(u.value("circuit_breaker", Json::object()));
    out += backends_for_people(u.value("backends", Json::array()));
    out += workers_for_people(u.value("workers", Json::array()));
    return out;
}

std::string for_people(const Json& json) {
    const Json memory = json.value("memory", Json::object());
    std::string listeners;
    for (auto& address : json.value("listeners", Json::array()))
        listeners += (listeners.empty() ? "" : ", ") + address.get<std::string>();
    auto up = std::chrono::seconds(static_cast<int64_t>(json.value("up_seconds", 0.0)));
    std::string out = fmt::format(
        "penstock {}: {}, up {}, {} loops, listening on {}\nbodies in memory: {} of {}\n",
        json.value("version", "?"), json.value("state", "?"), format_duration(up), number(json, "loops"),
        listeners, size_text(memory, "reserved"), size_text(memory, "limit"));
    const Json upstreams = json.value("upstreams", Json::object());
    for (auto& [name, upstream] : upstreams.items()) out += upstream_for_people(name, upstream);
    out += rate_limits_for_people(json.value("rate_limits", Json::array()));
    return out;
}

}  // namespace

bool Status::is_ready() const {
    if (state != "ready") return false;
    return upstreams.empty() ||
           std::any_of(upstreams.begin(), upstreams.end(), [](auto& u) { return u.serving == "serving"; });
}

std::string status_json(const Status& status) {
    Json upstreams = Json::object();
    for (auto& upstream : status.upstreams) upstreams[upstream.name] = json_of(upstream);
    Json limits = Json::array();
    for (auto& limit : status.rate_limits) limits.push_back(json_of(limit));
    Json json = {
        {"version", status.version},
        {"state", status.state},
        {"ready", status.is_ready()},
        {"up_seconds", seconds(status.up)},
        {"listeners", status.listeners},
        {"admin", status.admin},
        {"loops", status.loops},
        {"upstreams", upstreams},
        {"rate_limits", limits},
        {"memory", {{"reserved", status.memory_reserved}, {"limit", status.memory_limit}}},
        {"log_lines_dropped", {{"access", status.access_log_dropped}, {"stderr", status.log_dropped}}}};
    // A worker's name or path may hold any bytes; a reader of JSON should not stumble over them.
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string status_for_people(std::string_view text) {
    Json json = Json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("upstreams")) return "";
    try {
        return for_people(json);
    } catch (const Json::exception&) {  // a field of another type: no status of ours
        return "";
    }
}

}  // namespace penstock
