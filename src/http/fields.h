// Field is one header line of a Head, held as offsets into the head's text, so that a whole head moves with
// one memcpy. FieldId says at once whether the proxy itself looks at the field: ids are found once, by the
// parser, and everything after it switches on an integer instead of comparing names. All names of a Field
// are tokens and all values are free of control characters (HTAB apart): who makes a Field checks that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

// The names that the proxy looks at; all others are `other`. All that begin with x-penstock- are one id.
// clang-format off
enum class FieldId : uint8_t {
    other,
    // framing and hop-by-hop
    connection, content_length, transfer_encoding, host, expect, upgrade, te, trailer, keep_alive,
    proxy_connection, proxy_authenticate, proxy_authorization, http2_settings, proxy,
    // who asked, by which way
    x_forwarded_for, x_forwarded_proto, x_forwarded_host, x_forwarded_port, forwarded, x_real_ip, via,
    x_request_id, traceparent, tracestate, x_penstock,
    // what routing, limits, logs and answers read
    authorization, cookie, user_agent, referer, content_type, content_encoding, retry_after, server_timing,
    date, server, grpc_timeout, alt_svc,
    // may not come in trailers (RFC 9110 6.5.1), beside many above
    age, cache_control, content_range, expires, if_match, if_modified_since, if_none_match, if_range,
    if_unmodified_since, location, max_forwards, pragma, range, set_cookie, vary, www_authenticate,
    sec_websocket_key, sec_websocket_accept,
};
// clang-format on
constexpr size_t field_id_count = size_t(FieldId::sec_websocket_accept) + 1;

FieldId field_id(std::string_view name);  // any letter case
std::string_view field_name(FieldId id);  // in lower case; empty for `other` and `x_penstock`

// A set of ids, as a constant or built by hand: FieldSet{FieldId::te, FieldId::trailer}.
class FieldSet {
  public:
    constexpr FieldSet() = default;
    template <class... Ids>
    constexpr FieldSet(FieldId first, Ids... rest) {
        add(first);
        (add(rest), ...);
    }
    constexpr void add(FieldId id) { bits_[size_t(id) / 64] |= uint64_t(1) << (size_t(id) % 64); }
    constexpr void add(const FieldSet& ids) {
        bits_[0] |= ids.bits_[0];
        bits_[1] |= ids.bits_[1];
    }
    constexpr bool has(FieldId id) const { return bits_[size_t(id) / 64] >> (size_t(id) % 64) & 1; }

  private:
    uint64_t bits_[2] = {};
    static_assert(field_id_count <= 128);
};

enum FieldFlag : uint8_t {
    field_dropped = 1,  // not forwarded; still there for logs and rules
    field_aliased = 2,  // the name has '_' or '.', which CGI-like backends fold to the same variable as '-'
};

struct Field {
    uint32_t name_at = 0;
    uint32_t value_at = 0;
    uint32_t value_size = 0;
    uint16_t name_size = 0;
    FieldId id = FieldId::other;
    uint8_t flags = 0;
};
static_assert(sizeof(Field) == 16);

// A field that is not in a head yet: what we add when we forward or answer.
struct FieldLine {
    std::string_view name, value;
};

bool is_token(std::string_view text);                 // at least one tchar, nothing else
bool is_field_value(std::string_view text);           // no control but HTAB; bytes from 0x80 are let through
bool has_alias(std::string_view name);                // '_' or '.' in it
std::string_view without_ows(std::string_view text);  // spaces and tabs off both ends

// Takes the next element off a comma-separated list and returns it trimmed. Empty elements are skipped (RFC
// 9110 5.6.1.2); an empty result means that the list is at its end. Quoted strings are not understood, so
// use it only for lists of tokens.
std::string_view next_in_list(std::string_view& list);
bool list_has(std::string_view list, std::string_view token);  // any letter case

}  // namespace penstock
