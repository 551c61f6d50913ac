// A Router finds the first route that matches a request: host, path or prefix, methods, header fields. It is
// plain data and pure; it owns its patterns. Paths come normalised (http/target), hosts without a port.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

struct RoutePattern {
    std::string host;    // lower case; *.example.com matches every name below; empty: any
    std::string path;    // whole; {name} stands for one or more characters other than '/'; empty: any
    std::string prefix;  // of whole segments: /api matches /api and /api/x, not /apix
    std::vector<std::string> methods;                          // empty: any
    std::vector<std::pair<std::string, std::string>> headers;  // each must be there with just this value
};

// What a router asks of a request; the lookup keeps it free of any notion of a head.
struct RouteQuery {
    std::string_view host;  // any letter case
    std::string_view path;
    std::string_view method;
    std::string_view (*field)(const void* head, std::string_view name) = nullptr;
    const void* head = nullptr;
};

struct RouteMatch {
    static constexpr size_t most_captures = 8;
    struct Capture {
        std::string_view name, value;  // of the pattern, of the path
    };
    size_t route = 0;
    std::array<Capture, most_captures> captures;
    size_t capture_count = 0;

    std::string_view captured(std::string_view name) const;
};

class Router {
  public:
    Router() = default;
    explicit Router(std::vector<RoutePattern> routes) : routes_(std::move(routes)) {}

    bool find(const RouteQuery& query, RouteMatch& match) const;

  private:
    std::vector<RoutePattern> routes_;
};

// `text` with each {name} replaced by what was captured.
std::string expand(std::string_view text, const RouteMatch& match);

}  // namespace penstock
