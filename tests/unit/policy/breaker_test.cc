#include "policy/breaker.h"

#include <doctest/doctest.h>

namespace penstock {
namespace {

TEST_CASE("a limit is open from its first refusal on, and says so once") {
    Breaker breaker;
    CHECK_FALSE(breaker.is_open());
    breaker.refuse(Time{10s});
    breaker.refuse(Time{11s});
    CHECK(breaker.is_open());
    CHECK(breaker.since() == Time{10s});
    CHECK(breaker.refused() == 2);
    CHECK(breaker.opened() == 1);
}

TEST_CASE("it closes when it has room again and nobody was refused for a second") {
    Breaker breaker;
    breaker.refuse(Time{10s});
    CHECK_FALSE(breaker.settle(Time{10900ms}, true));
    CHECK_FALSE(breaker.settle(Time{11s}, false));
    breaker.refuse(Time{11s});
    CHECK_FALSE(breaker.settle(Time{11900ms}, true));
    CHECK(breaker.settle(Time{12s}, true));
    CHECK_FALSE(breaker.is_open());
    CHECK(breaker.since() == Time{12s});
    CHECK(breaker.closed() == 1);
    CHECK(breaker.refused_since_opened() == 2);
    CHECK_FALSE(breaker.settle(Time{20s}, true));
}

TEST_CASE("each opening counts its own refusals") {
    Breaker breaker;
    for (int i = 0; i < 5; ++i) breaker.refuse(Time{1s});
    CHECK(breaker.settle(Time{2s}, true));
    breaker.refuse(Time{3s});
    CHECK(breaker.refused_since_opened() == 1);
    CHECK(breaker.refused() == 6);
    CHECK(breaker.opened() == 2);
}

}  // namespace
}  // namespace penstock
