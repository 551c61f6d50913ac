#include "http/fields.h"

#include <array>

#include "base/text.h"
#include "http/chars.h"

namespace penstock {

namespace {

struct Known {
    FieldId id;
    std::string_view name;
};

constexpr Known known[] = {
    {FieldId::other, ""},
    {FieldId::connection, "connection"},
    {FieldId::content_length, "content-length"},
    {FieldId::transfer_encoding, "transfer-encoding"},
    {FieldId::host, "host"},
    {FieldId::expect, "expect"},
    {FieldId::upgrade, "upgrade"},
    {FieldId::te, "te"},
    {FieldId::trailer, "trailer"},
    {FieldId::keep_alive, "keep-alive"},
    {FieldId::proxy_connection, "proxy-connection"},
    {FieldId::proxy_authenticate, "proxy-authenticate"},
    {FieldId::proxy_authorization, "proxy-authorization"},
    {FieldId::http2_settings, "http2-settings"},
    {FieldId::proxy, "proxy"},
    {FieldId::x_forwarded_for, "x-forwarded-for"},
    {FieldId::x_forwarded_proto, "x-forwarded-proto"},
    {FieldId::x_forwarded_host, "x-forwarded-host"},
    {FieldId::x_forwarded_port, "x-forwarded-port"},
    {FieldId::forwarded, "forwarded"},
    {FieldId::x_real_ip, "x-real-ip"},
    {FieldId::via, "via"},
    {FieldId::x_request_id, "x-request-id"},
    {FieldId::traceparent, "traceparent"},
    {FieldId::tracestate, "tracestate"},
    {FieldId::x_penstock, ""},
    {FieldId::authorization, "authorization"},
    {FieldId::cookie, "cookie"},
    {FieldId::user_agent, "user-agent"},
    {FieldId::referer, "referer"},
    {FieldId::content_type, "content-type"},
    {FieldId::content_encoding, "content-encoding"},
    {FieldId::retry_after, "retry-after"},
    {FieldId::server_timing, "server-timing"},
    {FieldId::date, "date"},
    {FieldId::server, "server"},
    {FieldId::grpc_timeout, "grpc-timeout"},
    {FieldId::alt_svc, "alt-svc"},
    {FieldId::age, "age"},
    {FieldId::cache_control, "cache-control"},
    {FieldId::content_range, "content-range"},
    {FieldId::expires, "expires"},
    {FieldId::if_match, "if-match"},
    {FieldId::if_modified_since, "if-modified-since"},
    {FieldId::if_none_match, "if-none-match"},
    {FieldId::if_range, "if-range"},
    {FieldId::if_unmodified_since, "if-unmodified-since"},
    {FieldId::location, "location"},
    {FieldId::max_forwards, "max-forwards"},
    {FieldId::pragma, "pragma"},
    {FieldId::range, "range"},
    {FieldId::set_cookie, "set-cookie"},
    {FieldId::vary, "vary"},
    {FieldId::www_authenticate, "www-authenticate"},
    {FieldId::sec_websocket_key, "sec-websocket-key"},
    {FieldId::sec_websocket_accept, "sec-websocket-accept"},
};
static_assert(std::size(known) == field_id_count);

constexpr bool in_order() {
    for (size_t i = 0; i < std::size(known); i++) {
        if (size_t(known[i].id) != i) return false;
    }
    return true;
}
static_assert(in_order(), "known[] is indexed by FieldId");

// One slot a name: length and three letters, mixed with a number found at compile time for which no two known
// names meet. A lookup is one multiplication and one comparison of names.
constexpr unsigned slot_bits = 8;

constexpr uint32_t slot_of(std::string_view name, uint32_t seed) {
    auto letter = [&](size_t i) { return uint32_t(uint8_t(name[i]) | 0x20); };
    size_t n = name.size();
    uint32_t key = uint32_t(n) | letter(0) << 8 | letter(n / 2) << 16 | letter(n * 3 / 4) << 24;
    return key * seed >> (32 - slot_bits);
}

using Slots = std::array<uint8_t, 1 << slot_bits>;

constexpr bool fill(Slots& slots, uint32_t seed) {
    slots = {};
    for (size_t i = 0; i < std::size(known); i++) {
        if (known[i].name.empty()) continue;
        uint8_t& slot = slots[slot_of(known[i].name, seed)];
        if (slot) return false;
        slot = uint8_t(i);
    }
    return true;
}

constexpr uint32_t find_seed() {
    Slots slots;
    for (uint32_t seed = 0x9e3779b1;; seed += 0x61c88646) {
        if (fill(slots, seed | 1)) return seed | 1;
    }
}

constexpr uint32_t seed = find_seed();
constexpr Slots slots = [] {
    Slots s;
    fill(s, seed);
    return s;
}();

constexpr std::string_view our_prefix = "x-penstock-";

bool same(const char* text, std::string_view lower_name) {
    for (size_t i = 0; i < lower_name.size(); i++) {
        if (chars::lower(text[i]) != lower_name[i]) return false;
    }
    return true;
}

}  // namespace

FieldId field_id(std::string_view name) {
    if (name.empty()) return FieldId::other;
    const Known& candidate = known[slots[slot_of(name, seed)]];
    if (candidate.name.size() == name.size() && same(name.data(), candidate.name)) return candidate.id;
    if (name.size() > our_prefix.size() && same(name.data(), our_prefix)) return FieldId::x_penstock;
    return FieldId::other;
}

std::string_view field_name(FieldId id) { return known[size_t(id)].name; }

bool is_token(std::string_view text) {
    for (char c : text) {
        if (!chars::is(c, chars::token)) return false;
    }
    return !text.empty();
}

bool is_field_value(std::string_view text) {
    for (char c : text) {
        if (chars::is(c, chars::control)) return false;
    }
    return true;
}

bool has_alias(std::string_view name) { return name.find_first_of("_.") != name.npos; }

std::string_view without_ows(std::string_view text) {
    auto is_space = [](char c) { return c == ' ' || c == '\t'; };
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

std::string_view next_in_list(std::string_view& list) {
    while (!list.empty()) {
        size_t comma = list.find(',');
        std::string_view element = without_ows(list.substr(0, comma));
        list = comma == list.npos ? std::string_view() : list.substr(comma + 1);
        if (!element.empty()) return element;
    }
    return {};
}

bool list_has(std::string_view list, std::string_view token) {
    for (auto element = next_in_list(list); !element.empty(); element = next_in_list(list)) {
        if (equal_ignoring_case(element, token)) return true;
    }
    return false;
}

}  // namespace penstock
