#include "app/admin_pages.h"

#include <fmt/format.h>

namespace penstock {

namespace {

constexpr std::string_view plain_text = "text/plain; charset=utf-8";
constexpr std::string_view json = "application/json";
constexpr std::string_view index_text =
    "penstock\n"
    "  /status    what it is doing, as JSON (or: penstock status)\n"
    "  /metrics   for Prometheus\n"
    "  /healthz   is it alive\n"
    "  /readyz    should it get traffic\n";

std::string_view path_of(std::string_view target) {
    // http://host/path is what a proxy would be asked; the path is meant.
    if (size_t scheme = target.find("://"); scheme != target.npos && target.find('/') > scheme) {
        size_t path = target.find('/', scheme + 3);
        target = path == target.npos ? std::string_view("/") : target.substr(path);
    }
    return target.substr(0, target.find('?'));
}

bool is_known(std::string_view path) {
    for (std::string_view known : {"/", "/metrics", "/status", "/healthz", "/readyz"})
        if (path == known) return true;
    return false;
}

Page failed(uint16_t status, std::string_view reason, std::string_view message) {
    return {status,
            json,
            fmt::format(R"({{"error":{{"reason":"{}","message":"{}"}}}})"
                        "\n",
                        reason, message),
            {}};
}

}  // namespace

Page AdminPages::page(Method method, std::string_view target) const {
    std::string_view path = path_of(target);
    if (!is_known(path)) return failed(404, "not_found", "there is no such page; / lists them");
    if (method != Method::get && method != Method::head) {
        Page page = failed(405, "method_not_allowed", "this page is only read");
        page.allow = "GET, HEAD";
        return page;
    }
    if (path == "/metrics") return {200, Metrics::content_type, metrics_.text(), {}};
    if (path == "/status") return {200, json, status_json(source_.status()), {}};
    if (path == "/healthz") return {200, plain_text, "ok\n", {}};
    if (path == "/readyz") return ready();
    return {200, plain_text, std::string(index_text), {}};
}

Page AdminPages::ready() const {
    Status status = source_.status();
    if (status.is_ready()) return {200, plain_text, "ready\n", {}};
    if (status.state != "ready") return {503, plain_text, status.state + "\n", {}};
    std::string why = "no upstream has a backend that is up\n";
    for (auto& upstream : status.upstreams) why += fmt::format("{}: {}\n", upstream.name, upstream.serving);
    return {503, plain_text, why, {}};
}

}  // namespace penstock
