#include "http/head.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>

#include "base/arena.h"
#include "base/text.h"
#include "http/chars.h"

namespace penstock {

namespace {

// clang-format off
constexpr std::string_view methods[] = {  // indexed by Method
    "",
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE",
    "M-SEARCH", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE",
    "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
};
// clang-format on
static_assert(std::size(methods) == size_t(Method::unsubscribe) + 1);

}  // namespace

Method method_of(std::string_view text) {
    for (size_t i = 1; i < std::size(methods); i++) {  // the frequent ones come first
        if (methods[i] == text) return Method(i);
    }
    return Method::other;
}

std::string_view method_name(Method method) { return methods[size_t(method)]; }

const Field* Head::find(FieldId id) const {
    for (const Field& f : *this) {
        if (f.id == id && id != FieldId::other) return &f;
    }
    return nullptr;
}

const Field* Head::find(std::string_view wanted) const {
    for (const Field& f : *this) {
        if (equal_ignoring_case(name(f), wanted)) return &f;
    }
    return nullptr;
}

std::string_view Head::value_of(FieldId id) const {
    const Field* f = find(id);
    return f ? value(*f) : std::string_view();
}

std::string_view Head::value_of(std::string_view wanted) const {
    const Field* f = find(wanted);
    return f ? value(*f) : std::string_view();
}

uint32_t Head::count(FieldId id) const {
    return uint32_t(std::count_if(begin(), end(), [id](const Field& f) { return f.id == id; }));
}

void Head::drop(FieldId id) { drop(FieldSet(id)); }

void Head::drop(const FieldSet& ids) {
    for (Field& f : *this) {
        if (ids.has(f.id)) f.flags |= field_dropped;
    }
}

Head copy_head(const Head& head, Arena& arena) {
    Head copy = head;
    size_t field_bytes = head.field_count * sizeof(Field);
    auto* memory = static_cast<char*>(arena.allocate(field_bytes + head.text_size, alignof(Field)));
    if (field_bytes) std::memcpy(memory, head.fields, field_bytes);
    if (head.text_size) std::memcpy(memory + field_bytes, head.text, head.text_size);
    copy.fields = reinterpret_cast<Field*>(memory);
    copy.text = memory + field_bytes;
    return copy;
}

HeadBuilder::HeadBuilder(Arena& arena, uint32_t max_bytes, uint32_t max_fields)
    : arena_(arena), max_bytes_(max_bytes), max_fields_(max_fields) {}

bool HeadBuilder::target(std::string_view text) {
    if (!append(text, head_.target_at.at)) return false;
    head_.target_at.size = uint32_t(text.size());
    return true;
}

bool HeadBuilder::reason(std::string_view text) {
    if (!append(text, head_.reason_at.at)) return false;
    head_.reason_at.size = uint32_t(text.size());
    return true;
}

bool HeadBuilder::add(std::string_view name, std::string_view value) {
    assert(is_token(name) && is_field_value(value));
    if (head_.field_count == max_fields_ || name.size() > UINT16_MAX) return false;
    if (name.size() + value.size() > max_bytes_ - head_.text_size) return false;
    Field field;
    field.name_size = uint16_t(name.size());
    field.value_size = uint32_t(value.size());
    append(name, field.name_at);
    append(value, field.value_at);
    field.id = field_id(name);
    if (has_alias(name)) field.flags |= field_aliased;
    if (head_.field_count == field_room_) {
        field_room_ = std::max(16u, 2 * field_room_);
        auto* fields = arena_.array<Field>(field_room_);
        std::copy(head_.begin(), head_.end(), fields);
        head_.fields = fields;
    }
    head_.fields[head_.field_count++] = field;
    return true;
}

bool HeadBuilder::append(std::string_view text, uint32_t& at) {
    if (text.size() > max_bytes_ - head_.text_size) return false;
    uint32_t size = head_.text_size + uint32_t(text.size());
    if (size > text_room_ || !text_) {
        text_room_ = std::max({512u, size, 2 * text_room_});
        auto* grown = static_cast<char*>(arena_.allocate(text_room_, 1));
        if (text_) std::memcpy(grown, text_, head_.text_size);
        head_.text = text_ = grown;
    }
    if (!text.empty()) std::memcpy(text_ + head_.text_size, text.data(), text.size());
    at = head_.text_size;
    head_.text_size = size;
    return true;
}

}  // namespace penstock
