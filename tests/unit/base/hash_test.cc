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

TEST_CASE("another key gives another hash") { CHECK(hash("a text", {1, 2}) != hash("a text", {1, 3})); }

}  // namespace
}  // namespace penstock
