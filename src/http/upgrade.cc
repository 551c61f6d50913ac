#include "http/upgrade.h"

#include "base/text.h"

namespace penstock {

namespace {

bool connection_names_upgrade(const Head& head) {
    for (const Field& f : head) {
        if (f.id == FieldId::connection && list_has(head.value(f), "upgrade")) return true;
    }
    return false;
}

}  // namespace

bool is_forbidden_protocol(std::string_view token) {
    return equal_ignoring_case(token, "h2c") || equal_ignoring_case(token, "h2") ||
           equal_ignoring_case(token, "http") || equal_ignoring_case(token, "tls");
}

std::string_view upgrade_protocol(const Head& head) {
    std::string_view protocol;
    for (const Field& f : head) {
        if (f.id != FieldId::upgrade) continue;
        std::string_view list = head.value(f);
        for (auto element = next_in_list(list); !element.empty(); element = next_in_list(list)) {
            if (!protocol.empty()) return {};
            protocol = element.substr(0, element.find('/'));
            if (!is_token(protocol)) return {};
        }
    }
    return protocol;
}

bool wants_upgrade(const Head& request) {
    if (request.version != Version::http11 || request.method == Method::connect) return false;
    std::string_view protocol = upgrade_protocol(request);
    if (protocol.empty() || is_forbidden_protocol(protocol)) return false;
    return !request.find(FieldId::http2_settings) && connection_names_upgrade(request);
}

bool accepts_upgrade(const Head& request, const Head& response) {
    std::string_view asked = upgrade_protocol(request);
    return response.status == 101 && response.version == Version::http11 && !asked.empty() &&
           connection_names_upgrade(response) && equal_ignoring_case(asked, upgrade_protocol(response));
}

}  // namespace penstock
