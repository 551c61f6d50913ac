// Head is the start line and the fields of one message, or a trailer section (then it has no start line).
// It owns nothing: text and fields lie in the reader's input and scratch array (valid until that input
// moves) or, after copy_head(), in an arena. All positions are offsets into text, so a copy is two memcpy.
// Surprising: dropping a field only sets a flag, the writer skips it; logs and rules still see it if they
// ask.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/fields.h"

namespace penstock {

class Arena;

// Exactly the methods that llhttp knows of HTTP; any other is refused with 501.
// clang-format off
enum class Method : uint8_t {
    other,  // a response or trailers; never a request that was accepted
    get, head, post, put, delete_, connect, options, trace, patch,
    acl, bind, checkout, copy, link, lock, merge, mkactivity, mkcalendar, mkcol, move, m_search, notify,
    propfind, proppatch, purge, rebind, report, search, source, subscribe, unbind, unlink, unlock, unsubscribe,
};
// clang-format on

Method method_of(std::string_view text);      // exact letter case, as the RFC has it
std::string_view method_name(Method method);  // empty for `other`

enum class Version : uint8_t { http10, http11, http2 };

struct Span {
    uint32_t at = 0;
    uint32_t size = 0;
};

struct Head {
    const char* text = nullptr;
    uint32_t text_size = 0;
    uint32_t field_count = 0;
    Field* fields = nullptr;
    Span target_at;       // requests: as sent
    Span reason_at;       // responses: may be empty
    uint16_t status = 0;  // 0: not a response
    Method method = Method::other;
    Version version = Version::http11;

    std::string_view span(Span s) const { return {text + s.at, s.size}; }
    std::string_view target() const { return span(target_at); }
    std::string_view reason() const { return span(reason_at); }
    std::string_view name(const Field& f) const { return {text + f.name_at, f.name_size}; }
    std::string_view value(const Field& f) const { return {text + f.value_at, f.value_size}; }

    Field* begin() const { return fields; }
    Field* end() const { return fields + field_count; }

    // The first such field, dropped or not; null where there is none. FieldId::other is not a key.
    const Field* find(FieldId id) const;
    const Field* find(std::string_view name) const;
    std::string_view value_of(FieldId id) const;  // of the first; empty where there is none
    std::string_view value_of(std::string_view name) const;
    uint32_t count(FieldId id) const;

    void drop(FieldId id);
    void drop(const FieldSet& ids);
};

// A copy that lives as long as the arena.
Head copy_head(const Head& head, Arena& arena);

// Builds a head field by field (HPACK, our own answers). Grows inside the arena. The setters and add() copy
// what they are given. add() takes names and values that are already legal; it says no once `max_bytes`
// or `max_fields` would be passed.
class HeadBuilder {
  public:
    explicit HeadBuilder(Arena& arena, uint32_t max_bytes = 32 * 1024, uint32_t max_fields = 128);
    void method(Method method) { head_.method = method; }
    void version(Version version) { head_.version = version; }
    void status(uint16_t status) { head_.status = status; }
    bool target(std::string_view target);
    bool reason(std::string_view reason);
    bool add(std::string_view name, std::string_view value);
    const Head& head() const { return head_; }  // valid until the next setter or add()

  private:
    bool append(std::string_view text, uint32_t& at);

    Arena& arena_;
    Head head_;
    char* text_ = nullptr;
    uint32_t text_room_ = 0;
    uint32_t field_room_ = 0;
    uint32_t max_bytes_;
    uint32_t max_fields_;
};

}  // namespace penstock
