#include "app/metrics.h"

#include <initializer_list>
#include <map>
#include <prometheus/text_serializer.h>
#include <string>
#include <utility>

#include "app/process_facts.h"

namespace penstock {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::initializer_list<std::pair<const char*, std::string_view>>;

constexpr std::string_view worker_state_names[] = {"starting", "ready", "draining",
                                                   "stopping", "down",  "stopped"};
constexpr std::string_view backend_states[] = {"starting", "ready", "suspect", "resting", "draining", "down"};

MetricType type_of(SeriesKind kind) {
    switch (kind) {
        case SeriesKind::counter: return MetricType::Counter;
        case SeriesKind::gauge: return MetricType::Gauge;
        case SeriesKind::histogram: return MetricType::Histogram;
    }
    return MetricType::Untyped;
}

class Families {
  public:
    MetricFamily& family(MetricType type, std::string_view name, std::string_view help) {
        auto known = by_name_.find(name);
        if (known != by_name_.end()) return all_[known->second];
        by_name_.emplace(name, all_.size());
        MetricFamily& made = all_.emplace_back();
        made.type = type;
        made.name = name;
        made.help = help;
        return made;
    }
    void gauge(std::string_view name, std::string_view help, Labels labels, double value) {
        add(MetricType::Gauge, name, help, labels).gauge.value = value;
    }
    void counter(std::string_view name, std::string_view help, Labels labels, double value) {
        add(MetricType::Counter, name, help, labels).counter.value = value;
    }
    std::vector<MetricFamily> take() {
        // A family without series would show as a name without a value.
        std::erase_if(all_, [](const MetricFamily& family) { return family.metric.empty(); });
        return std::move(all_);
    }

  private:
    ClientMetric& add(MetricType type, std::string_view name, std::string_view help, Labels labels) {
        ClientMetric& metric = family(type, name, help).metric.emplace_back();
        for (auto& [label, value] : labels) metric.label.push_back({label, std::string(value)});
        return metric;
    }

