#include "proxy/stats.h"

#include <fmt/format.h>
#include <functional>

#include "base/utf8.h"

namespace penstock {

namespace {

constexpr double nanosecond = 1e-9;
constexpr std::string_view sides[] = {"client", "backend"};
constexpr std::string_view handshake_kinds[] = {"full", "resumed"};
constexpr std::string_view directions[] = {"in", "out"};
constexpr std::string_view retry_outcomes[] = {"succeeded", "failed", "refused"};
constexpr std::string_view abandon_outcomes[] = {"completed", "closed", "worker_exit", "given_up"};
constexpr std::string_view other_model = "other";

// A scraper throws the whole page away when one label is not UTF-8.
bool is_label(std::string_view text) {
    while (!text.empty()) {
        CodePoint c = first_code_point(text);
        if (c.size == 0 || is_control(c.value)) return false;
        text.remove_prefix(c.size);
    }
    return true;
}

uint64_t key_of_model(UpstreamLabel upstream, std::string_view name) {
    uint64_t key =
        std::hash<std::string_view>{}(name) + static_cast<uint64_t>(upstream) * 0x9E3779B97F4A7C15u;
    return key ? key : 1;
}

}  // namespace

uint16_t StatsBook::Names::number_of(std::string_view name) {
    if (name.empty()) return 0;
    auto known = by_name.find(name);
    if (known != by_name.end()) return known->second;
    if (names.size() > UINT16_MAX) return 0;
    auto number = static_cast<uint16_t>(names.size());
    names.emplace_back(name);
    by_name.emplace(name, number);
    return number;
}

StatsBook::StatsBook() {
    auto counter = [this](const char* name, const char* help, std::initializer_list<std::string_view> labels,
                          double unit = 1) {
        return series_.family(SeriesKind::counter, name, help, labels, unit);
    };
    auto durations = [this](const char* name, const char* help) {
        return series_.family(SeriesKind::histogram, name, help, {"upstream", "model"}, nanosecond);
    };
    auto gauge = [this](const char* name, const char* help, std::initializer_list<std::string_view> labels) {
        return series_.family(SeriesKind::gauge, name, help, labels);
    };
    requests_ = counter("penstock_requests_total",
                        "Requests that ended, by the status that the client got; 499: the client left first.",
                        {"upstream", "route", "model", "code"});
    rejections_ = counter("penstock_rejections_total", "Requests that penstock itself refused or gave up.",
                          {"upstream", "model", "reason"});
    request_duration_ = durations("penstock_request_duration_seconds",
                                  "From the request's first byte to the end of its response.");
    queue_duration_ = durations("penstock_queue_duration_seconds", "From asking for a slot to having one.");
    backend_duration_ = durations("penstock_backend_duration_seconds",
                                  "From having a slot to the end of the backend's response.");
    first_byte_ = durations("penstock_first_byte_seconds",
                            "From having a slot to the first byte of the backend's response.");
    in_flight_ =
        gauge("penstock_in_flight", "Requests that a backend is at work on, abandoned ones included.",
              {"upstream", "backend"});
    connections_ = gauge("penstock_connections", "Open connections.", {"side"});
    connections_total_ = counter("penstock_connections_total", "Connections opened.", {"side"});
    bytes_ = counter("penstock_bytes_total", "Bytes read (in) and written (out) by penstock.",
                     {"side", "direction"});
    retries_ =
        counter("penstock_retries_total", "Requests sent to a backend again.", {"upstream", "outcome"});
    abandoned_ =
        counter("penstock_abandoned_total",
                "Work that nobody waited for any more, by how its slot came back.", {"upstream", "outcome"});
    wasted_ = counter("penstock_wasted_backend_seconds_total",
                      "Backend time spent on responses that reached no client.",
                      {"upstream", "model", "cause"}, nanosecond);
    grpc_ = counter("penstock_grpc_requests_total",
                    "gRPC requests that ended, by the status that the client got.",
                    {"upstream", "model", "grpc_status"});
    accept_pauses_ = counter("penstock_accept_pauses_total",
                             "Times that accepting stopped for want of descriptors or connections.", {});
    http2_floods_ =
        counter("penstock_http2_floods_total",
                "HTTP/2 connections of clients that were cut off for what they flooded us with.", {"kind"});
    http2_resets_ = counter("penstock_http2_resets_total", "HTTP/2 streams that we reset, by what we said.",
                            {"side", "error"});
    tls_handshakes_ =
        counter("penstock_tls_handshakes_total", "TLS handshakes that were done.", {"side", "kind"});
    tls_failures_ = counter("penstock_tls_failures_total", "TLS handshakes that failed.", {"side", "reason"});
    proxy_headers_ = counter("penstock_proxy_header_failures_total",
                             "Connections closed for want of a good PROXY header.", {"reason"});
    models_.resize(1);
}

UpstreamLabel StatsBook::upstream(std::string_view name) {
    std::lock_guard lock(mutex_);
    auto label = UpstreamLabel(upstreams_.number_of(name));
    if (models_.size() < upstreams_.names.size()) models_.resize(upstreams_.names.size());
    return label;
}

RouteLabel StatsBook::route(std::string_view name) {
    std::lock_guard lock(mutex_);
    return RouteLabel(routes_.number_of(name));
}

std::string StatsBook::upstream_name(UpstreamLabel label) {
    std::lock_guard lock(mutex_);
    return upstreams_.names[static_cast<size_t>(label)];
}

std::string StatsBook::route_name(RouteLabel label) {
    std::lock_guard lock(mutex_);
    return routes_.names[static_cast<size_t>(label)];
}

Stats::Stats(StatsBook& book) : book_(book), page_(book.series_.open_page()), models_(2, nullptr) {
    SeriesBook& series = book_.series_;
    for (size_t side = 0; side < 2; ++side) {
        connections_[side] = series.series(book_.connections_, {sides[side]});
        connections_total_[side] = series.series(book_.connections_total_, {sides[side]});
        for (size_t direction = 0; direction < 2; ++direction)
            bytes_[side][direction] = series.series(book_.bytes_, {sides[side], directions[direction]});
        for (size_t resumed = 0; resumed < 2; ++resumed)
            tls_handshakes_[side][resumed] =
                series.series(book_.tls_handshakes_, {sides[side], handshake_kinds[resumed]});
        for (size_t code = 0; code <= h2_error_count; ++code)
            http2_resets_[side][code] =
                series.series(book_.http2_resets_, {sides[side], to_string(H2Error(code))});
    }
    accept_pauses_ = series.series(book_.accept_pauses_, {});
    for (size_t kind = 1; kind < h2_flood_count; ++kind)
        http2_floods_[kind] = series.series(book_.http2_floods_, {to_string(H2Flood(kind))});
}

ModelLabel Stats::model(UpstreamLabel upstream, std::string_view name) {
    if (name.empty()) return ModelLabel::none;
    if (name.size() > StatsBook::longest_model_name) return ModelLabel::other;
    uint64_t key = key_of_model(upstream, name);
    uint32_t at = model_at_.find(key);
    // Two names with one key: the second is counted as `other`, so nobody gains by finding such a pair.
    if (at != KeyIndex::none) return models_[at]->name == name ? models_[at]->label : ModelLabel::other;
    if (size_t(upstream) < models_full_.size() && models_full_[size_t(upstream)]) return ModelLabel::other;
    return learn_model(upstream, name, key);
}

ModelLabel Stats::learn_model(UpstreamLabel upstream, std::string_view name, uint64_t key) {
    if (!is_label(name) || name == other_model) return ModelLabel::other;
    std::lock_guard lock(book_.mutex_);
    auto& known = book_.models_[size_t(upstream)];
    auto found = known.find(name);
    if (found == known.end() && known.size() < StatsBook::models_per_upstream) {
        auto label = ModelLabel(2 + known.size());
        found =
            known
                .emplace(name,
                         std::make_unique<StatsBook::Model>(StatsBook::Model{key, std::string(name), label}))
                .first;
    }
    if (found != known.end()) {
        remember(*found->second);
        return found->second->label;
    }
    // No more names are taken: learn all that there are, so that a client with ever new names costs no
    // lock from now on.
    for (auto& [_, model] : known) remember(*model);
    if (models_full_.size() <= size_t(upstream)) models_full_.resize(size_t(upstream) + 1);
    models_full_[size_t(upstream)] = true;
    return ModelLabel::other;
}

void Stats::remember(const StatsBook::Model& model) {
    if (model_at_.find(model.key) != KeyIndex::none) return;
    if (model_at_.insert(model.key, static_cast<uint32_t>(models_.size()))) models_.push_back(&model);
}

std::string Stats::model_name(UpstreamLabel upstream, ModelLabel label) {
    if (label == ModelLabel::none) return "";
    if (label == ModelLabel::other) return std::string(other_model);
    std::lock_guard lock(book_.mutex_);
    for (auto& [name, model] : book_.models_[size_t(upstream)])
        if (model->label == label) return name;
    return std::string(other_model);
}

void Stats::request_ended(const RequestEnd& end) {
    uint16_t code = end.code >= 100 && end.code <= 599 ? end.code : 0;
    page_.add(series_of(Kind::requests, end.upstream, end.route, end.model, code, {}));
    const Durations& d = durations_of(end.upstream, end.model);
    auto observe = [this](SeriesId id, Duration duration) {
        if (duration >= Duration::zero()) page_.observe(id, duration);
    };
    observe(d.whole, end.whole);
    observe(d.queue, end.queue);
    observe(d.backend, end.backend);
    observe(d.first_byte, end.first_byte);
}

void Stats::rejected(UpstreamLabel upstream, ModelLabel model, ReasonLabel reason) {
    page_.add(series_of(Kind::rejections, upstream, RouteLabel::none, model, reason.number, reason.name));
}

void Stats::grpc_ended(UpstreamLabel upstream, ModelLabel model, ReasonLabel status) {
    page_.add(series_of(Kind::grpc, upstream, RouteLabel::none, model, status.number, status.name));
}

void Stats::retry(UpstreamLabel upstream, RetryOutcome outcome) {
    page_.add(series_of(Kind::retries, upstream, RouteLabel::none, ModelLabel::none,
                        static_cast<uint16_t>(outcome), retry_outcomes[at(outcome)]));
}

void Stats::abandoned(UpstreamLabel upstream, AbandonOutcome outcome) {
    page_.add(series_of(Kind::abandoned, upstream, RouteLabel::none, ModelLabel::none,
                        static_cast<uint16_t>(outcome), abandon_outcomes[at(outcome)]));
}

void Stats::wasted(UpstreamLabel upstream, ModelLabel model, ReasonLabel cause, Duration backend_time) {
    if (backend_time <= Duration::zero()) return;
    page_.add(series_of(Kind::wasted, upstream, RouteLabel::none, model, cause.number, cause.name),
              static_cast<uint64_t>(backend_time.count()));
}

void Stats::tls_failed(Wire side, ReasonLabel reason) {
    page_.add(series_of(Kind::tls_failures, UpstreamLabel::none, RouteLabel::none, ModelLabel::none,
                        static_cast<uint16_t>(at(side) << 8 | reason.number), reason.name));
}

void Stats::proxy_header_failed(ReasonLabel reason) {
    page_.add(series_of(Kind::proxy_headers, UpstreamLabel::none, RouteLabel::none, ModelLabel::none,
                        reason.number, reason.name));
}

SeriesId Stats::in_flight_of(UpstreamLabel upstream, std::string_view backend) {
    return book_.series_.series(book_.in_flight_, {book_.upstream_name(upstream), backend});
}

SeriesId Stats::series_of(Kind kind, UpstreamLabel upstream, RouteLabel route, ModelLabel model,
                          uint16_t code, std::string_view name) {
    // 4 bits of kind, 16 of upstream, 16 of route, 12 of model (it has 202 values), 16 of code.
    uint64_t key = uint64_t(kind) << 60 | uint64_t(upstream) << 44 | uint64_t(route) << 28 |
                   uint64_t(model) << 16 | code;
    uint32_t cell = ids_.find(key);
    if (cell != KeyIndex::none) [[likely]]
        return {cell};
    if (ids_.full()) return {};  // more label sets than the book has room for: counted nowhere, and no lock
    SeriesId id = make_series(kind, upstream, route, model, code, name);
    ids_.insert(key, id.cell);
    return id;
}

SeriesId Stats::make_series(Kind kind, UpstreamLabel upstream, RouteLabel route, ModelLabel model,
                            uint16_t code, std::string_view name) {
    SeriesBook& series = book_.series_;
    std::string u = book_.upstream_name(upstream);
    switch (kind) {
        case Kind::requests:
            return series.series(book_.requests_, {u, book_.route_name(route), model_name(upstream, model),
                                                   code ? std::to_string(code) : "other"});
        case Kind::rejections:
            return series.series(book_.rejections_, {u, model_name(upstream, model), name});
        case Kind::grpc: return series.series(book_.grpc_, {u, model_name(upstream, model), name});
        case Kind::retries: return series.series(book_.retries_, {u, name});
        case Kind::abandoned: return series.series(book_.abandoned_, {u, name});
        case Kind::wasted: return series.series(book_.wasted_, {u, model_name(upstream, model), name});
        case Kind::tls_failures: return series.series(book_.tls_failures_, {sides[code >> 8], name});
        case Kind::proxy_headers: return series.series(book_.proxy_headers_, {name});
    }
    return {};
}

const Stats::Durations& Stats::durations_of(UpstreamLabel upstream, ModelLabel model) {
    uint64_t key = uint64_t(1) << 32 | uint64_t(upstream) << 16 | uint64_t(model);
    uint32_t at = duration_at_.find(key);
    if (at != KeyIndex::none) [[likely]]
        return durations_[at];
    static constexpr Durations sink;
    if (duration_at_.full()) return sink;
    std::string u = book_.upstream_name(upstream), m = model_name(upstream, model);
    auto series = [&](FamilyId family) { return book_.series_.series(family, {u, m}); };
    duration_at_.insert(key, static_cast<uint32_t>(durations_.size()));
    return durations_.emplace_back(Durations{series(book_.request_duration_), series(book_.queue_duration_),
                                             series(book_.backend_duration_), series(book_.first_byte_)});
}

}  // namespace penstock
