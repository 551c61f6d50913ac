#include "app/status.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace penstock;

namespace {

Status status_of(std::initializer_list<const char*> serving) {
    Status status;
    status.version = "0.1.0";
    status.state = "ready";
    status.listeners = {"127.0.0.1:8000"};
    status.admin = "127.0.0.1:9901";
    status.loops = 4;
    status.up = 90min + 500ms;
    status.memory_limit = 1 << 30;
    for (const char* s : serving) {
        UpstreamStatus& upstream = status.upstreams.emplace_back();
        upstream.name = "u" + std::to_string(status.upstreams.size());
        upstream.serving = s;
    }
    return status;
}

const BackendStatus busy_worker{.name = "u1/0",
                                .address = "unix:/run/x/0.sock",
                                .state = "ready",
                                .why = "busy",
                                .generation = 3,
                                .slots = 1,
                                .weight = 5,
                                .in_flight = 1,
                                .connections = 1};

}  // namespace

TEST_CASE("traffic makes sense when started, not draining, and some upstream serves") {
    CHECK(status_of({"serving"}).is_ready());
    CHECK(status_of({"none", "serving"}).is_ready());
    CHECK(status_of({}).is_ready());
    CHECK_FALSE(status_of({"coming"}).is_ready());
    CHECK_FALSE(status_of({"none", "coming"}).is_ready());
    Status status = status_of({"serving"});
    status.state = "draining";
    CHECK_FALSE(status.is_ready());
    status.state = "starting";
    CHECK_FALSE(status.is_ready());
}

TEST_CASE("the JSON has what the contract names") {
    Status status = status_of({"serving", "none"});
    UpstreamStatus& u = status.upstreams[0];
    u.queue = {2, 10, 4096};
    u.abandoned = 1;
    u.backends.push_back(busy_worker);
    u.backends.push_back({.name = "10.0.0.5:80",
                          .state = "resting",
                          .why = "ejected: consecutive_5xx",
                          .since = 10s,
                          .until = 20s,
                          .ejections = EjectionStatus{2, {{"success_rate", 0}, {"consecutive_5xx", 3}}, 1, 0},
                          .health = HealthStatus{true, "GET /health -> 200", 250ms, {{"passed", 7}}}});
    u.workers.push_back({"u1/0", 0, 4711, "ready", 3, 2, 1 << 20, 90s, {}, "ended unasked"});
    u.names.push_back({"gpu.test:80", {"10.0.0.1:80", "10.0.0.2:80"}, 7, 1, "timed out"});
    u.worker_starts = 3;
    u.worker_exits = {{"exit code 1", 2}};
    auto json = nlohmann::json::parse(status_json(status));
    CHECK(json["version"] == "0.1.0");
    CHECK(json["state"] == "ready");
    CHECK(json["listeners"] == nlohmann::json{"127.0.0.1:8000"});
    CHECK(json["admin"] == "127.0.0.1:9901");
    CHECK(json["loops"] == 4);
    CHECK(json["memory"]["limit"] == 1 << 30);
    auto& first = json["upstreams"]["u1"];
    CHECK(first["names"][0]["name"] == "gpu.test:80");
    CHECK(first["names"][0]["addresses"].size() == 2);
    CHECK(first["names"][0]["found"] == 7);
    CHECK(first["names"][0]["failed"] == 1);
    CHECK(first["names"][0]["failure"] == "timed out");
    CHECK(first["serving"] == "serving");
    CHECK(first["queue"] == nlohmann::json{{"depth", 2}, {"size", 10}, {"bytes", 4096}});
    CHECK(first["abandoned"] == 1);
    CHECK(first["backends"][0]["why"] == "busy");
    CHECK(first["backends"][0]["in_flight"] == 1);
    CHECK(first["backends"][0]["weight"] == 5);
    CHECK(first["backends"][0]["backup"] == false);
    CHECK(first["backends"][0]["until_seconds"].is_null());
    CHECK_FALSE(first["backends"][0].contains("health"));
    auto& ejected = first["backends"][1];
    CHECK(ejected["since_seconds"] == 10);
    CHECK(ejected["until_seconds"] == 20);
    CHECK(ejected["ejections"] ==
          nlohmann::json{{"total", 3},
                         {"in_row", 2},
                         {"by_reason", {{"consecutive_5xx", 3}}},
                         {"kept_by", {{"min_healthy", 1}, {"max_ejection_percent", 0}}}});
    CHECK(ejected["health"] == nlohmann::json{{"healthy", true},
                                              {"last", "GET /health -> 200"},
                                              {"seconds_ago", 0.25},
                                              {"checks", {{"passed", 7}}}});
    CHECK(first["workers"][0]["pid"] == 4711);
    CHECK(first["workers"][0]["since_seconds"] == 90);
    CHECK(first["workers"][0]["why"] == "ended unasked");
    CHECK(first["workers"][0]["restarts"] == 2);
    CHECK(first["worker_exits"]["exit code 1"] == 2);
    CHECK(json["upstreams"]["u2"]["backends"].is_array());
    CHECK_FALSE(json["upstreams"]["u2"].contains("worker_starts"));
}

TEST_CASE("the JSON stays JSON whatever bytes a name holds") {
    Status status = status_of({"serving"});
    status.upstreams[0].backends.push_back({.name = "\xff\"\n", .why = "\xc3"});
    CHECK(nlohmann::json::accept(status_json(status)));
}

TEST_CASE("people get a table") {
    Status status = status_of({"serving"});
    UpstreamStatus& u = status.upstreams[0];
    u.queue = {2, 10, 4096};
    u.backends.push_back(busy_worker);
    u.backends.push_back({.name = "10.0.0.5:80",
                          .address = "10.0.0.5:80",
                          .state = "resting",
                          .why = "ejected: consecutive_5xx",
                          .backup = true,
                          .since = 12s,
                          .until = 18400ms,
                          .ejections = EjectionStatus{1, {{"consecutive_5xx", 1}}, 0, 0},
                          .health = HealthStatus{true, "GET /health -> 200", 250ms, {}}});
    u.workers.push_back({"u1/0", 0, 4711, "ready", 3, 2, 20 << 20, 40min});
    u.workers.push_back({"u1/1", 1, 0, "down", 1, 0, 0, 100ms, 400ms, "ended unasked"});
    CHECK(status_for_people(status_json(status)) ==
          R"(penstock 0.1.0: ready, up 90m, 4 loops, listening on 127.0.0.1:8000
bodies in memory: 0 B of 1024 MiB

upstream u1: serving, 2 of 10 queued (4096 B)
  backend      state    for   in flight  slots     connections  generation  address
  u1/0         ready    0.0s  1          1         1            3           unix:/run/x/0.sock  busy, weight 5
  10.0.0.5:80  resting  12s   0          no limit  0            0           10.0.0.5:80         ejected: consecutive_5xx, 18s left, 1 ejection, GET /health -> 200, backup
  worker  state  for   pid   generation  restarts  memory
  u1/0    ready  40m   4711  3           2         20 MiB
  u1/1    down   0.1s  -     1           0         0 B     ended unasked, starts in 0.4s
)");
}

TEST_CASE("what is no status of ours is no table") {
    for (std::string_view text : {"", "nonsense", "[]", "{}", R"({"upstreams":7})",
                                  R"({"upstreams":{"a":1}})", R"({"upstreams":{},"version":7})"})
        CHECK(status_for_people(text).empty());
}
