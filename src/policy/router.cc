#include "policy/router.h"

#include <algorithm>

#include "base/text.h"

namespace penstock {

namespace {

bool matches_host(std::string_view pattern, std::string_view host) {
    if (pattern.empty()) return true;
    if (!pattern.starts_with("*.")) return equal_ignoring_case(pattern, host);
    std::string_view suffix = pattern.substr(1);
    return host.size() > suffix.size() &&
           equal_ignoring_case(suffix, host.substr(host.size() - suffix.size()));
}

// Takes what stands before the first `end` off `text`, and `end` with it.
std::string_view take_until(std::string_view& text, char end) {
    const size_t size = std::min(text.find(end), text.size());
    const std::string_view taken = text.substr(0, size);
    text.remove_prefix(std::min(size + 1, text.size()));
    return taken;
}

// One segment: the text before the first {name} begins it, the text after the last one ends it, and what
// stands between two is found as early as it can be, which finds a match wherever there is one.
bool matches_segment(std::string_view pattern, std::string_view text, RouteMatch& match) {
    const bool has_capture = pattern.find('{') != std::string_view::npos;
    const std::string_view first = take_until(pattern, '{');
    if (!has_capture) return text == first;
    if (!text.starts_with(first)) return false;
    text.remove_prefix(first.size());
    while (true) {
        const std::string_view name = take_until(pattern, '}');
        const bool is_last = pattern.find('{') == std::string_view::npos;
        const std::string_view next = take_until(pattern, '{');
        if (text.size() <= next.size()) return false;
        const size_t size = is_last ? text.size() - next.size() : text.find(next, 1);
        if (size == std::string_view::npos || !text.substr(size).starts_with(next)) return false;
        if (match.capture_count < RouteMatch::most_captures)
            match.captures[match.capture_count++] = {name, text.substr(0, size)};
        if (is_last) return true;
        text.remove_prefix(size + next.size());
    }
}

bool matches_path(std::string_view pattern, std::string_view path, RouteMatch& match) {
    match.capture_count = 0;
    if (std::ranges::count(pattern, '/') != std::ranges::count(path, '/')) return false;
    while (!pattern.empty() || !path.empty())
        if (!matches_segment(take_until(pattern, '/'), take_until(path, '/'), match)) return false;
    return true;
}

bool matches_prefix(std::string_view prefix, std::string_view path) {
    if (!path.starts_with(prefix)) return false;
    return prefix.empty() || prefix.back() == '/' || path.size() == prefix.size() ||
           path[prefix.size()] == '/';
}

bool matches(const RoutePattern& route, const RouteQuery& query, RouteMatch& match) {
    match.capture_count = 0;
    if (!matches_host(route.host, query.host)) return false;
    if (!route.methods.empty() && std::ranges::find(route.methods, query.method) == route.methods.end())
        return false;
    if (!route.prefix.empty() && !matches_prefix(route.prefix, query.path)) return false;
    if (!route.path.empty() && !matches_path(route.path, query.path, match)) return false;
    return std::ranges::all_of(route.headers, [&](const auto& header) {
        return query.field(query.head, header.first) == header.second;
    });
}

}  // namespace

std::string_view RouteMatch::captured(std::string_view name) const {
    for (size_t i = 0; i < capture_count; ++i)
        if (captures[i].name == name) return captures[i].value;
    return {};
}

bool Router::find(const RouteQuery& query, RouteMatch& match) const {
    for (size_t i = 0; i < routes_.size(); ++i)
        if (matches(routes_[i], query, match)) {
            match.route = i;
            return true;
        }
    return false;
}

std::string expand(std::string_view text, const RouteMatch& match) {
    std::string out;
    while (true) {
        size_t open = text.find('{');
        size_t close = text.find('}', open);
        if (close == std::string_view::npos) return out.append(text);
        out.append(text.substr(0, open)).append(match.captured(text.substr(open + 1, close - open - 1)));
        text.remove_prefix(close + 1);
    }
}

}  // namespace penstock
