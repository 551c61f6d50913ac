#include <algorithm>
#include <array>

#include "config/load_parts.h"
#include "config/path_template.h"
#include "http/chars.h"
#include "http/target.h"

namespace penstock {

namespace {

bool is_token(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return chars::is(c, chars::token); });
}

void read_host(Section& s, std::string& out) {
    s.text("host", out);
    out = lower_case(out);
    std::string_view name = out;
    if (name.starts_with("*.")) name.remove_prefix(2);
    bool bracketed = name.starts_with('[') && name.ends_with(']');
    if (name.empty() || bracketed) return;
    if (name.find(':') != name.npos) {
        return s.error("host", fmt::format("\"{}\" has a port; write {}, which matches any port", out,
                                           name.substr(0, name.find(':'))));
    }
    if (name.find_first_of("/*?# @") == name.npos) return;
    s.error("host", fmt::format("\"{}\" is not a host name; write example.com or *.example.com", out));
}

void read_method(const Value& item, std::vector<std::string>& out) {
    auto method = item.text();
    if (!method) return;
    if (!is_token(*method))
        return item.error(fmt::format("\"{}\" is not a method; write one such as POST", *method));
    std::string capitals = *method;
    for (char& c : capitals) {
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - ('a' - 'A'));
    }
    if (capitals != *method) {
        return item.error(
            fmt::format("\"{}\" is not in capitals, as methods are; write {}", *method, capitals));
    }
    out.push_back(std::move(*method));
}

void read_header(const std::string& name, const Value& value, NamedValues& out) {
    if (!is_token(name))
        return value.error(fmt::format("\"{}\" is not a header name; write one such as x-tier", name));
    if (auto text = value.text_or_empty()) out.emplace_back(lower_case(name), std::move(*text));
}

// Requests are matched by their normalised path, so a route in another form would silently match nothing.
void check_path(Section& s, std::string_view key, const std::string& path) {
    if (path.empty()) return;
    if (path[0] != '/') {
        return s.error(key, fmt::format("\"{}\" does not begin with /; write /{}", path, path));
    }
    if (size_t end = path.find_first_of("?#"); end != path.npos) {
        return s.error(key, fmt::format("\"{}\" is more than a path; write {}", path, path.substr(0, end)));
    }
    bool visible = std::all_of(path.begin(), path.end(), [](char c) { return chars::is(c, chars::visible); });
    if (!visible) {
        return s.error(key, fmt::format("\"{}\" has characters that no path has; write them as %XX", path));
    }
    std::string normal(path.size() + 1, '\0');
    size_t size = 0;
    Rule rule = routing_path(path, normal.data(), size);
    normal.resize(size);
    if (rule != Rule::ok) {
        s.error(key,
                fmt::format("\"{}\" matches nothing, as such requests are refused ({}); write a plain path",
                            path, rule_name(rule)));
    } else if (normal != path) {
        s.error(key, fmt::format("\"{}\" matches nothing, as requests are compared in normal form; write {}",
                                 path, normal));
    }
}

void read_match(Section& s, Match& out) {
    read_host(s, out.host);
    s.text("path", out.path);
    s.text("prefix", out.prefix);
    s.list("methods", "[GET, POST]", [&out](const Value& item) { read_method(item, out.methods); });
    s.named("headers",
            [&out](const std::string& name, const Value& value) { read_header(name, value, out.headers); });
    check_path(s, "path", out.path);
    check_path(s, "prefix", out.prefix);
    if (!out.path.empty() && !out.prefix.empty()) s.error("prefix", "is given beside path; keep one of them");
    if (out.prefix.find('{') != out.prefix.npos) {
        s.error("prefix",
                fmt::format("\"{}\" has a {{name}}, which only path can have; write path", out.prefix));
    }
    if (auto names = template_names(out.path); !names) s.error("path", names.error().message);
}

