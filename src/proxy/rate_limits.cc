#include "proxy/rate_limits.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cstring>
#include <fmt/format.h>

#include "base/text.h"
#include "proxy/affinity.h"

namespace penstock {

// Of one request. Big, and only its beginning is used: so it is not filled with anything.
struct RateLimits::Asks {
    Asks() {}  // NOLINT(modernize-use-equals-default): leaves the items as they are
    std::array<const Limit*, max_rate_limits> limits;
    union {
        std::array<LimitAsk, max_rate_limits> items;
    };
    size_t count = 0;
    std::span<LimitAsk> all() { return {items.data(), count}; }
};

namespace {

constexpr std::string_view concurrency_mark = ":concurrency";  // no name of a limit has a colon

std::string_view field_of(const void* head, std::string_view name) {
    return static_cast<const Head*>(head)->value_of(name);
}

RoutePattern pattern_of(const Match& match) {
    return {match.host, match.path, match.prefix, match.methods, match.headers};
}

// The rate over as many of its periods as hold a burst: what is left of a quota is never more than the quota.
std::string policy_of(const RateLimit& limit) {
    std::string text;
    if (limit.rate) {
        const uint64_t periods = (std::max<uint64_t>(limit.burst, 1) - 1) / limit.rate->count + 1;
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit.rate->per).count();
        text = fmt::format(R"("{}";q={};w={})", limit.name, periods * limit.rate->count,
                           periods * static_cast<uint64_t>(seconds));
    }
    if (limit.concurrency > 0)
        text += fmt::format(R"({}"{}{}";q={};qu="concurrent-requests")", text.empty() ? "" : ", ", limit.name,
                            limit.rate ? concurrency_mark : "", limit.concurrency);
    return text;
}

uint32_t whole_seconds(Duration d) {
    auto up = std::chrono::ceil<std::chrono::seconds>(d).count();
    return static_cast<uint32_t>(std::clamp<int64_t>(up, 0, UINT32_MAX));
}

constexpr size_t address_bytes = 16;

// One address in all its spellings, and one network of an IPv6 client: it may choose any address in there.
// What is no address is a key as it stands.
std::string_view address_key(std::string_view text, unsigned prefix, char* room) {
    char copy[INET6_ADDRSTRLEN] = {};
    if (text.empty() || text.size() >= sizeof copy) return text;
    std::memcpy(copy, text.data(), text.size());
    unsigned char ip[address_bytes] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (text.find(':') == text.npos) {
        if (::inet_pton(AF_INET, copy, ip + 12) != 1) return text;
    } else {
        constexpr unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        if (::inet_pton(AF_INET6, copy, ip) != 1) return text;
        if (std::memcmp(ip, mapped, sizeof mapped) != 0)
            for (unsigned bit = prefix; bit < 128; ++bit)
                ip[bit / 8] = static_cast<unsigned char>(ip[bit / 8] & ~(0x80 >> bit % 8));
    }
    std::memcpy(room, ip, address_bytes);
    return {room, address_bytes};
}

// Who says two things is nobody in particular: the first may be what its backend goes by, or the last, or
// both together. If any of them were the key, another one beside it would make anybody somebody new; so all
// that say two things are one. No value has a zero byte.
constexpr std::string_view many_things("\0", 1);

// False: enough is known.
bool join(std::string_view& key, std::string_view value) {
    if (!key.empty() && key != value)
        key = many_things;
    else
        key = value;
    return key != many_things;
}

std::string_view header_key(const Head& head, std::string_view name) {
    std::string_view key;
    for (const Field& field : head) {
        const std::string_view value = head.value(field);
        if (value.empty() || !equal_ignoring_case(head.name(field), name)) continue;
        if (!join(key, value)) break;
    }
    return key;
}

std::string_view cookie_key(const Head& head, std::string_view name) {
    std::string_view key;
    each_cookie(head, name, [&](std::string_view value) { return join(key, value); });
    return key;
}

// What the request says that it costs. False: something that is no cost.
bool read_cost(const Head& head, std::string_view name, uint64_t& cost) {
    const Field* said = nullptr;
    for (const Field& field : head) {
        if (!equal_ignoring_case(head.name(field), name)) continue;
        if (said) return false;
        said = &field;
    }
    if (!said) return true;
    auto number = parse_number(head.value(*said));
    if (!number || *number == 0 || *number > RateLimits::most_cost) return false;
    cost = *number;
    return true;
}

}  // namespace

std::vector<LimitRules> limit_rules(const Config& config) {
    std::vector<LimitRules> out;
    for (const RateLimit& limit : config.rate_limits) {
        LimitRules& rules = out.emplace_back();
        if (limit.rate) rules.rate = *limit.rate;
        rules.burst = limit.burst;
        rules.delay = limit.delay;
        rules.concurrency = limit.concurrency;
        rules.keys = limit.most_keys();
        rules.dry_run = limit.dry_run;
    }
    return out;
}

RateLimits::RateLimits(const Config& config) {
    for (const RateLimit& limit : config.rate_limits)
        limits_.push_back({&limit, Router({pattern_of(limit.match)}), policy_of(limit)});
    for (const Route& route : config.routes) routes_.emplace_back(std::vector{pattern_of(route.match)});
}

