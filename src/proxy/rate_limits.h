// RateLimits is what `rate_limits` of the configuration says: which limits a request comes under, by which
// key, and in which words the client hears of it. Immutable and part of the snapshot; what is counted is in
// the one RateLimiter of the process (policy/rate_limiter), whose limits are these, in this order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "config/config.h"
#include "http/cause.h"
#include "http/head.h"
#include "policy/rate_limiter.h"
#include "policy/router.h"

namespace penstock {

// What a limit may look at. All of it lives longer than the call.
struct LimitedRequest {
    const Head& head;
    std::string_view host;
    std::string_view path;    // the routing path
    std::string_view client;  // address; empty for a unix socket
    size_t route = 0;         // which of the configuration's
};

// What the client is told, in fields of the IETF draft `RateLimit header fields for HTTP`, and the log.
struct LimitTexts {
    std::string_view policy;      // of RateLimit-Policy; empty: no limit says anything
    std::string_view state;       // of RateLimit
    std::string_view refused_by;  // the limit's name
};

struct LimitVerdict {
    Cause cause = Cause::none;    // none, bad_request (a cost that is none), or rate_limited
    Duration wait{};              // to be held back for so long, and then to go on
    uint32_t retry_after = 0;     // seconds, of a refusal
    LimitTexts* texts = nullptr;  // in the arena; null where there is nothing to say
};

class RateLimits {
  public:
    static constexpr uint64_t most_cost = 1'000'000'000;

    explicit RateLimits(const Config& config);  // which outlives it

    bool empty() const { return limits_.empty(); }
    LimitVerdict admit(RateLimiter& limiter, const LimitedRequest& request, Arena& arena, Time now,
                       Time deadline, KeyUnits& units) const;

  private:
    struct Limit {
        const RateLimit* settings;
        Router match;
        std::string policy;  // its part of RateLimit-Policy
    };
    struct Asks;

    bool ask(const Limit& limit, const LimitedRequest& request, const HashKey128& secret, Asks& asks) const;
    bool key_of(const Limit& limit, const LimitedRequest& request, const RouteMatch& match,
                std::string_view& key, char* room) const;
    LimitTexts* describe(Asks& asks, const LimitAnswer& answer, Arena& arena) const;

    std::vector<Limit> limits_;
    std::vector<Router> routes_;  // one each, for what their paths capture
};

// For the limiter.
std::vector<LimitRules> limit_rules(const Config& config);

}  // namespace penstock
