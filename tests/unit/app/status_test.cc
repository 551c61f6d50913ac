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
    u.backends.push_back({"u1/0", "unix:/run/x/0.sock", "ready", "busy", 3, 1, 1, 1, false});
    u.workers.push_back({"u1/0", 0, 4711, "ready", 3, 2, 1 << 20});
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
    CHECK(first["serving"] == "serving");
    CHECK(first["queue"] == nlohmann::json{{"depth", 2}, {"size", 10}, {"bytes", 4096}});
    CHECK(first["abandoned"] == 1);
    CHECK(first["backends"][0]["why"] == "busy");
    CHECK(first["backends"][0]["in_flight"] == 1);
    CHECK(first["workers"][0]["pid"] == 4711);
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
    u.backends.push_back({"u1/0", "unix:/run/x/0.sock", "ready", "busy", 3, 1, 1, 1, false});
    u.backends.push_back({.name = "10.0.0.5:80", .address = "10.0.0.5:80", .state = "down"});
    u.workers.push_back({"u1/0", 0, 4711, "ready", 3, 2, 20 << 20});
    CHECK(status_for_people(status_json(status)) ==
          R"(penstock 0.1.0: ready, up 90m, 4 loops, listening on 127.0.0.1:8000
bodies in memory: 0 B of 1024 MiB

upstream u1: serving, 2 of 10 queued (4096 B)
  backend      state  in flight  slots     connections  generation  address
  u1/0         ready  1          1         1            3           unix:/run/x/0.sock  busy
  10.0.0.5:80  down   0          no limit  0            0           10.0.0.5:80
  worker  state  pid   generation  restarts  memory
  u1/0    ready  4711  3           2         20 MiB
)");
}

TEST_CASE("what is no status of ours is no table") {
    for (std::string_view text : {"", "nonsense", "[]", "{}", R"({"upstreams":7})",
                                  R"({"upstreams":{"a":1}})", R"({"upstreams":{},"version":7})"})
        CHECK(status_for_people(text).empty());
}