// False: this limit does not count the request, as there is nothing to tell it by.
bool RateLimits::key_of(const Limit& limit, const LimitedRequest& request, const RouteMatch& match,
                        std::string_view& key, char* room) const {
    const RateLimit& settings = *limit.settings;
    switch (settings.key) {
        case LimitKey::global: return true;
        case LimitKey::client_ip: key = address_key(request.client, settings.ipv6_prefix, room); return true;
        case LimitKey::header: key = header_key(request.head, settings.key_name); break;
        case LimitKey::cookie: key = cookie_key(request.head, settings.key_name); break;
        case LimitKey::path: {
            key = match.captured(settings.key_name);
            RouteMatch routed;
            RouteQuery query{request.host, request.path, method_name(request.head.method), field_of,
                             &request.head};
            if (key.empty() && routes_[request.route].find(query, routed))
                key = routed.captured(settings.key_name);
            break;
        }
        case LimitKey::route:
            std::memcpy(room, &request.route, sizeof request.route);
            key = {room, sizeof request.route};
            return true;
    }
    return !key.empty();
}

// False: its cost is none.
bool RateLimits::ask(const Limit& limit, const LimitedRequest& request, const HashKey128& secret,
                     Asks& asks) const {
    RouteMatch match;
    RouteQuery query{request.host, request.path, method_name(request.head.method), field_of, &request.head};
    if (!limit.match.find(query, match)) return true;
    std::string_view key;
    char room[address_bytes];
    if (!key_of(limit, request, match, key, room)) return true;
    uint64_t cost = 1;
    const RateLimit& settings = *limit.settings;
    if (!settings.cost_header.empty()) {
        bool is_cost = read_cost(request.head, settings.cost_header, cost) && cost <= settings.burst;
        if (!is_cost && !settings.dry_run) return false;
        if (!is_cost) cost = settings.burst;
    }
    asks.limits[asks.count] = &limit;
    LimitAsk& made = *new (&asks.items[asks.count++]) LimitAsk;
    made.limit = static_cast<uint16_t>(&limit - limits_.data());
    made.key = hash128(key, secret);
    made.cost = cost;
    return true;
}

LimitVerdict RateLimits::admit(RateLimiter& limiter, const LimitedRequest& request, Arena& arena, Time now,
                               Time deadline, KeyUnits& units) const {
    LimitVerdict verdict;
    Asks asks;
    for (const Limit& limit : limits_) {
        if (ask(limit, request, limiter.secret(), asks)) continue;
        verdict.cause = Cause::bad_request;
        return verdict;
    }
    if (asks.count == 0) return verdict;
    const LimitAnswer answer = limiter.admit(asks.all(), now, deadline, units);
    verdict.texts = describe(asks, answer, arena);
    if (answer.passes) {
        verdict.wait = answer.wait;
    } else {
        verdict.cause = Cause::rate_limited;
        verdict.retry_after = whole_seconds(answer.retry);
    }
    return verdict;
}

LimitTexts* RateLimits::describe(Asks& asks, const LimitAnswer& answer, Arena& arena) const {
    // Marks and numbers of one limit that has both a rate and a concurrency, but for its name.
    constexpr size_t most_marks = concurrency_mark.size() + 80;
    size_t policy_size = 0, state_size = 0;
    for (size_t i = 0; i < asks.count; ++i) {
        const RateLimit& settings = *asks.limits[i]->settings;
        if (!settings.headers || settings.dry_run) continue;
        policy_size += asks.limits[i]->policy.size() + 2;
        state_size += 2 * settings.name.size() + most_marks;
    }
    if (state_size == 0 && answer.passes) return nullptr;
    auto* texts = new (arena.array<LimitTexts>(1)) LimitTexts;
    if (!answer.passes) texts->refused_by = asks.limits[answer.refused_by]->settings->name;
    if (state_size == 0) return texts;

    char* const policy = arena.array<char>(policy_size);
    char* const state = arena.array<char>(state_size);
    char* policy_end = policy;
    char* state_end = state;
    for (size_t i = 0; i < asks.count; ++i) {
        const RateLimit& settings = *asks.limits[i]->settings;
        const LimitAsk& asked = asks.items[i];
        if (!settings.headers || settings.dry_run) continue;
        std::string_view comma = policy_end == policy ? "" : ", ";
        policy_end = fmt::format_to(policy_end, "{}{}", comma, asks.limits[i]->policy);
        if (settings.rate)
            state_end = fmt::format_to(state_end, R"({}"{}";r={};t={})", comma, settings.name,
                                       asked.remaining, whole_seconds(asked.reset));
        if (settings.concurrency > 0)
            state_end = fmt::format_to(state_end, R"({}"{}{}";r={})", settings.rate ? ", " : comma,
                                       settings.name, settings.rate ? concurrency_mark : "", asked.unused);
    }
    texts->policy = {policy, static_cast<size_t>(policy_end - policy)};
    texts->state = {state, static_cast<size_t>(state_end - state)};
    return texts;
}

}  // namespace penstock
