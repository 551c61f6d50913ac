#include "policy/router.h"

#include <doctest/doctest.h>

namespace penstock {
namespace {

std::string_view no_field(const void*, std::string_view) { return {}; }

RouteQuery query(std::string_view path, std::string_view host = "example.com",
                 std::string_view method = "GET") {
    return {.host = host, .path = path, .method = method, .field = no_field, .head = nullptr};
}

bool finds(const RoutePattern& pattern, const RouteQuery& q) {
    RouteMatch match;
    return Router({pattern}).find(q, match);
}
RoutePattern with_path(std::string path) {
    return {.host = {}, .path = std::move(path), .prefix = {}, .methods = {}, .headers = {}};
}
RoutePattern with_prefix(std::string prefix) {
    return {.host = {}, .path = {}, .prefix = std::move(prefix), .methods = {}, .headers = {}};
}
RoutePattern with_host(std::string host) {
    return {.host = std::move(host), .path = {}, .prefix = {}, .methods = {}, .headers = {}};
}

TEST_CASE("the first route that matches is taken, though a later one fits better") {
    Router router({with_prefix("/v2"), with_path("/v2/models/a/infer"), {}});
    RouteMatch match;
    REQUIRE(router.find(query("/v2/models/a/infer"), match));
    CHECK(match.route == 0);
    REQUIRE(router.find(query("/other"), match));
    CHECK(match.route == 2);
}

TEST_CASE("a request that no route matches finds none") {
    CHECK_FALSE(finds(with_path("/a"), query("/b")));
    RouteMatch match;
    CHECK_FALSE(Router().find(query("/"), match));
}

TEST_CASE("a {name} of a path captures one segment or a part of one") {
    Router router({with_path("/v2/models/{model}/versions/{version}/infer")});
    RouteMatch match;
    REQUIRE(router.find(query("/v2/models/resnet50/versions/3/infer"), match));
    CHECK(match.captured("model") == "resnet50");
    CHECK(match.captured("version") == "3");
    CHECK(match.captured("other").empty());
    CHECK_FALSE(router.find(query("/v2/models/a/b/versions/3/infer"), match));
    CHECK_FALSE(router.find(query("/v2/models//versions/3/infer"), match));
    CHECK_FALSE(router.find(query("/v2/models/a/versions/3/infer/more"), match));
    CHECK_FALSE(router.find(query("/v2/models/a/versions/3"), match));
}

TEST_CASE("text around a {name} is found though the name holds it too") {
    Router router({with_path("/files/{name}.json"), with_path("/x-{a}-{b}-y")});
    RouteMatch match;
    REQUIRE(router.find(query("/files/a.b.json"), match));
    CHECK(match.captured("name") == "a.b");
    CHECK_FALSE(router.find(query("/files/.json"), match));
    REQUIRE(router.find(query("/x-1-2-3-y"), match));
    CHECK(match.captured("a") == "1");
    CHECK(match.captured("b") == "2-3");
    CHECK_FALSE(router.find(query("/x--2-y"), match));
    CHECK_FALSE(router.find(query("/x-1--y"), match));
}

TEST_CASE("a path without captures matches itself and nothing more") {
    CHECK(finds(with_path("/health"), query("/health")));
    CHECK_FALSE(finds(with_path("/health"), query("/health/")));
    CHECK_FALSE(finds(with_path("/health"), query("/healthy")));
    CHECK(finds(with_path("/a/"), query("/a/")));
    CHECK_FALSE(finds(with_path("/a/"), query("/a")));
}

TEST_CASE("a prefix ends where a segment ends") {
    CHECK(finds(with_prefix("/api"), query("/api")));
    CHECK(finds(with_prefix("/api"), query("/api/x")));
    CHECK_FALSE(finds(with_prefix("/api"), query("/apix")));
    CHECK(finds(with_prefix("/api/"), query("/api/x")));
    CHECK_FALSE(finds(with_prefix("/api/"), query("/api")));
}

TEST_CASE("hosts match in any letter case, and a star matches every name below") {
    CHECK(finds(with_host("ocr.example.com"), query("/", "OCR.Example.com")));
    CHECK_FALSE(finds(with_host("ocr.example.com"), query("/", "example.com")));
    CHECK(finds(with_host("*.example.com"), query("/", "a.b.EXAMPLE.com")));
    CHECK_FALSE(finds(with_host("*.example.com"), query("/", "example.com")));
    CHECK_FALSE(finds(with_host("*.example.com"), query("/", "badexample.com")));
}

TEST_CASE("methods are compared as they are, and one of the list is enough") {
    RoutePattern pattern;
    pattern.methods = {"POST", "PUT"};
    CHECK(finds(pattern, query("/", "h", "PUT")));
    CHECK_FALSE(finds(pattern, query("/", "h", "GET")));
    CHECK_FALSE(finds(pattern, query("/", "h", "put")));
}

TEST_CASE("every header of a route must be there with its value") {
    RoutePattern pattern;
    pattern.headers = {{"x-tier", "gold"}, {"x-region", "eu"}};
    RouteQuery q = query("/");
    CHECK_FALSE(finds(pattern, q));
    q.field = [](const void*, std::string_view name) -> std::string_view {
        return name == "x-tier" ? "gold" : "eu";
    };
    CHECK(finds(pattern, q));
    q.field = [](const void*, std::string_view) -> std::string_view { return "gold"; };
    CHECK_FALSE(finds(pattern, q));
}

TEST_CASE("what was captured stands in for its name in an upstream's name") {
    Router router({with_path("/m/{model}")});
    RouteMatch match;
    REQUIRE(router.find(query("/m/llama"), match));
    CHECK(expand("gpu-{model}-1", match) == "gpu-llama-1");
    CHECK(expand("plain", match) == "plain");
    CHECK(expand("{none}", match).empty());
}

}  // namespace
}  // namespace penstock
