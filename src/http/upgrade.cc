#include "http/upgrade.h"

#include "base/arena.h"
#include "base/text.h"

namespace penstock {

namespace {

bool connection_names_upgrade(const Head& head) {
    for (const Field& f : head) {
        if (f.id == FieldId::connection && list_has(head.value(f), "upgrade")) return true;
    }
    return false;
}

constexpr size_t websocket_key_bytes = 24;

// Sixteen bytes in base64.
void write_websocket_key(const uint64_t (&random)[2], char* out) {
    constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < 22; i++) {
        size_t bit = 6 * i;
        uint64_t word = random[bit / 64] >> bit % 64;
        if (bit % 64 > 58 && bit / 64 == 0) word |= random[1] << (64 - bit % 64);
        out[i] = digits[word & (i == 21 ? 48 : 63)];  // of the last digit only two bits stand for something
    }
    out[22] = out[23] = '=';
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

Rule upgrade_of_connect(const Head& connect, std::string_view protocol, const uint64_t (&random)[2],
                        Arena& arena, Head& upgrade, Framing& framing) {
    // Others (connect-udp, say) would be tunnels through us that no backend of ours speaks.
    if (!equal_ignoring_case(protocol, "websocket")) return Rule::method_unknown;
    HeadBuilder builder(arena, UINT32_MAX, UINT32_MAX);
    builder.method(Method::get);
    builder.version(Version::http2);
    builder.target(connect.target());
    for (const Field& f : connect) {
        bool body = f.id == FieldId::content_length || f.id == FieldId::expect;
        if (!body && f.id != FieldId::sec_websocket_key) builder.add(connect.name(f), connect.value(f));
    }
    char key[websocket_key_bytes];
    write_websocket_key(random, key);
    builder.add("upgrade", "websocket");
    builder.add("connection", "upgrade");
    builder.add("sec-websocket-key", {key, sizeof key});
    upgrade = builder.head();
    framing = {};
    framing.keep_alive = framing.upgrade = framing.tunnel = true;
    return Rule::ok;
}

}  // namespace penstock
