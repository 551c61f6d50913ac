#include "proxy/affinity.h"

#include <doctest/doctest.h>
#include <initializer_list>
#include <string>
#include <utility>

#include "base/arena.h"
#include "base/chunk.h"
#include "base/hash.h"

namespace penstock {
namespace {

struct Asked {
    explicit Asked(std::initializer_list<std::pair<std::string_view, std::string_view>> fields)
        : arena(chunks, first, sizeof first), builder(arena) {
        builder.method(Method::get);
        builder.target("/");
        for (const auto& [name, value] : fields) builder.add(name, value);
    }
    const Head& head() const { return builder.head(); }
    Asking asking(std::string_view query = "", std::string_view client = "") const {
        return {head(), "/a", query, client};
    }

    ChunkPool chunks;
    char first[256];
    Arena arena;
    HeadBuilder builder;
};

Balance by(HashKey key, std::string name = "") { return {.hash = key, .hash_name = std::move(name)}; }

TEST_CASE("the key is the hash of what the file says, and none where the request has not got it") {
    const Asked asked({{"x-session", "abc"}, {"cookie", "a=1; sid=abc"}});
    CHECK(affinity_key(by(HashKey::header, "x-session"), asked.asking()) == hash("abc"));
    CHECK(affinity_key(by(HashKey::header, "x-other"), asked.asking()) == 0);
    CHECK(affinity_key(by(HashKey::cookie, "sid"), asked.asking()) == hash("abc"));
    CHECK(affinity_key(by(HashKey::cookie, "id"), asked.asking()) == 0);
    CHECK(affinity_key(by(HashKey::query, "q"), asked.asking("p=1&q=abc")) == hash("abc"));
    CHECK(affinity_key(by(HashKey::query, "q"), asked.asking("qq=1&q")) == 0);
    CHECK(affinity_key(by(HashKey::client_ip), asked.asking("", "10.0.0.1")) == hash("10.0.0.1"));
    CHECK(affinity_key(by(HashKey::client_ip), asked.asking()) == 0);  // a unix socket
    CHECK(affinity_key(by(HashKey::path), asked.asking("x=1")) == hash("/a"));
    CHECK(affinity_key({}, asked.asking()) == 0);
}

TEST_CASE(
    "a cookie is found among others, in any of several fields, quoted or not, and only by its whole name") {
    const Asked asked({{"cookie", "xsid=1;sid2=2 ; empty="}, {"cookie", "quoted=\"3\"; sid=4"}});
    CHECK(cookie_of(asked.head(), "xsid") == "1");
    CHECK(cookie_of(asked.head(), "sid2") == "2");
    CHECK(cookie_of(asked.head(), "quoted") == "3");
    CHECK(cookie_of(asked.head(), "sid") == "4");
    CHECK(cookie_of(asked.head(), "empty") == "");
    CHECK(cookie_of(asked.head(), "SID") == "");
}

TEST_CASE("a sticky cookie names the backend that made it, and tells nothing else") {
    Balance balance;
    balance.sticky = Sticky{.cookie = "gpu"};
    const uint64_t identity = backend_identity(balance, "10.0.0.5:8000");
    Asked made({});
    const std::string cookie(sticky_cookie(*balance.sticky, identity, made.arena));
    CHECK(cookie.starts_with("gpu="));
    CHECK(cookie.ends_with("; Path=/; HttpOnly"));
    CHECK(cookie.find("10.0") == cookie.npos);
    const Asked asked({{"cookie", cookie.substr(0, cookie.find(';'))}});
    CHECK(affinity_key(balance, asked.asking()) == identity);
    CHECK_FALSE(backend_identity(balance, "10.0.0.6:8000") == identity);

    Balance keyed = balance;
    keyed.sticky->secret = "some words";
    CHECK_FALSE(backend_identity(keyed, "10.0.0.5:8000") == identity);
}

TEST_CASE("a cookie that is not one of ours names nobody") {
    Balance balance;
    balance.sticky = Sticky{.cookie = "gpu"};
    for (const char* value : {"gpu=", "gpu=1", "gpu=00000000000000zz", "gpu=0123456789ABCDEF",
                              "gpu=0123456789abcdef0", "gpu=0000000000000000"}) {
        const Asked asked({{"cookie", value}});
        CHECK(affinity_key(balance, asked.asking()) == 0);
    }
}

TEST_CASE("a sticky cookie says what the file asks for") {
    Asked made({});
    const Sticky sticky{.cookie = "s", .secure = true, .same_site = SameSite::lax, .max_age = 90s};
    CHECK(sticky_cookie(sticky, 0xabc, made.arena) ==
          "s=0000000000000abc; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=90");
}

}  // namespace
}  // namespace penstock
