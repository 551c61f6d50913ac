// SipHash-2-4: a fast hash with a key of 128 bits. Who does not know the key cannot choose texts that fall
// together, nor find a text from its hash. The same on every machine, and in every version of penstock.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

struct HashKey128 {
    uint64_t low = 0, high = 0;
};

struct Hash128 {
    uint64_t low = 0, high = 0;
    bool operator==(const Hash128&) const = default;
};

uint64_t hash(std::string_view text, HashKey128 key = {});
// So long that no two texts meet by chance: a table may keep it instead of the text.
Hash128 hash128(std::string_view text, HashKey128 key);

}  // namespace penstock
