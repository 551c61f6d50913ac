#include "base/hash.h"

#include <doctest/doctest.h>
#include <string>

namespace penstock {
namespace {

// From the authors' vectors.h: key 00 01 .. 0f, text 00 01 .. of growing length, bytes little-endian.
TEST_CASE("the hash is SipHash-2-4, as its authors' test vectors say") {
    const HashKey128 key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
    std::string text;
    const auto grow_to = [&](size_t size) {
        while (text.size() < size) text += static_cast<char>(text.size());
        return std::string_view(text);
    };
    CHECK(hash(grow_to(0), key) == 0x726fdb47dd0e0e31);
    CHECK(hash(grow_to(1), key) == 0x74f839c593dc67fd);
    CHECK(hash(grow_to(7), key) == 0xab0200f58b01d137);
    CHECK(hash(grow_to(8), key) == 0x93f5f5799a932462);
    CHECK(hash(grow_to(15), key) == 0xa129ca6149be45e5);
}

TEST_CASE("the long hash is SipHash-2-4 with 128 bits, as its authors' test vectors say") {
    const HashKey128 key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
    std::string text;
    CHECK(hash128(text, key) == Hash128{0xe6a825ba047f81a3, 0x930255c71472f66d});
    while (text.size() < 15) text += static_cast<char>(text.size());
    CHECK(hash128(text.substr(0, 1), key) == Hash128{0x44af996bd8c187da, 0x45fc229b11597634});
    CHECK(hash128(text, key) == Hash128{0x11a8b03399e99354, 0xd9c3cf970fec087e});
}

TEST_CASE("another key gives another hash") { CHECK(hash("a text", {1, 2}) != hash("a text", {1, 3})); }

}  // namespace
}  // namespace penstock