void read_key(const Value& value, RateLimit& out) {
    auto key = value.text();
    if (!key) return;
    size_t colon = key->find(':');
    std::string_view kind = std::string_view(*key).substr(0, colon);
    std::string_view name =
        colon == key->npos ? std::string_view{} : std::string_view(*key).substr(colon + 1);
    constexpr std::array<Choice<LimitKey>, 3> plain{
        {{"client_ip", LimitKey::client_ip}, {"route", LimitKey::route}, {"global", LimitKey::global}}};
    constexpr std::array<Choice<LimitKey>, 3> named{
        {{"header", LimitKey::header}, {"cookie", LimitKey::cookie}, {"path", LimitKey::path}}};
    bool wants_name = colon != key->npos;
    const auto& choices = wants_name ? named : plain;
    auto found = std::find_if(choices.begin(), choices.end(), [&](const auto& c) { return c.name == kind; });
    if (found == choices.end() || (wants_name && !is_token(name))) {
        return value.error(
            fmt::format("\"{}\" is not a key; write client_ip, header:NAME, cookie:NAME, "
                        "path:NAME, route or global",
                        *key));
    }
    out.key = found->value;
    out.key_name = out.key == LimitKey::header ? lower_case(name) : std::string(name);
}

void read_cost(const Value& value, std::string& out) {
    auto cost = value.text();
    if (!cost) return;
    constexpr std::string_view kind = "header:";
    std::string_view name = *cost;
    if (!name.starts_with(kind) || !is_token(name.substr(kind.size()))) {
        return value.error(
            fmt::format("\"{}\" says no cost; write header:NAME, such as header:x-cost", *cost));
    }
    out = lower_case(name.substr(kind.size()));
}

}  // namespace

void read_route(Section& s, Route& out) {
    read_match(s, out.match);
    s.text("upstream", out.upstream);
    if (!s.has("upstream")) s.error("", "names no upstream; write upstream: and one of upstreams");
    s.flag("strip_prefix", out.strip_prefix);
    if (out.strip_prefix && out.match.prefix.empty()) {
        s.error("strip_prefix", "has no prefix to strip; write prefix: /path/, or leave it out");
    }
    s.section("timeouts", [&out](Section& inner) {
        inner.duration("connect", out.timeouts.connect);
        inner.duration("first_byte", out.timeouts.first_byte);
        inner.duration("idle", out.timeouts.idle);
        inner.duration("client_stall", out.timeouts.client_stall);
        inner.duration("request", out.timeouts.request);
    });
}

void read_rate_limit(Section& s, RateLimit& out) {
    s.text("name", out.name);
    if (!s.has("name")) s.error("", "has no name; write name: and a word for metrics and answers");
    if (auto key = s.value("key")) read_key(*key, out);
    if (!s.has("key")) s.error("", "has no key; write key: client_ip, or global for all requests together");
    if (auto rate = s.value("rate")) out.rate = rate->rate();
    s.number("burst", out.burst, 1, 1'000'000'000);
    s.number("concurrency", out.concurrency, 1);
    s.section("match", [&out](Section& inner) { read_match(inner, out.match); });
    s.duration("delay", out.delay);
    if (auto cost = s.value("cost")) read_cost(*cost, out.cost_header);
    s.flag("dry_run", out.dry_run);
    s.flag("headers", out.headers);
    s.number("keys", out.keys, 1, 16'000'000);
    s.number("ipv6_prefix", out.ipv6_prefix, 1, 128);
    if (!s.has("rate") && !s.has("concurrency")) {
        s.error("", "limits nothing; write rate: 10/s, or concurrency: 4");
    }
    for (const char* key : {"burst", "delay", "cost"}) {
        if (!s.has("rate") && s.has(key)) s.error(key, "has no rate beside it; write rate: 10/s too");
    }
    if (out.rate && !s.has("burst")) {
        auto per = static_cast<uint64_t>(out.rate->per / Duration(1s));
        out.burst = std::max<uint64_t>(1, out.rate->count / per);
    }
}

}  // namespace penstock
