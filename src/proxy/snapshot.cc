#include "proxy/snapshot.h"

#include "net/socket.h"

namespace penstock {

namespace {

RoutePattern pattern_of(const Match& match) {
    return {match.host, match.path, match.prefix, match.methods, match.headers};
}

std::vector<RoutePattern> patterns_of(const Config& config) {
    std::vector<RoutePattern> out;
    for (const Route& route : config.routes) out.push_back(pattern_of(route.match));
    return out;
}

Timeouts timeouts_of(const Timeouts& base, const RouteTimeouts& instead) {
    return {instead.connect.value_or(base.connect), instead.first_byte.value_or(base.first_byte),
            instead.idle.value_or(base.idle), instead.client_stall.value_or(base.client_stall),
            instead.request.value_or(base.request)};
}

std::string_view field_of(const void* head, std::string_view name) {
    return static_cast<const Head*>(head)->value_of(name);
}

}  // namespace

Snapshot::Snapshot(Config config, std::span<LiveUpstream* const> upstreams, StatsBook& book)
    : config_(std::move(config)),
      upstreams_(upstreams.begin(), upstreams.end()),
      router_(patterns_of(config_)),
      rate_limits_(config_) {
    for (const Route& route : config_.routes) {
        SnapshotRoute& to = routes_.emplace_back();
        to.settings = &route;
        to.number = routes_.size() - 1;
        to.name = !route.match.path.empty()     ? route.match.path
                  : !route.match.prefix.empty() ? route.match.prefix
                                                : route.match.host;
        to.label = to.name.empty() ? RouteLabel::none : book.route(to.name);
        for (LiveUpstream* upstream : upstreams_)
            if (upstream->name() == route.upstream) to.upstream = upstream;
        to.timeouts = timeouts_of(to.upstream ? to.upstream->settings.timeouts : Timeouts{}, route.timeouts);
    }
}

bool Snapshot::find(const Head& head, std::string_view host, std::string_view path, Destination& out) const {
    RouteMatch match;
    if (!router_.find({host, path, method_name(head.method), field_of, &head}, match)) return false;
    out.route = &routes_[match.route];
    out.upstream = out.route->upstream;
    out.model = match.captured("model");
    if (!out.upstream) {
        // The upstream's name is made from the path: rare, and a short list.
        std::string name = expand(out.route->settings->upstream, match);
        for (LiveUpstream* upstream : upstreams_)
            if (upstream->name() == name) out.upstream = upstream;
    }
    return out.upstream != nullptr;
}

bool Snapshot::trusts(const std::array<uint8_t, 16>& ip) const {
    for (const Network& network : config_.trusted_proxies)
        if (network.contains(ip)) return true;
    return false;
}

bool Snapshot::trusts_text(const void* snapshot, std::string_view address) {
    Result<Network> network = parse_network(address);
    return network && network->bits == 128 && static_cast<const Snapshot*>(snapshot)->trusts(network->ip);
}

}  // namespace penstock
