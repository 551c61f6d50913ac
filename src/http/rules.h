// What HTTP forbids, and what a legal head means for the connection: every refusal has one Rule with a stable
// name (it goes to the client in x-penstock-reason's company, to logs and to metrics) and a status. Framing
// is decided here, over parsed heads, for HTTP/1 and HTTP/2 alike; the codecs only find the bytes. Pure
// functions; nothing here allocates. Shaping a head for the next hop is http/forward.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/head.h"

namespace penstock {

// clang-format off
enum class Rule : uint8_t {
    ok,
    // lines
    bare_cr, bare_lf, control_character, leading_garbage, head_too_long, too_many_fields, truncated,
    // request line
    request_line_malformed, method_unknown, target_too_long, target_invalid, target_form, target_userinfo,
    target_escape, path_above_root, path_ambiguous, version_missing, version_invalid, version_unsupported,
    http2_preface, http_on_tls_port,
    // status line
    status_line_malformed, status_invalid, unexpected_101,
    // fields
    line_folding, name_empty, name_invalid, name_too_long, space_before_colon, colon_missing,
    tab_in_framing_field,
    // framing
    host_missing, host_repeated, host_invalid, host_differs, content_length_invalid, content_length_repeated,
    content_length_with_transfer_encoding, transfer_encoding_empty, transfer_encoding_not_chunked,
    transfer_encoding_unsupported, transfer_encoding_in_http10, connect_with_body,
    expect_unknown, too_many_connection_options,
    // body
    chunk_size_invalid, chunk_size_overflow, chunk_line_too_long, chunk_extension_invalid,
    chunk_extensions_too_long, chunk_end_missing, body_too_long, trailers_too_long, trailer_forbidden,
    // what a rate limit reads
    cost_invalid,
    // HTTP/2
    h2_name_uppercase, h2_connection_field, h2_pseudo_field, h2_body_differs, h2_malformed,
};
// clang-format on

std::string_view rule_name(Rule rule);
uint16_t rule_status(Rule rule);  // for requests; a response that breaks any rule is a 502 bad_response

enum class BodyKind : uint8_t { none, length, chunked, until_close };

// How the message goes on after its head, and what it means for the connection.
struct Framing {
    BodyKind body = BodyKind::none;      // what follows on the wire
    BodyKind declared = BodyKind::none;  // what the head says; differs for HEAD and 304
    bool keep_alive = false;             // the sender lets the connection live after this message
    bool expect_continue = false;        // the client waits for 100 before it sends the body
    bool upgrade = false;                // request: a legal upgrade is asked for. Response: 101 to ours
    bool tunnel = false;                 // response: 101, or 2xx to CONNECT: what follows is no HTTP
    uint64_t length = 0;                 // of the declared content-length
};

// What a response answers, as far as its framing depends on it.
struct Asked {
    Method method = Method::get;
    bool upgrade = false;  // we forwarded an Upgrade
};

// Legality beyond the grammar (target, Host, what the method allows), then framing, in RFC 9112 6.3's order.
// Of a response, transfer-encoding "identity" alone means until_close, as old servers say it; other codings
// than chunked are refused on both sides: we would pass on bytes that nobody can decode.
Rule frame_request(const Head& head, Framing& framing);
Rule frame_response(const Head& head, const Asked& asked, Framing& framing);

// Trailers: content-length, transfer-encoding and host in them are refused (nobody sends them by honest
// mistake, and they are smuggling's tools); names that RFC 9110 6.5.1 forbids are flagged as dropped.
Rule check_trailers(Head& trailers);

// HTTP/2: names in lower case, no connection-specific fields, te only "trailers".
Rule check_h2_fields(const Head& head);

bool is_safe(Method method);        // RFC 9110 9.2.1
bool is_idempotent(Method method);  // RFC 9110 9.2.2
inline bool is_interim(uint16_t status) { return status >= 100 && status < 200; }
inline bool has_no_body(uint16_t status) { return is_interim(status) || status == 204 || status == 304; }
bool is_host(std::string_view text);         // reg-name, IPv4 or [IPv6], with or without port; empty is legal
bool is_request_id(std::string_view text);   // 1 to 128 bytes of [A-Za-z0-9-_.:/+=@]
bool is_traceparent(std::string_view text);  // W3C version 00, ids not all zero

// 1*DIGIT and nothing else, at most 2^63 - 1. Lists ("5, 5") are refused, and so are repeated fields, also
// when they agree: RFC 9112 6.3 lets us choose, nobody honest sends them, and llhttp refuses them too.
Rule parse_content_length(std::string_view value, uint64_t& length);

}  // namespace penstock
