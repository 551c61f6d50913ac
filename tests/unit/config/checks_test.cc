// Warnings, what is not supported yet, and the memory bound: what `check` says of a file that could be right.
#include <doctest/doctest.h>

#include "config/memory_bound.h"
#include "config/unsupported.h"
#include "loading.h"

namespace penstock {

namespace {

std::string unsupported_in(std::string_view text) {
    Loaded loaded = load_text(text);
    CHECK(joined(loaded.errors) == "");
    return joined(unsupported(loaded.config, loaded.places));
}

}  // namespace

TEST_CASE("a queue where nothing is limited is warned of") {
    CHECK(
        warnings_of(with_server("queue: {size: 5}")) ==
        "p.yaml:1:41: upstreams.a.queue: has no effect, because nothing limits how many requests run; write "
        "concurrency: 1, or more\n");
    CHECK(warnings_of(with_server("queue: {size: 5}, concurrency: 1")) == "");
    CHECK(warnings_of(with_server("queue: {size: 5}, circuit_breaker: {max_requests: 9}")) == "");
    CHECK(warnings_of(with_server("circuit_breaker: {max_connections: 9}")) == "");
    CHECK(warnings_of(with_server("protocol: http2, circuit_breaker: {max_connections: 9}"))
              .find("circuit_breaker.max_connections: has no effect with protocol http2") !=
          std::string::npos);
    CHECK(warnings_of(with_workers("queue: {size: 5}")) == "");
}

TEST_CASE("max_pending_requests where nothing is limited is warned of, with or without a queue section") {
    const std::string_view without_effect =
        "upstreams.a.circuit_breaker.max_pending_requests: has no effect, because nothing limits how many "
        "requests run, so none waits; write concurrency: 1, or more, or max_requests beside it\n";
    CHECK(warnings_of(with_server("circuit_breaker: {max_pending_requests: 5}")).ends_with(without_effect));
    CHECK(warnings_of(with_server("queue: {size: 5}, circuit_breaker: {max_pending_requests: 5}"))
              .find(without_effect) != std::string::npos);
    CHECK(warnings_of(with_server("circuit_breaker: {max_pending_requests: 0}")) == "");
    CHECK(warnings_of(with_server("circuit_breaker: {max_pending_requests: 5, max_requests: 9}")) == "");
    CHECK(warnings_of(with_workers("circuit_breaker: {max_pending_requests: 5}")) == "");
}

TEST_CASE("bodies that may wait beyond limits.memory are warned of") {
    CHECK(warnings_of(with_server("concurrency: 1, buffer: {request: 16MiB}, queue: {bytes: 2GiB}")) ==
          "p.yaml:1:83: upstreams.a.queue: up to 1600MiB of bodies may wait, but limits.memory is 1GiB: what "
          "does not "
          "fit is refused as memory_full; lower size, bytes or buffer.request, or raise limits.memory\n");
    CHECK(warnings_of(with_server("concurrency: 1, buffer: {request: 16MiB}")) ==
          "");  // queue.bytes bounds it
    CHECK(warnings_of("limits: {memory: 50MiB}\n" + with_workers("")) ==
          "p.yaml:3:3: upstreams.a.queue: up to 100MiB of bodies may wait, but limits.memory is 50MiB: what "
          "does not "
          "fit is refused as memory_full; lower size, bytes or buffer.request, or raise limits.memory\n");
}

TEST_CASE("a queue that holds not even one request is warned of") {
    CHECK(warnings_of(with_server("concurrency: 1, queue: {bytes: 1KiB}")) ==
          "p.yaml:1:65: upstreams.a.queue.bytes: 1KiB is less than one request of buffer.request 1MiB, which "
          "is then "
          "refused as queue_full\n");
    CHECK(warnings_of("limits: {body: 512}\n" + with_server("concurrency: 1, queue: {bytes: 1KiB}")) == "");
    CHECK(warnings_of(with_server("concurrency: 1, queue: {bytes: 1KiB, size: 0}")) == "");
}

TEST_CASE("two bounds of the queue that differ are warned of when both are written") {
    CHECK(warnings_of(
              with_server("concurrency: 1, queue: {size: 9}, circuit_breaker: {max_pending_requests: 5}")) ==
          "p.yaml:1:93: upstreams.a.circuit_breaker.max_pending_requests: 5 is less than queue.size 9; the "
          "smaller "
          "one counts\n");
    CHECK(warnings_of(with_server("concurrency: 1, circuit_breaker: {max_pending_requests: 5}")) == "");
}

TEST_CASE("a timeout that another ends first is warned of") {
    CHECK(warnings_of(with_server("concurrency: 1, timeouts: {request: 10s}, queue: {timeout: 20s}")) ==
          "p.yaml:1:91: upstreams.a.queue.timeout: 20s is longer than timeouts.request 10s, which ends the "
          "wait first "
          "with status.request_timeout\n");
    CHECK(warnings_of(with_server("concurrency: 1, timeouts: {request: 10s}")) == "");
    CHECK(warnings_of(with_server("timeouts: {request: 10s}, retry: {per_try_timeout: 20s}")) ==
          "p.yaml:1:75: upstreams.a.retry.per_try_timeout: 20s is longer than timeouts.request 10s, which "
          "ends it "
          "first\n");
    CHECK(
        warnings_of(with_server("abandon_grace: 10m")) ==
        "p.yaml:1:41: upstreams.a.abandon_grace: 10m is longer than abandon_limit 5m, which ends it first\n");
}

TEST_CASE("servers without a limit beside backends that have one are warned of") {
    std::string_view warning =
        "some have no concurrency beside backends that have: they take all that would wait, so nothing ever "
        "queues; "
        "give each a concurrency\n";
    CHECK(warnings_of(with_workers("servers: [10.0.0.1:80]")) ==
          "p.yaml:4:5: upstreams.a.servers: " + std::string(warning));
    CHECK(warnings_of("upstreams: {a: {servers: [10.0.0.1:1, {address: 10.0.0.1:2, concurrency: 1}]}}") ==
          "p.yaml:1:17: upstreams.a.servers: " + std::string(warning));
}

TEST_CASE("a route that is never reached and an upstream without a route are warned of") {
    std::string two = "upstreams: {a: {servers: [10.0.0.1:80]}, b: {servers: [10.0.0.1:81]}}\n";
    CHECK(
        warnings_of(two + "routes: [{upstream: a}, {prefix: /b, upstream: b}]") ==
        "p.yaml:1:42: upstreams.b: no route leads to it\n"
        "p.yaml:2:25: routes[1]: is never reached, because the one before it takes everything; move it up\n");
    CHECK(warnings_of(two + "routes: [{prefix: /a, upstream: a}]") ==
          "p.yaml:1:42: upstreams.b: no route leads to it\n");
    CHECK(warnings_of(two + "routes: [{path: \"/{m}\", upstream: \"{m}\"}]") == "");
}

TEST_CASE("a device that no worker has is warned of") {
    CHECK(warnings_of(with_workers("", "gpus: [0]") + "devices: [{gpu: 0}, {gpu: 1}]") ==
          "p.yaml:4:21: devices[1]: no workers have gpu 1 among their gpus, so it limits nothing\n");
    CHECK(warnings_of(with_workers("") + "devices: [{gpu: all}]") ==
          "p.yaml:4:11: devices[0]: no workers have gpu all among their gpus, so it limits nothing\n");
}

TEST_CASE("what this version can't do is refused with its place instead of ignored") {
    CHECK(unsupported_in(beside("")) == "");
    CHECK(unsupported_in(with_workers("")) == "");
    CHECK(unsupported_in(R"(listen:
  - {address: "127.0.0.1:1", protocols: [http1, http2]}
  - {address: "127.0.0.1:2", tls: {certificate: c, key: k}}
upstreams:
  a:
    servers: [localhost:80, {address: "triton:81", resolve: 3s}]
    protocol: http2
    tls: {}
    balance: {hash: path}
    slow_start: 0
    health_check: {}
devices: [{gpu: all}]
)") == "p.yaml:12:1: devices: slots of devices are not supported by this version; leave it out\n");
}

TEST_CASE("a worker that waits for a slow client must not be taken for hung") {
    auto hung = [](std::string_view settings) {
        return errors_of(with_workers(settings, "restart: {hung_after: 5s}"));
    };
    CHECK(hung("timeouts: {client_stall: 4s}") == "");
    CHECK(hung("timeouts: {client_stall: 5s}")
              .ends_with("upstreams.a.workers.restart.hung_after: 5s is not longer than "
                         "timeouts.client_stall (5s), so a worker "
                         "that waits for a slow client would be taken for hung; make it longer\n"));
    CHECK(hung("timeouts: {client_stall: 0}").find("client_stall (none)") != std::string::npos);
}

TEST_CASE("a connection over TLS takes 16 KiB more than one in clear, on either side") {
    auto bound = [](const std::string& text) { return memory_bound(load_text(text).config).connections; };
    std::string few = "limits: {connections: 100}\n";
    uint64_t clear = bound(few + with_server("concurrency: 4"));
    std::string front = "listen: [{address: \"127.0.0.1:1\", tls: {certificate: c, key: k}}]\n";
    CHECK(bound(few + front + with_server("concurrency: 4")) == clear + 100 * 16 * KiB);
    CHECK(bound(few + with_server("concurrency: 4, tls: {}")) == clear + 4 * 16 * KiB);
}

TEST_CASE("the memory bound grows with what is allowed, and with nothing else") {
    auto bound = [](std::string_view text) { return memory_bound(load_text(text).config); };
    std::string_view small = "limits: {connections: 100, memory: 10MiB, header_bytes: 4KiB}\nthreads: 2\n";
    MemoryBound one = bound(std::string(small) + with_workers(""));
    CHECK(one.bodies == 10 * MiB);
    CHECK(one.itself == MemoryBound::process + 2 * MemoryBound::loop);
    CHECK(one.connections == 100 * (600 + 2 * KiB + 2 * KiB) + 1 * (600 + 2 * KiB));
    CHECK(one.extremes == 101 * (14 * KiB + 4 * KiB + 64 * KiB));
    CHECK(one.usual() == one.bodies + one.itself + one.connections);
    CHECK(one.http2 == 100 * 20 * KiB + 320 * 5 * KiB);  // 10 MiB are not enough for more requests
    CHECK(one.most() == one.usual() + one.extremes + one.http2);
    MemoryBound few = bound("limits: {connections: 100, max_concurrent_streams: 2}\n" + with_workers(""));
    CHECK(few.http2 == 100 * 20 * KiB + 100 * 5 * KiB);
    CHECK(bound("listen: [{address: \"127.0.0.1:1\", protocols: [http1]}]\n" + with_workers("")).http2 == 0);

    MemoryBound limited = bound(
        std::string(small) + with_workers("") +
        "rate_limits: [{name: a, key: client_ip, rate: 1/s, keys: 1000}, {name: b, key: global, rate: 1/s}]");
    CHECK(limited.rate_limits > 1000 * 60);
    CHECK(limited.rate_limits < 1000 * 80 + 200);
    CHECK(limited.usual() == one.usual() + limited.rate_limits);

    MemoryBound queued = bound(std::string(small) + with_workers("queue: {size: 100000}"));
    CHECK(queued.most() == one.most());  // who waits is a connection too, and has its body in limits.memory
    MemoryBound two = bound(std::string(small) + with_workers("", "count: 2"));
    CHECK(two.connections == one.connections + 600 + 2 * KiB);
    MemoryBound unlimited = bound(std::string(small) + with_server("slow_start: 0"));
    CHECK(unlimited.connections == 100 * (600 + 2 * KiB + 2 * KiB) + 100 * (600 + 2 * KiB));
}

}  // namespace penstock
