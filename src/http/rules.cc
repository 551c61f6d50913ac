#include "http/rules.h"

#include <iterator>

#include "base/text.h"
#include "http/chars.h"
#include "http/target.h"
#include "http/upgrade.h"

namespace penstock {

namespace {

struct RuleFacts {
    Rule rule;
    std::string_view name;
    uint16_t status;
};

constexpr RuleFacts rules[] = {
    // indexed by Rule
    {Rule::ok, "ok", 200},
    {Rule::bare_cr, "bare_cr", 400},
    {Rule::bare_lf, "bare_lf", 400},
    {Rule::control_character, "control_character", 400},
    {Rule::leading_garbage, "leading_garbage", 400},
    {Rule::head_too_long, "head_too_long", 431},
    {Rule::too_many_fields, "too_many_fields", 431},
    {Rule::truncated, "truncated", 400},
    {Rule::request_line_malformed, "request_line_malformed", 400},
    {Rule::method_unknown, "method_unknown", 501},
    {Rule::target_too_long, "target_too_long", 414},
    {Rule::target_invalid, "target_invalid", 400},
    {Rule::target_form, "target_form", 400},
    {Rule::target_userinfo, "target_userinfo", 400},
    {Rule::target_escape, "target_escape", 400},
    {Rule::path_above_root, "path_above_root", 400},
    {Rule::path_ambiguous, "path_ambiguous", 400},
    {Rule::version_missing, "version_missing", 400},
    {Rule::version_invalid, "version_invalid", 400},
    {Rule::version_unsupported, "version_unsupported", 505},
    {Rule::http2_preface, "http2_preface", 505},
    {Rule::http_on_tls_port, "http_on_tls_port", 400},
    {Rule::status_line_malformed, "status_line_malformed", 400},
    {Rule::status_invalid, "status_invalid", 400},
    {Rule::unexpected_101, "unexpected_101", 400},
    {Rule::line_folding, "line_folding", 400},
    {Rule::name_empty, "name_empty", 400},
    {Rule::name_invalid, "name_invalid", 400},
    {Rule::name_too_long, "name_too_long", 431},
    {Rule::space_before_colon, "space_before_colon", 400},
    {Rule::colon_missing, "colon_missing", 400},
    {Rule::tab_in_framing_field, "tab_in_framing_field", 400},
    {Rule::host_missing, "host_missing", 400},
    {Rule::host_repeated, "host_repeated", 400},
    {Rule::host_invalid, "host_invalid", 400},
    {Rule::host_differs, "host_differs", 400},
    {Rule::content_length_invalid, "content_length_invalid", 400},
    {Rule::content_length_repeated, "content_length_repeated", 400},
    {Rule::content_length_with_transfer_encoding, "content_length_with_transfer_encoding", 400},
    {Rule::transfer_encoding_empty, "transfer_encoding_empty", 400},
    {Rule::transfer_encoding_not_chunked, "transfer_encoding_not_chunked", 400},
    {Rule::transfer_encoding_unsupported, "transfer_encoding_unsupported", 501},
    {Rule::transfer_encoding_in_http10, "transfer_encoding_in_http10", 400},
    {Rule::connect_with_body, "connect_with_body", 400},
    {Rule::expect_unknown, "expect_unknown", 417},
    {Rule::too_many_connection_options, "too_many_connection_options", 431},
    {Rule::chunk_size_invalid, "chunk_size_invalid", 400},
    {Rule::chunk_size_overflow, "chunk_size_overflow", 400},
    {Rule::chunk_line_too_long, "chunk_line_too_long", 400},
    {Rule::chunk_extension_invalid, "chunk_extension_invalid", 400},
    {Rule::chunk_extensions_too_long, "chunk_extensions_too_long", 400},
    {Rule::chunk_end_missing, "chunk_end_missing", 400},
    {Rule::body_too_long, "body_too_long", 413},
    {Rule::trailers_too_long, "trailers_too_long", 431},
    {Rule::trailer_forbidden, "trailer_forbidden", 400},
    {Rule::cost_invalid, "cost_invalid", 400},
    {Rule::h2_name_uppercase, "h2_name_uppercase", 400},
    {Rule::h2_connection_field, "h2_connection_field", 400},
    {Rule::h2_pseudo_field, "h2_pseudo_field", 400},
    {Rule::h2_body_differs, "h2_body_differs", 400},
    {Rule::h2_malformed, "h2_malformed", 400},
};

constexpr bool in_order() {
    for (size_t i = 0; i < std::size(rules); i++) {
        if (size_t(rules[i].rule) != i) return false;
    }
    return std::size(rules) == size_t(Rule::h2_malformed) + 1;
}
static_assert(in_order(), "rules[] is indexed by Rule");

// Each option is compared with each field when a head is forwarded: 64 bounds that work.
constexpr uint32_t max_connection_options = 64;

// What the fields say about framing, before it is decided what that means.
struct Declared {
    bool close = false;
    bool keep_alive = false;
    bool upgrade_named = false;
    uint32_t options = 0;
    uint32_t hosts = 0;
    const Field* host = nullptr;
    const Field* transfer_encoding = nullptr;  // the last
    uint32_t codings = 0;
    bool chunked_early = false;  // chunked, and something behind it
    bool chunked_last = false;
    bool not_one_word = false;
    bool has_length = false;
    uint64_t length = 0;
};

void note_connection(std::string_view list, Declared& declared) {
    for (auto word = next_in_list(list); !word.empty(); word = next_in_list(list)) {
        declared.options++;
        if (equal_ignoring_case(word, "close")) declared.close = true;
        if (equal_ignoring_case(word, "keep-alive")) declared.keep_alive = true;
        if (equal_ignoring_case(word, "upgrade")) declared.upgrade_named = true;
    }
}

void note_codings(std::string_view list, Declared& declared) {
    for (auto coding = next_in_list(list); !coding.empty(); coding = next_in_list(list)) {
        declared.codings++;
        declared.chunked_early |= declared.chunked_last;
        declared.chunked_last = equal_ignoring_case(coding, "chunked");
    }
}

Rule read_declared(const Head& head, Declared& declared) {
    for (const Field& f : head) {
        switch (f.id) {
            case FieldId::connection: note_connection(head.value(f), declared); break;
            case FieldId::host:
                declared.hosts++;
                declared.host = &f;
                break;
            case FieldId::transfer_encoding:
                declared.transfer_encoding = &f;
                note_codings(head.value(f), declared);
                declared.not_one_word |= !is_token(head.value(f));
                break;
            case FieldId::content_length:
                if (declared.has_length) return Rule::content_length_repeated;
                declared.has_length = true;
                if (Rule r = parse_content_length(head.value(f), declared.length); r != Rule::ok) return r;
                break;
            default: break;
        }
    }
    if (declared.options > max_connection_options) return Rule::too_many_connection_options;
    if (!declared.transfer_encoding) return Rule::ok;
    if (declared.has_length) return Rule::content_length_with_transfer_encoding;
    if (head.version == Version::http10) return Rule::transfer_encoding_in_http10;
    if (declared.codings == 0) return Rule::transfer_encoding_empty;
    return Rule::ok;
}

Rule check_codings(const Declared& declared) {
    if (!declared.chunked_last || declared.chunked_early) return Rule::transfer_encoding_not_chunked;
    if (declared.codings > 1) return Rule::transfer_encoding_unsupported;
    // Empty elements are legal in lists, but "chunked," is read in two ways.
    return declared.not_one_word ? Rule::transfer_encoding_not_chunked : Rule::ok;
}

bool lives_on(Version version, const Declared& declared) {
    if (version == Version::http2) return true;
    if (declared.close) return false;
    return version == Version::http11 || declared.keep_alive;
}

void frame_length(uint64_t length, Framing& framing) {
    framing.declared = BodyKind::length;
    framing.body = length ? BodyKind::length : BodyKind::none;
    framing.length = length;
}

}  // namespace

std::string_view rule_name(Rule rule) { return rules[size_t(rule)].name; }
uint16_t rule_status(Rule rule) { return rules[size_t(rule)].status; }

Rule parse_content_length(std::string_view value, uint64_t& length) {
    if (value.empty()) return Rule::content_length_invalid;
    uint64_t sum = 0;
    for (char c : value) {
        if (!chars::is_digit(c)) return Rule::content_length_invalid;
        uint64_t digit = uint64_t(c - '0');
        if (sum > (uint64_t(INT64_MAX) - digit) / 10) return Rule::content_length_invalid;
        sum = sum * 10 + digit;
    }
    length = sum;
    return Rule::ok;
}

Rule frame_request(const Head& head, Framing& framing) {
    framing = {};
    Target target;
    if (Rule rule = parse_target(head.method, head.target(), target); rule != Rule::ok) return rule;
    Declared declared;
    if (Rule rule = read_declared(head, declared); rule != Rule::ok) return rule;

    if (!declared.host && head.version == Version::http11) return Rule::host_missing;
    if (declared.hosts > 1) return Rule::host_repeated;
    if (declared.host) {
        std::string_view host = head.value(*declared.host);
        if (!is_host(host)) return Rule::host_invalid;
        if (!target.authority.empty() && !same_authority(target.authority, host, target.scheme)) {
            return Rule::host_differs;
        }
    }

    if (declared.transfer_encoding) {
        if (Rule rule = check_codings(declared); rule != Rule::ok) return rule;
        framing.body = framing.declared = BodyKind::chunked;
    } else if (declared.has_length) {
        frame_length(declared.length, framing);
    }
    if (head.method == Method::connect && framing.body != BodyKind::none) return Rule::connect_with_body;

    framing.keep_alive = lives_on(head.version, declared);
    framing.upgrade = framing.body == BodyKind::none && declared.upgrade_named && wants_upgrade(head);
    if (head.version == Version::http10) return Rule::ok;  // knows no Expect
    for (const Field& f : head) {
        if (f.id != FieldId::expect) continue;
        if (!equal_ignoring_case(head.value(f), "100-continue")) return Rule::expect_unknown;
        framing.expect_continue = framing.body != BodyKind::none;
    }
    return Rule::ok;
}

Rule frame_response(const Head& head, const Asked& asked, Framing& framing) {
    framing = {};
    Declared declared;
    if (Rule rule = read_declared(head, declared); rule != Rule::ok) return rule;
    framing.keep_alive = lives_on(head.version, declared);

    if (head.status == 101) {
        if (!asked.upgrade) return Rule::unexpected_101;
        framing.upgrade = framing.tunnel = true;
        return Rule::ok;
    }
    if (is_interim(head.status) || head.status == 204) return Rule::ok;  // what they declare means nothing
    if (asked.method == Method::connect && head.status / 100 == 2) {
        framing.tunnel = true;
        return Rule::ok;
    }

    if (declared.transfer_encoding) {
        bool identity =
            declared.codings == 1 && equal_ignoring_case(head.value(*declared.transfer_encoding), "identity");
        if (Rule rule = check_codings(declared); rule != Rule::ok && !identity) return rule;
        framing.body = framing.declared = identity ? BodyKind::until_close : BodyKind::chunked;
    } else if (declared.has_length) {
        frame_length(declared.length, framing);
    } else {
        framing.body = framing.declared = BodyKind::until_close;
    }
    if (asked.method == Method::head || head.status == 304) {
        framing.body = BodyKind::none;
        if (framing.declared == BodyKind::until_close) framing.declared = BodyKind::none;
    }
    if (framing.body == BodyKind::until_close) framing.keep_alive = false;
    return Rule::ok;
}

Rule check_trailers(Head& trailers) {
    constexpr FieldSet refused{FieldId::content_length, FieldId::transfer_encoding, FieldId::host};
    constexpr FieldSet dropped{
        // framing and this hop
        FieldId::connection, FieldId::expect, FieldId::upgrade, FieldId::te, FieldId::trailer,
        FieldId::keep_alive, FieldId::proxy_connection, FieldId::http2_settings, FieldId::proxy,
        FieldId::max_forwards,
        // who asks
        FieldId::authorization, FieldId::proxy_authenticate, FieldId::proxy_authorization,
        FieldId::www_authenticate, FieldId::cookie, FieldId::set_cookie, FieldId::x_forwarded_for,
        FieldId::x_forwarded_proto, FieldId::x_forwarded_host, FieldId::x_forwarded_port, FieldId::forwarded,
        FieldId::x_real_ip, FieldId::via, FieldId::x_request_id, FieldId::traceparent, FieldId::tracestate,
        FieldId::x_penstock, FieldId::sec_websocket_key, FieldId::sec_websocket_accept,
        // how to read the content, and what must be known before it
        FieldId::content_type, FieldId::content_encoding, FieldId::content_range, FieldId::range,
        FieldId::cache_control, FieldId::age, FieldId::date, FieldId::expires, FieldId::location,
        FieldId::pragma, FieldId::retry_after, FieldId::vary, FieldId::if_match, FieldId::if_modified_since,
        FieldId::if_none_match, FieldId::if_range, FieldId::if_unmodified_since, FieldId::grpc_timeout,
        FieldId::alt_svc};
    for (Field& f : trailers) {
        if (refused.has(f.id)) return Rule::trailer_forbidden;
        if (dropped.has(f.id)) f.flags |= field_dropped;
    }
    return Rule::ok;
}

Rule check_h2_fields(const Head& head) {
    constexpr FieldSet of_connection{FieldId::connection, FieldId::keep_alive, FieldId::proxy_connection,
                                     FieldId::transfer_encoding, FieldId::upgrade};
    for (const Field& f : head) {
        std::string_view name = head.name(f);
        if (!is_token(name)) return name.empty() ? Rule::name_empty : Rule::name_invalid;
        for (char c : name) {
            if (c >= 'A' && c <= 'Z') return Rule::h2_name_uppercase;
        }
        if (!is_field_value(head.value(f))) return Rule::control_character;
        if (of_connection.has(f.id)) return Rule::h2_connection_field;
        if (f.id == FieldId::te && head.value(f) != "trailers") return Rule::h2_connection_field;
    }
    return Rule::ok;
}

bool is_safe(Method method) {
    switch (method) {
        case Method::get:
        case Method::head:
        case Method::options:
        case Method::trace:
        case Method::propfind:
        case Method::report:
        case Method::search: return true;
        default: return false;
    }
}

bool is_idempotent(Method method) {
    switch (method) {
        case Method::other:
        case Method::post:
        case Method::patch:
        case Method::connect:
        case Method::lock:
        case Method::m_search:
        case Method::notify:
        case Method::source:
        case Method::subscribe:
        case Method::unsubscribe: return false;
        default: return true;
    }
}

bool is_host(std::string_view text) {
    if (text.empty()) return true;
    std::string_view port;
    if (text.front() == '[') {
        size_t end = text.find(']');
        if (end == text.npos || end < 3) return false;
        for (char c : text.substr(1, end - 1)) {
            if (chars::hex(c) < 0 && c != ':' && c != '.') return false;
        }
        port = text.substr(end + 1);
    } else {
        size_t end = 0;
        while (end < text.size() && chars::is(text[end], chars::host)) end++;
        if (end == 0) return false;
        port = text.substr(end);
    }
    if (port.empty()) return true;
    if (port.front() != ':' || port.size() > 6) return false;
    unsigned number = 0;
    for (char c : port.substr(1)) {
        if (!chars::is_digit(c)) return false;
        number = number * 10 + unsigned(c - '0');
    }
    return number <= 65535;
}

bool is_request_id(std::string_view text) {
    if (text.empty() || text.size() > 128) return false;
    for (char c : text) {
        if (!chars::is(c, chars::host) && std::string_view(":/+=@").find(c) == std::string_view::npos)
            return false;
    }
    return true;
}

bool is_traceparent(std::string_view text) {
    if (text.size() != 55 || !text.starts_with("00-") || text[35] != '-' || text[52] != '-') return false;
    auto is_hex = [](std::string_view part) {
        for (char c : part) {
            if (chars::hex(c) < 0 || (c >= 'A' && c <= 'F')) return false;
        }
        return true;
    };
    auto is_zero = [](std::string_view part) { return part.find_first_not_of('0') == part.npos; };
    std::string_view trace = text.substr(3, 32), parent = text.substr(36, 16), flags = text.substr(53);
    return is_hex(trace) && is_hex(parent) && is_hex(flags) && !is_zero(trace) && !is_zero(parent);
}

}  // namespace penstock
