// A Snapshot is the immutable run-time form of a configuration: what routes lead where, and the settings that
// the data path reads. An exchange keeps the one that it began with, so the server keeps each until nobody
// uses it. Upstreams are shared by all snapshots and found by name.
#pragma once

#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "config/config.h"
#include "http/head.h"
#include "http/target.h"
#include "policy/router.h"
#include "proxy/rate_limits.h"
#include "proxy/stats.h"
#include "proxy/upstream.h"

namespace penstock {

struct SnapshotRoute {
    const Route* settings = nullptr;
    size_t number = 0;  // in the file
    RouteLabel label = RouteLabel::none;
    std::string name;                  // for logs: its path or prefix
    LiveUpstream* upstream = nullptr;  // null: its name has a placeholder, find it by name
    Timeouts timeouts;                 // of the upstream, with what the route says instead
};

class Snapshot {
  public:
    Snapshot(Config config, std::span<LiveUpstream* const> upstreams, StatsBook& book);

    const Config& config() const { return config_; }

    struct Destination {
        const SnapshotRoute* route = nullptr;
        LiveUpstream* upstream = nullptr;
        std::string_view model;  // lies in the path
    };
    // `path` is the routing path. False: no route.
    bool find(const Head& head, std::string_view host, std::string_view path, Destination& out) const;
    const RateLimits& rate_limits() const { return rate_limits_; }
    bool trusts(const std::array<uint8_t, 16>& ip) const;
    static bool trusts_text(const void* snapshot, std::string_view address);  // for client_address()

  private:
    const Config config_;
    std::vector<LiveUpstream*> upstreams_;
    std::deque<SnapshotRoute> routes_;
    Router router_;
    const RateLimits rate_limits_;
};

}  // namespace penstock
