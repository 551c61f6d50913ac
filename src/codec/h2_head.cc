#include "codec/h2_head.h"

#include <cstring>

#include "base/text.h"
#include "http/chars.h"
#include "http/target.h"

namespace penstock {

namespace {

// A head this many times over its limits is not decoded to its end: a few bytes on the wire can name a large
// field of HPACK's table again and again.
constexpr uint64_t bomb_factor = 8;

enum Pseudo : uint8_t { method = 1, scheme = 2, authority = 4, path = 8, protocol = 16, status = 32 };

bool is_lower(std::string_view name) {
    for (char c : name) {
        if (c >= 'A' && c <= 'Z') return false;
    }
    return true;
}

}  // namespace

void H2HeadReader::begin(Kind kind) {
    clear();
    kind_ = kind;
    builder_.emplace(arena_, kind == Kind::trailers ? limits_.trailer_bytes : limits_.head_bytes,
                     limits_.fields);
    builder_->version(Version::http2);
}

void H2HeadReader::clear() {
    builder_.reset();
    arena_.clear();
    crumbs_.clear();
    scheme_ = authority_ = host_ = protocol_ = target_ = {};
    size_ = 0;
    rule_ = Rule::ok;
    seen_ = 0;
    regular_ = has_host_ = false;
}

bool H2HeadReader::add(std::string_view name, std::string_view value) {
    size_ += name.size() + value.size() + 32;
    if (size_ > bomb_factor * (limits_.head_bytes + uint64_t{32} * limits_.fields)) return false;
    // Even behind what broke a rule: who asked for what is answered and logged.
    Rule rule = take(name, value);
    if (rule_ == Rule::ok) rule_ = rule;
    return true;
}

Rule H2HeadReader::take(std::string_view name, std::string_view value) {
    if (name.starts_with(':')) return take_pseudo(name, value);
    regular_ = true;
    if (!is_token(name)) return name.empty() ? Rule::name_empty : Rule::name_invalid;
    if (!is_lower(name)) return Rule::h2_name_uppercase;
    if (!is_field_value(value) || without_ows(value).size() != value.size()) return Rule::control_character;
    if (kind_ == Kind::request && name == "host") {
        if (has_host_) return Rule::host_repeated;
        has_host_ = true;
        host_ = arena_.keep(value);
        return Rule::ok;
    }
    if (kind_ == Kind::request && name == "cookie") {
        if (crumbs_.size() == limits_.fields) return Rule::too_many_fields;
        crumbs_.push_back(arena_.keep(value));
        return Rule::ok;
    }
    return keep(name, value);
}

Rule H2HeadReader::take_pseudo(std::string_view name, std::string_view value) {
    if (kind_ == Kind::trailers || regular_) return Rule::h2_pseudo_field;
    if (kind_ == Kind::request) return take_request_pseudo(name, value);
    if (name != ":status" || seen_ & Pseudo::status) return Rule::h2_pseudo_field;
    seen_ |= Pseudo::status;
    if (value.size() != 3) return Rule::status_invalid;
    uint16_t code = 0;
    for (char c : value) {
        if (!chars::is_digit(c)) return Rule::status_invalid;
        code = static_cast<uint16_t>(code * 10 + (c - '0'));
    }
    if (code < 100 || code > 599) return Rule::status_invalid;
    builder_->status(code);
    return Rule::ok;
}

Rule H2HeadReader::take_request_pseudo(std::string_view name, std::string_view value) {
    uint8_t which = name == ":method"      ? Pseudo::method
                    : name == ":scheme"    ? Pseudo::scheme
                    : name == ":authority" ? Pseudo::authority
                    : name == ":path"      ? Pseudo::path
                    : name == ":protocol"  ? Pseudo::protocol
                                           : 0;
    if (which == 0 || seen_ & which) return Rule::h2_pseudo_field;
    seen_ |= which;
    switch (which) {
        case Pseudo::method: {
            Method known = method_of(value);
            builder_->method(known);
            return known == Method::other ? Rule::method_unknown : Rule::ok;
        }
        case Pseudo::scheme:
            if (value != "http" && value != "https") return Rule::target_form;
            scheme_ = value == "http" ? "http" : "https";
            return Rule::ok;
        case Pseudo::authority:
            // An `@` too: userinfo is not allowed here.
            if (value.empty() || !is_host(value)) return Rule::host_invalid;
            authority_ = arena_.keep(value);
            return Rule::ok;
        case Pseudo::protocol:
            if (!is_token(value)) return Rule::h2_pseudo_field;
            protocol_ = arena_.keep(value);
            return Rule::ok;
        default: break;
    }
    for (char c : value) {
        if (!chars::is(c, chars::visible)) return Rule::target_invalid;
    }
    if (value.empty()) return Rule::target_invalid;
    target_ = arena_.keep(value);
    return value.front() == '/' || value == "*" ? Rule::ok : Rule::target_form;
}

Rule H2HeadReader::keep(std::string_view name, std::string_view value) {
    if (name.size() > UINT16_MAX) return Rule::name_too_long;
    if (builder_->add(name, value)) return Rule::ok;
    if (builder_->head().field_count == limits_.fields) return Rule::too_many_fields;
    return kind_ == Kind::trailers ? Rule::trailers_too_long : Rule::head_too_long;
}

// RFC 9113 8.2.3: crumbs are one field again before anybody reads it.
Rule H2HeadReader::join_cookies() {
    if (crumbs_.empty()) return Rule::ok;
    if (crumbs_.size() == 1) return keep("cookie", crumbs_[0]);
    size_t size = 0;
    for (std::string_view crumb : crumbs_) size += crumb.size() + 2;
    if (size > limits_.head_bytes) return Rule::head_too_long;
    char* joined = arena_.array<char>(size);
    char* at = joined;
    for (std::string_view crumb : crumbs_) {
        if (at != joined) {
            *at++ = ';';
            *at++ = ' ';
        }
        if (!crumb.empty()) std::memcpy(at, crumb.data(), crumb.size());
        at += crumb.size();
    }
    return keep("cookie", {joined, static_cast<size_t>(at - joined)});
}

Rule H2HeadReader::end_of_request() {
    Rule rule = join_cookies();
    bool connect = builder_->head().method == Method::connect;
    bool extended = seen_ & Pseudo::protocol;
    if (authority_.empty()) authority_ = host_;
    if (connect && !extended) target_ = authority_;
    if (!builder_->target(target_)) return Rule::target_too_long;
    if (!authority_.empty()) {
        Rule kept = keep("host", authority_);
        if (rule == Rule::ok) rule = kept;
    }
    if (rule != Rule::ok) return rule;
    uint8_t needed = Pseudo::method | Pseudo::scheme | Pseudo::path;
    uint8_t allowed = needed | Pseudo::authority;
    if (connect && extended) {
        if (!limits_.connect_protocol) return Rule::h2_pseudo_field;
        needed = allowed = needed | Pseudo::authority | Pseudo::protocol;
    } else if (connect) {
        needed = allowed = Pseudo::method | Pseudo::authority;
    }
    if ((seen_ & needed) != needed || (seen_ & ~allowed) != 0) return Rule::h2_pseudo_field;
    if (authority_.empty()) return Rule::host_missing;
    if (has_host_ && !same_authority(authority_, host_, scheme_)) return Rule::host_differs;
    return Rule::ok;
}

H2Head H2HeadReader::finish(bool end) {
    H2Head out;
    out.end = end;
    out.rule = rule_;
    Rule rule = Rule::ok;
    if (kind_ == Kind::request) rule = end_of_request();
    if (kind_ == Kind::response && !(seen_ & Pseudo::status)) rule = Rule::h2_pseudo_field;
    if (rule == Rule::ok) rule = check_h2_fields(builder_->head());
    if (out.rule == Rule::ok) out.rule = rule;
    out.head = builder_->head();
    out.scheme = scheme_;
    out.authority = authority_;
    out.protocol = protocol_;
    return out;
}

H2Head H2HeadReader::refuse() {
    H2Head out = finish(true);
    Framing framing;
    if (out.rule == Rule::ok) out.rule = frame_h2_request(out, framing);
    if (out.rule == Rule::ok) out.rule = Rule::h2_malformed;
    out.is_refused = true;
    return out;
}

H2Head H2HeadReader::give_up() {
    if (rule_ == Rule::ok) rule_ = Rule::h2_malformed;
    return refuse();
}

Rule frame_h2_request(const H2Head& request, Framing& framing) {
    const Head& head = request.head;
    // Extended CONNECT has a path as other requests have.
    Head as_get = head;
    if (!request.protocol.empty()) as_get.method = Method::get;
    Rule rule = frame_request(as_get, framing);
    if (rule != Rule::ok) return rule;
    bool declared = framing.declared == BodyKind::length;
    if (request.end) {
        if (framing.body != BodyKind::none) return Rule::h2_body_differs;
    } else if (!declared) {
        framing.body = framing.declared = BodyKind::chunked;
        framing.expect_continue = head.find(FieldId::expect) != nullptr;
    }
    framing.upgrade = false;
    return Rule::ok;
}

Rule frame_h2_response(const Head& head, const Asked& asked, bool end, Framing& framing) {
    if (head.status == 101) return Rule::unexpected_101;
    Rule rule = frame_response(head, asked, framing);
    if (rule != Rule::ok) return rule;
    framing.keep_alive = true;
    bool bodiless = has_no_body(head.status) || asked.method == Method::head;
    if (framing.declared == BodyKind::until_close)
        framing.declared = end ? BodyKind::none : BodyKind::chunked;
    if (framing.body == BodyKind::until_close) framing.body = framing.declared;
    if (end && !bodiless && framing.body == BodyKind::length) return Rule::h2_body_differs;
    return Rule::ok;
}

}  // namespace penstock