    std::vector<MetricFamily> all_;
    std::map<std::string, size_t, std::less<>> by_name_;
};

// The exposition wants each bucket to hold all that are not longer; the last one, without bound, is all.
void fill_histogram(ClientMetric::Histogram& to, const SeriesBook::Reading& from, double unit) {
    uint64_t so_far = 0;
    for (uint32_t i = 0; i < histogram_buckets; ++i) {
        so_far += from.buckets[i];
        double bound = i < histogram_bounds.size() ? static_cast<double>(histogram_bounds[i].count()) * unit
                                                   : std::numeric_limits<double>::infinity();
        to.bucket.push_back({so_far, bound});
    }
    to.sample_count = so_far;
    to.sample_sum = from.sum;
}

void add_counted(Families& out, const SeriesBook& book) {
    for (auto& [family, series] : book.read()) {
        MetricFamily& to = out.family(type_of(family->kind), family->name, family->help);
        to.metric.reserve(series.size());
        for (auto& reading : series) {
            ClientMetric& metric = to.metric.emplace_back();
            for (size_t i = 0; i < family->labels.size(); ++i)
                metric.label.push_back({family->labels[i], reading.labels[i]});
            if (family->kind == SeriesKind::counter) metric.counter.value = reading.value;
            if (family->kind == SeriesKind::gauge) metric.gauge.value = reading.value;
            if (family->kind == SeriesKind::histogram)
                fill_histogram(metric.histogram, reading, family->unit);
        }
    }
    out.counter("penstock_series_refused_total",
                "Label sets that are not counted because there are too many.", {},
                static_cast<double>(book.refused_series()));
}

void add_ejections(Families& out, const UpstreamStatus& upstream, const BackendStatus& backend) {
    for (auto& [reason, count] : backend.ejections->by_reason)
        out.counter("penstock_ejections_total", "How often a backend was left out for its failures.",
                    {{"upstream", upstream.name}, {"backend", backend.name}, {"reason", reason}},
                    static_cast<double>(count));
    for (auto [limit, count] : {std::pair{"min_healthy", backend.ejections->kept_by_min_healthy},
                                std::pair{"max_ejection_percent", backend.ejections->kept_by_percent}})
        out.counter("penstock_ejections_prevented_total",
                    "How often a backend should have been ejected, and a limit forbade it.",
                    {{"upstream", upstream.name}, {"backend", backend.name}, {"limit", limit}},
                    static_cast<double>(count));
}

void add_backends(Families& out, const UpstreamStatus& upstream) {
    for (const BackendStatus& backend : upstream.backends) {
        if (!backend.counted_by_loops)
            out.gauge("penstock_in_flight", "Requests that a backend is at work on, abandoned ones included.",
                      {{"upstream", upstream.name}, {"backend", backend.name}}, backend.in_flight);
        out.gauge("penstock_slots", "Requests that a backend may be at work on at once; 0: no limit.",
                  {{"upstream", upstream.name}, {"backend", backend.name}}, backend.slots);
        for (std::string_view state : backend_states)
            out.gauge("penstock_backend_state", "1 for the state that the backend is in.",
                      {{"upstream", upstream.name}, {"backend", backend.name}, {"state", state}},
                      backend.state == state);
        if (backend.ejections) add_ejections(out, upstream, backend);
        if (!backend.health) continue;
        for (auto& [result, count] : backend.health->by_result)
            out.counter("penstock_health_checks_total", "Health checks, by what they found.",
                        {{"upstream", upstream.name}, {"backend", backend.name}, {"result", result}},
                        static_cast<double>(count));
    }
}

void add_names(Families& out, const UpstreamStatus& upstream) {
    for (const NameStatus& name : upstream.names) {
        out.gauge("penstock_resolved_addresses", "Addresses that a server's name has.",
                  {{"upstream", upstream.name}, {"name", name.name}},
                  static_cast<double>(name.addresses.size()));
        constexpr std::string_view help = "Look-ups of a server's name.";
        out.counter("penstock_resolutions_total", help,
                    {{"upstream", upstream.name}, {"name", name.name}, {"result", "found"}},
                    static_cast<double>(name.found));
        out.counter("penstock_resolutions_total", help,
                    {{"upstream", upstream.name}, {"name", name.name}, {"result", "failed"}},
                    static_cast<double>(name.failed));
    }
}

void add_circuits(Families& out, const UpstreamStatus& upstream) {
    for (const CircuitStatus& circuit : upstream.circuits) {
        Labels labels = {{"upstream", upstream.name}, {"limit", circuit.limit}};
        out.counter("penstock_circuit_open_total",
                    "Requests, or retries, refused by a limit of the circuit breaker.", labels,
                    static_cast<double>(circuit.refused));
        out.gauge("penstock_circuit_state", "1 while a limit of the circuit breaker refuses.", labels,
                  circuit.is_open);
        for (bool open : {true, false})
            out.counter(
                "penstock_circuit_changes_total", "Times that a limit began to refuse, and was met no more.",
                {{"upstream", upstream.name}, {"limit", circuit.limit}, {"to", open ? "open" : "closed"}},
                static_cast<double>(open ? circuit.opened : circuit.closed));
    }
}

void add_workers(Families& out, const UpstreamStatus& upstream) {
    if (upstream.workers.empty()) return;
    for (const WorkerStatus& worker : upstream.workers) {
        for (std::string_view state : worker_state_names)
            out.gauge("penstock_worker_state", "1 for the state that the worker is in.",
                      {{"upstream", upstream.name}, {"worker", worker.name}, {"state", state}},
                      worker.state == state);
        out.gauge("penstock_worker_rss_bytes", "Memory of the worker and its children.",
                  {{"upstream", upstream.name}, {"worker", worker.name}},
                  static_cast<double>(worker.rss_bytes));
    }
    out.counter("penstock_worker_starts_total", "Worker processes started.", {{"upstream", upstream.name}},
                static_cast<double>(upstream.worker_starts));
    for (const ExitCount& exit : upstream.worker_exits)
        out.counter("penstock_worker_exits_total", "Worker processes that ended, by why.",
                    {{"upstream", upstream.name}, {"reason", exit.reason}}, static_cast<double>(exit.count));
}

void add_rate_limits(Families& out, const Status& status) {
    for (const RateLimitStatus& limit : status.rate_limits) {
        Labels name = {{"limit", limit.name}};
        if (limit.dry_run)
            out.counter("penstock_rate_limited_dry_run_total",
                        "Requests that the limit would have refused, were it no dry run.", name,
                        static_cast<double>(limit.refused));
        else
            out.counter("penstock_rate_limited_total", "Requests that the limit refused.", name,
                        static_cast<double>(limit.refused));
        out.counter("penstock_rate_limit_held_total", "Requests that the limit held back for a while.", name,
                    static_cast<double>(limit.held));
        out.gauge("penstock_rate_limit_keys", "Keys that owe something or have requests in flight.", name,
                  limit.keys);
        out.counter("penstock_rate_limit_forgiven_total",
                    "Keys that were forgotten though they owed something, as there were too many.", name,
                    static_cast<double>(limit.forgiven));
    }
}

void add_status(Families& out, const Status& status) {
    out.gauge("penstock_build_info", "1; the version is the label.", {{"version", status.version}}, 1);
    out.gauge("penstock_ready", "1 where /readyz says 200.", {}, status.is_ready());
    out.gauge("penstock_memory_reserved_bytes", "Memory that request and response bodies have reserved.", {},
              static_cast<double>(status.memory_reserved));
    out.gauge("penstock_memory_limit_bytes", "limits.memory", {}, static_cast<double>(status.memory_limit));
    for (size_t loop = 0; loop < status.turns.size(); ++loop)
        out.counter("penstock_loop_turns_total", "Turns of a data loop: how often it woke up.",
                    {{"loop", std::to_string(loop)}}, static_cast<double>(status.turns[loop]));
    constexpr std::string_view dropped_help = "Log lines that nobody read in time.";
    out.counter("penstock_log_lines_dropped_total", dropped_help, {{"log", "access"}},
                static_cast<double>(status.access_log_dropped));
    out.counter("penstock_log_lines_dropped_total", dropped_help, {{"log", "stderr"}},
                static_cast<double>(status.log_dropped));
    constexpr std::string_view reloads_help = "Reloads, by how they ended.";
    out.counter("penstock_config_reloads_total", reloads_help, {{"result", "success"}},
                static_cast<double>(status.reloads));
    out.counter("penstock_config_reloads_total", reloads_help, {{"result", "failure"}},
                static_cast<double>(status.failed_reloads));
    add_rate_limits(out, status);
    for (const UpstreamStatus& upstream : status.upstreams) {
        Labels name = {{"upstream", upstream.name}};
        out.gauge("penstock_queue_depth", "Requests that wait for a slot.", name, upstream.queue.depth);
        out.gauge("penstock_queue_bytes", "Bytes of the bodies that wait.", name,
                  static_cast<double>(upstream.queue.bytes));
        out.gauge("penstock_queue_size", "Requests that may wait for a slot.", name, upstream.queue.size);
        out.gauge("penstock_abandoned_in_flight",
                  "Work that holds a slot and that nobody waits for any more.", name, upstream.abandoned);
        add_circuits(out, upstream);
        add_backends(out, upstream);
        add_names(out, upstream);
        add_workers(out, upstream);
    }
}

void add_process(Families& out, const ProcessFacts& facts) {
    out.counter("process_cpu_seconds_total", "User and system CPU time.", {}, facts.cpu_seconds);
    out.gauge("process_resident_memory_bytes", "Resident memory.", {},
              static_cast<double>(facts.resident_bytes));
    out.gauge("process_virtual_memory_bytes", "Virtual memory.", {},
              static_cast<double>(facts.virtual_bytes));
    out.gauge("process_open_fds", "Open descriptors.", {}, static_cast<double>(facts.open_descriptors));
    out.gauge("process_max_fds", "Descriptors that may be open.", {},
              static_cast<double>(facts.max_descriptors));
    out.gauge("process_start_time_seconds", "When the process started, since 1970.", {}, facts.start_time);
}

}  // namespace

std::vector<MetricFamily> Metrics::Collect() const {
    Families families;
    add_counted(families, series_);
    add_status(families, source_.status());
    add_process(families, facts_of_this_process());
    return families.take();
}

std::string Metrics::text() const { return prometheus::TextSerializer().Serialize(Collect()); }

}  // namespace penstock
