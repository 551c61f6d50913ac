#include "http/target.h"

#include <string>

#include "parsed.h"

using namespace penstock;

namespace {

std::string routed(const std::string& path) {
    std::string out(path.size() + 1, '?');
    size_t size = 0;
    Rule rule = routing_path(path, out.data(), size);
    if (rule != Rule::ok) return std::string(rule_name(rule));
    REQUIRE(size <= path.size() + 1);
    return out.substr(0, size);
}

std::string stripped(const std::string& text, const std::string& prefix) {
    ChunkPool pool;
    char first[64];
    Arena arena(pool, first, sizeof first);
    Target target;
    REQUIRE(parse_target(Method::get, text, target) == Rule::ok);
    std::string path = routed(std::string(target.path));
    return std::string(strip_prefix(target, path, prefix, arena));
}

}  // namespace

TEST_CASE("a target is taken apart by its form") {
    Target t;
    CHECK(parse_target(Method::get, "/a/b?c=d?e", t) == Rule::ok);
    CHECK(t.form == Target::Form::origin);
    CHECK(t.path == "/a/b");
    CHECK(t.query == "c=d?e");
    CHECK(t.origin == "/a/b?c=d?e");
    CHECK(parse_target(Method::get, "http://A.example:80/p?q", t) == Rule::ok);
    CHECK(t.form == Target::Form::absolute);
    CHECK(t.scheme == "http");
    CHECK(t.authority == "A.example:80");
    CHECK(t.path == "/p");
    CHECK(t.origin == "/p?q");
    CHECK(parse_target(Method::get, "http://a?q", t) == Rule::ok);
    CHECK(t.path == "");
    CHECK(t.query == "q");
    CHECK(t.origin == "?q");
    CHECK(parse_target(Method::get, "http://a", t) == Rule::ok);
    CHECK(t.origin == "/");
    CHECK(parse_target(Method::options, "http://a", t) == Rule::ok);
    CHECK(t.origin == "*");
    CHECK(parse_target(Method::options, "*", t) == Rule::ok);
    CHECK(t.form == Target::Form::asterisk);
    CHECK(parse_target(Method::connect, "[::1]:443", t) == Rule::ok);
    CHECK(t.form == Target::Form::authority);
    CHECK(t.authority == "[::1]:443");
    CHECK(parse_target(Method::get, "", t) == Rule::target_invalid);
}

TEST_CASE("plain paths are routed as they are") {
    for (std::string path : {"/", "/a", "/a/", "/a//b", "/v2/models/resnet50/infer", "/a.b/.c/..d/e..",
                             "/...", "/a;b=c/d", "/*"}) {
        CHECK(routed(path) == path);
    }
    CHECK(routed("") == "/");
    CHECK(routed("*") == "*");
}

TEST_CASE("escapes of unreserved characters are decoded for routing, others stay") {
    CHECK(routed("/%41%7a%2D%2e%5F%7Ea") == "/Az-._~a");
    CHECK(routed("/a%20b") == "/a%20b");
    CHECK(routed("/a%2fb") == "/a%2Fb");
    CHECK(routed("/a%25b") == "/a%25b");
    CHECK(routed("/a%252eb") == "/a%252eb");
    CHECK(routed("/%e4") == "/%E4");
}

TEST_CASE("broken escapes and escaped control characters are refused") {
    for (std::string path :
         {"/%", "/%4", "/%zz", "/%4g", "/a%", "/%00", "/a%0d%0ab", "/%09", "/%1f", "/%7f", "/%7F"}) {
        INFO(path);
        CHECK(routed(path) == "target_escape");
    }
}

TEST_CASE("dot segments are resolved, escaped or not") {
    CHECK(routed("/a/./b") == "/a/b");
    CHECK(routed("/a/b/../c") == "/a/c");
    CHECK(routed("/a/b/..") == "/a/");
    CHECK(routed("/a/.") == "/a/");
    CHECK(routed("/.") == "/");
    CHECK(routed("/a/..") == "/");
    CHECK(routed("/a/%2e%2e/b") == "/b");
    CHECK(routed("/a/.%2E/b") == "/b");
    CHECK(routed("/a//../b") == "/a/b");
    CHECK(routed("/a/b/c/../../d") == "/a/d");
}

TEST_CASE("climbing above the root is refused") {
    for (std::string path : {"/..", "/../a", "/%2e%2e", "/%2e%2e/a", "/a/../..", "/a/../../b", "/./..",
                             "/a/%2e%2e/%2e%2e/etc"}) {
        INFO(path);
        CHECK(routed(path) == "path_above_root");
    }
}

TEST_CASE("dot segments that only some readers see are refused") {
    for (std::string path :
         {"/a/..%2fb", "/a%2f..%2fb", "/a%2f..", "/a%2f../b", "/a\\..\\b", "/a/..\\b", "/a%5c..%5Cb",
          "/a/..;/b", "/a/..;x=y/b", "/a/.%2e%2fb", "/a/.;/b", "/a%2f.%2fb", "/..%2f"}) {
        INFO(path);
        CHECK(routed(path) == "path_ambiguous");
    }
    CHECK(routed("/a%2fb%2fc") == "/a%2Fb%2Fc");
    CHECK(routed("/a/b;..c/d") == "/a/b;..c/d");
    CHECK(routed("/a/...%2fb") == "/a/...%2Fb");
}

TEST_CASE("a prefix is stripped off the bytes that came") {
    CHECK(stripped("/api/a/b?c", "/api/") == "/a/b?c");
    CHECK(stripped("/api/a%20b", "/api") == "/a%20b");
    CHECK(stripped("/api", "/api") == "/");
    CHECK(stripped("/api/", "/api/") == "/");
    CHECK(stripped("/api?q", "/api") == "?q");
    CHECK(stripped("/a", "/") == "/a");
    CHECK(stripped("http://h/api/a?b", "/api/") == "/a?b");
}

TEST_CASE("where dots or escapes stand in the way, the normalised rest is sent") {
    CHECK(stripped("/%61pi/a", "/api/") == "/a");
    CHECK(stripped("/x/../api/a?q=%2e", "/api/") == "/a?q=%2e");
    CHECK(stripped("/api/../api/secret", "/api/") == "/secret");
    CHECK(stripped("/api/a/%2e%2e/b?", "/api") == "/b?");
    CHECK(stripped("/api/./", "/api") == "/");
}

TEST_CASE("two authorities are the same place regardless of letter case and a default port") {
    CHECK(same_authority("a.Example", "A.example:80", "http"));
    CHECK(same_authority("a:443", "a", "https"));
    CHECK(same_authority("a:", "a", "http"));
    CHECK(same_authority("[::1]", "[::1]:80", "http"));
    CHECK_FALSE(same_authority("a:443", "a", "http"));
    CHECK_FALSE(same_authority("a", "b", "http"));
    CHECK_FALSE(same_authority("[::1]", "[::2]", "http"));
    CHECK(host_of("a:80") == "a");
    CHECK(host_of("[::1]:80") == "[::1]");
    CHECK(host_of("[::1]") == "[::1]");
    CHECK(host_of("") == "");
}
