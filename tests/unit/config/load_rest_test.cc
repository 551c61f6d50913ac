// What stands beside upstreams: routes, rate limits; and what YAML and the environment do to a file.
#include <csignal>
#include <doctest/doctest.h>

#include "loading.h"

namespace penstock {

TEST_CASE("with a single upstream and no routes everything goes to it") {
    Config config = good("upstreams: {only: {servers: [10.0.0.1:80]}}");
    REQUIRE(config.routes.size() == 1);
    CHECK(config.routes[0].upstream == "only");
    CHECK(config.routes[0].match == Match{});
    CHECK(good(beside("routes: []")).routes.size() == 1);
}

TEST_CASE("routes are read in order") {
    Config config = good(R"(
upstreams: {a: {servers: [10.0.0.1:80]}, b: {servers: [10.0.0.1:81]}}
routes:
  - {path: "/v2/models/{model}/infer", upstream: "{model}"}
  - {host: OCR.example.com, prefix: /api/, methods: [POST, PUT], headers: {X-Tier: gold}, upstream: a,
     strip_prefix: true, timeouts: {request: 60s, connect: 0}}
  - {host: "*.example.com", upstream: b}
)");
    REQUIRE(config.routes.size() == 3);
    CHECK(config.routes[0].match.path == "/v2/models/{model}/infer");
    CHECK(config.routes[0].upstream == "{model}");
    const Route& second = config.routes[1];
    CHECK(second.match == Match{"ocr.example.com", "", "/api/", {"POST", "PUT"}, {{"x-tier", "gold"}}});
    CHECK(second.strip_prefix);
    CHECK(*second.timeouts.request == 60s);
    CHECK(*second.timeouts.connect == 0s);
    CHECK(!second.timeouts.idle);
    CHECK(config.routes[2].match.host == "*.example.com");
}

TEST_CASE("rate limits are read") {
    Config config = good(beside(R"(
routes: [{path: "/m/{model}", upstream: a}]
rate_limits:
  - {name: per-client, key: client_ip, rate: 10/s, burst: 20}
  - {name: tenants, key: "header:Authorization", concurrency: 4, match: {prefix: /api/}}
  - {name: models, key: "path:model", rate: 600/m}
  - {name: seldom, key: "cookie:Sid", rate: 5/h}
  - {name: routes, key: route, rate: 1/s}
  - {name: all, key: global, rate: 7/s})"));
    REQUIRE(config.rate_limits.size() == 6);
    RateLimit per_client;
    per_client.name = "per-client";
    per_client.key = LimitKey::client_ip;
    per_client.rate = Rate{10, 1s};
    per_client.burst = 20;
    CHECK(config.rate_limits[0] == per_client);
    CHECK(config.rate_limits[1].key == LimitKey::header);
    CHECK(config.rate_limits[1].key_name == "authorization");
    CHECK(!config.rate_limits[1].rate);
    CHECK(config.rate_limits[1].concurrency == 4);
    CHECK(config.rate_limits[1].match.prefix == "/api/");
    CHECK(config.rate_limits[2].key_name == "model");
    CHECK(config.rate_limits[2].burst == 10);  // what the rate gives in a second
    CHECK(config.rate_limits[3].key_name == "Sid");
    CHECK(config.rate_limits[3].burst == 1);
    CHECK(config.rate_limits[4].key == LimitKey::route);
    CHECK(config.rate_limits[5].key == LimitKey::global);
}

TEST_CASE("what a rate limit may say beside its rate is read") {
    Config config = good(beside(R"(
rate_limits:
  - {name: a, key: client_ip, rate: 10/s, delay: 2s, cost: "header:X-Cost", dry_run: true, headers: false, keys: 7,
     ipv6_prefix: 56})"));
    const RateLimit& limit = config.rate_limits[0];
    CHECK(limit.delay == 2s);
    CHECK(limit.cost_header == "x-cost");
    CHECK(limit.dry_run);
    CHECK_FALSE(limit.headers);
    CHECK(limit.keys == 7);
    CHECK(limit.ipv6_prefix == 56);
}

TEST_CASE("where a rate limit counts requests in flight, abandoned work is drained") {
    CHECK(good(beside("rate_limits: [{name: a, key: global, rate: 1/s}]")).upstreams[0].on_abandon ==
          OnAbandon::close);
    CHECK(good(beside("rate_limits: [{name: a, key: global, concurrency: 1}]")).upstreams[0].on_abandon ==
          OnAbandon::drain);
}

TEST_CASE("anchors, aliases and merge keys say a thing once") {
    Config config = good(R"(
upstreams:
  a: &a
    servers: [10.0.0.1:80]
    queue: &queue {size: 5, timeout: 1s}
    concurrency: 2
  b:
    <<: *a
    queue: {<<: *queue, size: 6}
  c:
    <<: [{concurrency: 7}, *a]
routes: [{prefix: /a, upstream: a}, {prefix: /b, upstream: b}, {upstream: c}]
)");
    REQUIRE(config.upstreams.size() == 3);
    CHECK(config.upstreams[1].servers == config.upstreams[0].servers);
    CHECK(config.upstreams[1].queue.size == 6);
    CHECK(config.upstreams[1].queue.timeout == 1s);
    CHECK(config.upstreams[2].concurrency == 7);
    CHECK(config.upstreams[2].queue.size == 5);
}

TEST_CASE("variables of the environment are filled in, and $${ is a plain ${") {
    auto directory = [](std::string_view text) {
        return upstream(with_workers("", "directory: \"" + std::string(text) + "\"")).workers->directory;
    };
    CHECK(directory("${HOME}") == "/home/me");
    CHECK(directory("a${COUNT}b${COUNT}${EMPTY}") == "a3b3");
    CHECK(directory("$${HOME}") == "${HOME}");
    CHECK(directory("$HOME $$ $") == "$HOME $$ $");
    CHECK(upstream(with_workers("", "environment: {A: \"$${SOCKET} ${EMPTY}\"}"))
              .workers->environment[0]
              .second == "${SOCKET} ");
}

TEST_CASE("places are kept for what is found later") {
    Loaded loaded =
        load_text("listen:\n  - address: 127.0.0.1:0\nupstreams:\n  a:\n    servers: [10.0.0.1:80]\n");
    CHECK(loaded.places.has("listen[0].address"));
    CHECK(!loaded.places.has("listen[0].tls"));
    CHECK(loaded.places.of("listen[0].address") == Place{2, 5});
    CHECK(loaded.places.of("upstreams.a.servers[0]") == Place{5, 15});
    CHECK(loaded.places.of("upstreams.a.queue.size") == Place{4, 3});  // what is around it
    CHECK(loaded.places.of("limits.memory") == Place{1, 1});
}

}  // namespace penstock
