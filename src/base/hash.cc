#include "base/hash.h"

#include <bit>
#include <cstddef>

namespace penstock {

namespace {

struct Sip {
    uint64_t a, b, c, d;

    void round() {
        a += b, b = std::rotl(b, 13) ^ a, a = std::rotl(a, 32);
        c += d, d = std::rotl(d, 16) ^ c;
        a += d, d = std::rotl(d, 21) ^ a;
        c += b, b = std::rotl(b, 17) ^ c, c = std::rotl(c, 32);
    }
    void take(uint64_t word) {
        d ^= word;
        round(), round();
        a ^= word;
    }
    void take(std::string_view text);
    uint64_t end() {
        round(), round(), round(), round();
        return a ^ b ^ c ^ d;
    }
};

uint64_t little_endian(const char* from, size_t size) {
    uint64_t word = 0;
    for (size_t i = 0; i < size; ++i) word |= uint64_t{static_cast<unsigned char>(from[i])} << 8 * i;
    return word;
}

void Sip::take(std::string_view text) {
    const size_t whole = text.size() / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) take(little_endian(text.data() + i, 8));
    take(little_endian(text.data() + whole, text.size() - whole) | uint64_t{text.size()} << 56);
}

Sip begin(HashKey128 key) {
    return {0x736f6d6570736575 ^ key.low, 0x646f72616e646f6d ^ key.high, 0x6c7967656e657261 ^ key.low,
            0x7465646279746573 ^ key.high};
}

}  // namespace

uint64_t hash(std::string_view text, HashKey128 key) {
    Sip sip = begin(key);
    sip.take(text);
    sip.c ^= 0xff;
    return sip.end();
}

Hash128 hash128(std::string_view text, HashKey128 key) {
    Sip sip = begin(key);
    sip.b ^= 0xee;
    sip.take(text);
    sip.c ^= 0xee;
    Hash128 out;
    out.low = sip.end();
    sip.b ^= 0xdd;
    out.high = sip.end();
    return out;
}

}  // namespace penstock
