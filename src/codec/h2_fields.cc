#include "codec/h2_fields.h"

#include <charconv>

namespace penstock {

namespace {

constexpr FieldSet of_connection{FieldId::connection,       FieldId::keep_alive,
                                 FieldId::proxy_connection, FieldId::transfer_encoding,
                                 FieldId::http2_settings,   FieldId::upgrade};

// They differ each time: in HPACK's table they would only push out what comes again.
bool differs_each_time(std::string_view name) {
    return name == "x-request-id" || name == "server-timing" || name == "traceparent";
}

}  // namespace

void H2Fields::add(std::string_view name, std::string_view value) {
    auto bytes = [](std::string_view text) {
        return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
    };
    uint8_t flags = differs_each_time(name) ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE;
    fields_.push_back({bytes(name), bytes(value), name.size(), value.size(), flags});
}

void H2Fields::add_head(const Head& head, const FieldSet& skipped) {
    for (const Field& f : head) {
        if ((f.flags & field_dropped) || skipped.has(f.id)) continue;
        add(head.name(f), head.value(f));
    }
}

void H2Fields::add_edit(const HeadEdit& edit) {
    for (const FieldLine& line : edit.add) add(line.name, line.value);
    if (edit.declare != BodyKind::length) return;
    char* end = std::to_chars(number_, std::end(number_), edit.length).ptr;
    add("content-length", {number_, static_cast<size_t>(end - number_)});
}

void H2Fields::request(const Head& head, const HeadEdit& edit, std::string_view scheme,
                       std::string_view authority, std::string_view protocol) {
    bool connect = head.method == Method::connect;
    add(":method", protocol.empty() ? method_name(head.method) : "CONNECT");
    if (!protocol.empty()) add(":protocol", protocol);
    if (!connect || !protocol.empty()) {
        add(":scheme", scheme);
        add(":path", edit.target.empty() ? head.target() : edit.target);
    }
    if (!edit.host.empty()) authority = edit.host;
    if (!authority.empty()) add(":authority", authority);  // HTTP/1.0 may have none, and then there is none
    FieldSet skipped = edit.drop;
    skipped.add(of_connection);
    skipped.add(FieldId::host);
    skipped.add(FieldId::content_length);
    add_head(head, skipped);
    add_edit(edit);
}

void H2Fields::response(const Head& head, const HeadEdit& edit) {
    constexpr size_t digits = 3;
    char* status = number_ + sizeof number_ - digits;
    std::to_chars(status, status + digits, head.status);
    add(":status", {status, digits});
    FieldSet skipped = edit.drop;
    skipped.add(of_connection);
    skipped.add(FieldId::content_length);
    skipped.add(FieldId::te);
    add_head(head, skipped);
    add_edit(edit);
}

void H2Fields::trailers(const Head& trailers) {
    FieldSet skipped = of_connection;
    skipped.add(FieldId::content_length);
    add_head(trailers, skipped);
}

}  // namespace penstock
