// UTF-8, as strictly as a parser of JSON or of metrics reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

struct CodePoint {
    char32_t value = 0;
    size_t size = 0;  // in bytes; 0: `text` does not begin with a code point (cut off, overlong, a surrogate)
};

inline CodePoint first_code_point(std::string_view text) {
    auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    if (text.empty()) return {};
    uint8_t lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return {};
    char32_t value = lead & (0x7f >> size);
    for (size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {};
        value = value << 6 | (byte(i) & 0x3f);
    }
    constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return {};
    return {value, size};
}

// A character that a terminal or a line-wise reader might obey.
constexpr bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7f && c < 0xa0); }

}  // namespace penstock
