#include "config/config.h"

#include <algorithm>

namespace penstock {

namespace {

constexpr unsigned most_auto_threads = 4;  // more loops mean more pools, and GPUs are the bottleneck

}  // namespace

Config default_config(unsigned cores) {
    Config config;
    config.admin = *parse_address("127.0.0.1:9901");
    config.threads = std::clamp(cores, 1u, most_auto_threads);
    config.trusted_proxies = {*parse_network("127.0.0.0/8"), *parse_network("::1")};
    return config;
}

bool Upstream::has_slots() const {
    if (workers && concurrency > 0) return true;
    return std::any_of(servers.begin(), servers.end(),
                       [](const Server& s) { return s.concurrency > 0 || s.max_connections > 0; });
}

uint32_t Upstream::queue_size() const {
    uint32_t pending = circuit_breaker.max_pending_requests;
    return pending == 0 ? queue.size : std::min(queue.size, pending);
}

bool Workers::uses(std::string_view placeholder) const {
    auto in = [placeholder](const std::string& text) { return text.find(placeholder) != text.npos; };
    return std::any_of(command.begin(), command.end(), in) ||
           std::any_of(environment.begin(), environment.end(), [&in](const auto& v) { return in(v.second); });
}

const Upstream* Config::upstream(std::string_view name) const {
    for (const Upstream& upstream : upstreams) {
        if (upstream.name == name) return &upstream;
    }
    return nullptr;
}

bool Config::limits_concurrency() const {
    return std::any_of(rate_limits.begin(), rate_limits.end(),
                       [](const RateLimit& limit) { return limit.concurrency > 0; });
}

bool Config::shares_device(const Upstream& upstream) const {
    if (!upstream.workers || upstream.workers->gpus.empty()) return false;
    const std::vector<std::string>& gpus = upstream.workers->gpus;
    return std::any_of(devices.begin(), devices.end(), [&gpus](const Device& device) {
        return device.gpu == "all" || std::find(gpus.begin(), gpus.end(), device.gpu) != gpus.end();
    });
}

}  // namespace penstock
