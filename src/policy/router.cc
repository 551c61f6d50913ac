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

bool matches_path(std::string_view pattern, std::string_view path, RouteMatch& match) {
    match.capture_count = 0;
    while (true) {
        size_t open = pattern.find('{');
        size_t literal = open == std::string_view::npos ? pattern.size() : open;
        if (!path.starts_with(pattern.substr(0, literal))) return false;
        path.remove_prefix(literal);
        if (open == std::string_view::npos) return path.empty();
        size_t close = pattern.find('}', open);
        if (close == std::string_view::npos) return false;
        std::string_view name = pattern.substr(open + 1, close - open - 1);
        pattern.remove_prefix(close + 1);
        // As far as the next literal character, and never over a '/'.
        char stop = pattern.empty() ? '/' : pattern.front();
        size_t size = std::min(path.find(stop), path.find('/'));
        size = std::min(size, path.size());
        if (size == 0) return false;
        if (match.capture_count < RouteMatch::most_captures)
            match.captures[match.capture_count++] = {name, path.substr(0, size)};
        path.remove_prefix(size);
    }
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
