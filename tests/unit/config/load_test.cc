#include <csignal>
#include <doctest/doctest.h>

#include "loading.h"

namespace penstock {

namespace {

std::vector<std::string> addresses(const std::vector<Listen>& listen) {
    std::vector<std::string> out;
    out.reserve(listen.size());
    for (const Listen& one : listen) out.push_back(one.address.text);
    return out;
}

}  // namespace

TEST_CASE("everything has a default except where the traffic goes") {
    Config config = good("upstreams: {app: {servers: [{address: 10.0.0.5:8000}]}}");

    REQUIRE(config.listen.size() == 1);
    CHECK(config.listen[0].address.text == "127.0.0.1:8000");
    CHECK(config.listen[0].http1);
    CHECK(config.listen[0].http2);
    CHECK(!config.listen[0].tls);
    CHECK(config.admin->text == "127.0.0.1:9901");
    CHECK(config.threads == 2);
    CHECK(config.limits.memory == 1 * GiB);
    CHECK(config.limits.connections == 65536);
    CHECK(config.limits.header_bytes == 32 * KiB);
    CHECK(config.limits.headers == 100);
    CHECK(config.limits.max_concurrent_streams == 128);
    CHECK(config.limits.body == 100 * MiB);
    CHECK(config.limits.client_header_timeout == 10s);
    CHECK(config.limits.client_body_timeout == 30s);
    CHECK(config.limits.client_write_timeout == 30s);
    CHECK(config.limits.client_idle_timeout == 75s);
    CHECK(config.limits.drain == 30s);
    CHECK(config.limits.half_close == HalfClose::hangup);
    REQUIRE(config.trusted_proxies.size() == 2);
    CHECK(config.trusted_proxies[0].text == "127.0.0.0/8");
    CHECK(config.trusted_proxies[1].text == "::1");
    CHECK(config.access_log.path == "stdout");
    CHECK(config.access_log.format == LogFormat::json);
    CHECK(config.devices.empty());
    CHECK(config.rate_limits.empty());
}

TEST_CASE("an upstream of servers is not limited by default, and abandoned work is told by closing") {
    Upstream up = upstream("upstreams: {app: {servers: [{address: 10.0.0.5:8000}]}}");
    CHECK(up.name == "app");
    CHECK(!up.workers);
    REQUIRE(up.servers.size() == 1);
    CHECK(up.servers[0].weight == 1);
    CHECK(!up.servers[0].backup);
    CHECK(up.servers[0].concurrency == 0);
    CHECK(up.servers[0].resolve == 0s);
    CHECK(up.concurrency == 0);
    CHECK(!up.has_slots());
    CHECK(up.on_abandon == OnAbandon::close);
    CHECK(up.protocol == Protocol::http1);
    CHECK(!up.tls);
    CHECK(up.balance.policy == BalancePolicy::least_busy);
    CHECK(up.queue == Queue{100, 30s, 256 * MiB, 120s, false});
    CHECK(up.timeouts == Timeouts{2s, 300s, 60s, 10s, 0s});
    CHECK(up.buffer == Buffer{1 * MiB, 1 * MiB});
    CHECK(up.abandon_grace == 30s);
    CHECK(up.abandon_limit == 300s);
    CHECK(up.pool.idle == 4s);
    CHECK(up.status == StatusCodes{429, 503, 504, 503});
    CHECK(up.circuit_breaker == CircuitBreaker{0, 0, 0, 3, 0});
    CHECK(!up.outlier_detection);
    CHECK(!up.health_check);
    CHECK(up.slow_start == 0s);
    CHECK(up.retry == Retry{});
}

TEST_CASE("a worker takes one request at a time by default, and abandoned work keeps its slot") {
    Upstream up = upstream("upstreams: {app: {workers: {command: [serve, \"${SOCKET}\"]}}}");
    CHECK(up.concurrency == 1);
    CHECK(up.has_slots());
    CHECK(up.on_abandon == OnAbandon::drain);
    const Workers& workers = *up.workers;
    CHECK(workers.command == std::vector<std::string>{"serve", "${SOCKET}"});
    CHECK(!workers.shell);
    CHECK(workers.address == WorkerAddress::socket);
    CHECK(workers.directory.empty());
    CHECK(workers.environment.empty());
    CHECK(workers.count == 1);
    CHECK(workers.gpus.empty());
    CHECK(workers.ready == Ready{"", 200ms, 120s});
    CHECK(workers.stop == Stop{SIGTERM, 30s});
    CHECK(workers.restart == Restart{500ms, 30s, 0});
    CHECK(workers.recycle == Recycle{0, 0, 0.1});
}

TEST_CASE("listeners are addresses, or mappings that say more") {
    Config config = good(beside(R"(
listen:
  - 0.0.0.0:8000
  - {address: "[::]:8000", protocols: [http1, http2]}
  - address: unix:/run/p.sock
    tls: {certificate: a.pem, key: a.key, client_ca: ca.pem}
  - address: 127.0.0.1:0
    tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}]}
  - 127.0.0.1:0)"));
    CHECK(addresses(config.listen) == std::vector<std::string>{"0.0.0.0:8000", "[::]:8000",
                                                               "unix:/run/p.sock", "127.0.0.1:0",
                                                               "127.0.0.1:0"});
    CHECK(config.listen[0].http2);
    CHECK(config.listen[1].http2);
    CHECK(config.listen[2].tls->certificates == std::vector<CertificateFiles>{{"a.pem", "a.key"}});
    CHECK(config.listen[2].tls->client_ca == "ca.pem");
    CHECK(config.listen[3].tls->certificates.size() == 2);
}

TEST_CASE("the admin address can be given in short, in long, or switched off") {
    CHECK(good(beside("admin: 127.0.0.1:1")).admin->text == "127.0.0.1:1");
    CHECK(good(beside("admin: {address: \"unix:/run/admin\"}")).admin->text == "unix:/run/admin");
    CHECK(!good(beside("admin: off")).admin);
}

TEST_CASE("auto is as many threads as cores, but four at most") {
    auto threads = [](unsigned cores, std::string_view text) {
        return load(text, "p.yaml", Surroundings{cores, {}}).config.threads;
    };
    CHECK(threads(0, beside("threads: auto")) == 1);
    CHECK(threads(1, beside("threads: auto")) == 1);
    CHECK(threads(3, beside("")) == 3);
    CHECK(threads(64, beside("threads: auto")) == 4);
    CHECK(threads(2, beside("threads: 16")) == 16);
}

TEST_CASE("limits, trusted proxies and the access log are read") {
    Config config = good(beside(R"(
limits: {memory: 64MiB, connections: 10, header_bytes: 4KiB, headers: 20, max_concurrent_streams: 7, body: 0,
         client_header_timeout: 1s,         client_body_timeout: 2s, client_write_timeout: 3s, client_idle_timeout: 4s, drain: 5s, half_close: serve}
trusted_proxies: [10.0.0.0/8, "fd00::1"]
access_log: {path: /var/log/p.log, format: combined})"));
    CHECK(config.limits == Limits{64 * MiB, 10, 4 * KiB, 20, 7, 0, 1s, 2s, 3s, 4s, 5s, HalfClose::serve});
    REQUIRE(config.trusted_proxies.size() == 2);
    CHECK(config.trusted_proxies[1].text == "fd00::1");
    CHECK(config.access_log == AccessLog{"/var/log/p.log", LogFormat::combined});
    CHECK(good(beside("trusted_proxies: []")).trusted_proxies.empty());
    CHECK(good(beside("access_log: {format: off}")).access_log.format == LogFormat::off);
}

TEST_CASE("workers are read with all that they say") {
    Upstream up = upstream(R"(
upstreams:
  ocr:
    concurrency: 4
    workers:
      command: exec uvicorn ocr:app --port ${PORT}
      directory: ${HOME}/ocr
      environment: {MODEL: ppocr, LEVEL: "", WHERE: "${HOME}", NUMBER: "${INDEX}/${GPU}"}
      count: ${COUNT}
      gpus: [0, GPU-8f2c, MIG-1]
      ready: {path: /health, interval: 1s, timeout: 2m}
      stop: {signal: SIGINT, grace: 1s}
      restart: {backoff: 1s, max_backoff: 1m, give_up_after: 5}
      recycle: {requests: 1000, rss: 8GiB, jitter: 25%}
)");
    const Workers& workers = *up.workers;
    CHECK(up.concurrency == 4);
    CHECK(workers.command ==
          std::vector<std::string>{"/bin/sh", "-c", "exec uvicorn ocr:app --port ${PORT}"});
    CHECK(workers.shell);
    CHECK(workers.address == WorkerAddress::port);
    CHECK(workers.directory == "/home/me/ocr");
    CHECK(
        workers.environment ==
        NamedValues{{"MODEL", "ppocr"}, {"LEVEL", ""}, {"WHERE", "/home/me"}, {"NUMBER", "${INDEX}/${GPU}"}});
    CHECK(workers.count == 3);
    CHECK(workers.gpus == std::vector<std::string>{"0", "GPU-8f2c", "MIG-1"});
    CHECK(workers.ready == Ready{"/health", 1s, 2min});
    CHECK(workers.stop == Stop{SIGINT, 1s});
    CHECK(workers.restart == Restart{1s, 1min, 5});
    CHECK(workers.recycle == Recycle{1000, 8 * GiB, 0.25});
}

TEST_CASE("a worker may learn its address from its environment instead of its command") {
    Upstream up = upstream("upstreams: {a: {workers: {command: [serve], environment: {PORT: \"${PORT}\"}}}}");
    CHECK(up.workers->address == WorkerAddress::port);
}

TEST_CASE("tcp: true says the default of ready in words") {
    CHECK(upstream(with_workers("", "ready: {tcp: true, timeout: 1s}")).workers->ready ==
          Ready{"", 200ms, 1s});
    CHECK(upstream(with_workers("", "ready: {tcp: false, path: /h}")).workers->ready.path == "/h");
}

TEST_CASE("servers are addresses, or mappings that say more") {
    Upstream up = upstream(R"(
upstreams:
  a:
    servers:
      - 10.0.0.5:8000
      - {address: "unix:/run/triton.sock", weight: 2, backup: true, concurrency: 8}
      - {address: "triton.local:8000", resolve: 30s}
)");
    REQUIRE(up.servers.size() == 3);
    CHECK(up.servers[0].address.text == "10.0.0.5:8000");
    CHECK(up.servers[1].address.path == "/run/triton.sock");
    CHECK(up.servers[1].weight == 2);
    CHECK(up.servers[1].backup);
    CHECK(up.servers[1].concurrency == 8);
    CHECK(up.servers[2].address.kind == Address::Kind::name);
    CHECK(up.servers[2].resolve == 30s);
    CHECK(up.has_slots());
    CHECK(up.on_abandon == OnAbandon::drain);
}

TEST_CASE("a server has its own concurrency, else what the upstream says, else none") {
    Upstream said = upstream(
        "upstreams: {a: {servers: [10.0.0.1:1, {address: 10.0.0.1:2, concurrency: 8}], concurrency: 3}}");
    CHECK(said.servers[0].concurrency == 3);
    CHECK(said.servers[1].concurrency == 8);
    Upstream mixed = upstream(with_workers("servers: [10.0.0.1:1]"));
    CHECK(mixed.concurrency == 1);
    CHECK(mixed.servers[0].concurrency == 0);
    CHECK(upstream(with_workers("concurrency: 0")).on_abandon == OnAbandon::close);
}

TEST_CASE("the other settings of an upstream are read") {
    Upstream up = upstream(R"(
upstreams:
  a:
    servers: [10.0.0.5:8000]
    protocol: http2
    tls: {verify: false, ca: ca.pem, server_name: x, certificate: c.pem, key: k.pem}
    balance: round_robin
    concurrency: 2
    queue: {size: 1, timeout: 2s, bytes: 3MiB, start_timeout: 4s, refuse_hopeless: true}
    timeouts: {connect: 1s, first_byte: 2s, idle: 3s, client_stall: 4s, request: 5s}
    buffer: {request: 1KiB, response: 2KiB}
    on_abandon: close
    abandon_grace: 1s
    abandon_limit: 2s
    pool: {idle: 9s}
    status: {queue_full: 503, queue_timeout: 408, request_timeout: 408, no_backend: 502}
    circuit_breaker: {max_connections: 100, max_pending_requests: 50, max_requests: 7, max_retries: 8,
                      max_requests_per_connection: 10}
    outlier_detection: {consecutive_5xx: 1, consecutive_gateway_errors: 2, consecutive_local_errors: 3, interval: 30s,
                        base_ejection_time: 60s, max_ejection_time: 61s, max_ejection_percent: 70, min_healthy: 2,
                        ejection_jitter: 2s,
                        success_rate: {stdev_factor: 1.5, min_backends: 3, min_requests: 4},
                        failure_percentage: {threshold: 50, min_backends: 6, min_requests: 7}}
    health_check: {path: /up, interval: 1s, timeout: 2s, healthy: 3, unhealthy: 4, expect: 204, jitter: 20%}
    slow_start: 10s
    retry: {attempts: 3, on: [connect_failure], backoff: 1ms, max_backoff: 2ms, per_try_timeout: 1s, budget: 50%,
            idempotent: true}
)");
    CHECK(up.protocol == Protocol::http2);
    CHECK(*up.tls == BackendTls{false, "ca.pem", "x", "c.pem", "k.pem"});
    CHECK(up.balance.policy == BalancePolicy::round_robin);
    CHECK(up.concurrency == 2);
    CHECK(up.queue == Queue{1, 2s, 3 * MiB, 4s, true});
    CHECK(up.timeouts == Timeouts{1s, 2s, 3s, 4s, 5s});
    CHECK(up.buffer == Buffer{1 * KiB, 2 * KiB});
    CHECK(up.on_abandon == OnAbandon::close);
    CHECK(up.abandon_grace == 1s);
    CHECK(up.abandon_limit == 2s);
    CHECK(up.pool.idle == 9s);
    CHECK(up.status == StatusCodes{503, 408, 408, 502});
    CHECK(up.circuit_breaker == CircuitBreaker{100, 50, 7, 8, 10});
    CHECK(up.queue_size() == 1);
    CHECK(*up.outlier_detection == OutlierDetection{1, 2, 3, 30s, 60s, 61s, 70, 2, 2s, SuccessRate{1.5, 3, 4},
                                                    FailurePercentage{50, 6, 7}});
    CHECK(*up.health_check == HealthCheck{"/up", 1s, 2s, 3, 4, 204, 0.2});
    CHECK(up.slow_start == 10s);
    CHECK(up.retry == Retry{3, true, false, {}, 1ms, 2ms, 1s, 0.5, true});
}

TEST_CASE("statuses after which to try again stand beside the conditions, by number or by family") {
    const Retry retry = upstream(with_server("retry: {on: [gateway_error, 429]}")).retry;
    CHECK_FALSE(retry.on_connect_failure);
    for (unsigned status : {429, 502, 503, 504}) CHECK(retry.on_status.has(status));
    for (unsigned status : {200, 428, 500, 501, 505}) CHECK_FALSE(retry.on_status.has(status));
    const Retry all = upstream(with_server("retry: {on: [5xx], backoff: 2s}")).retry;
    for (unsigned status : {500, 550, 599}) CHECK(all.on_status.has(status));
    CHECK_FALSE(all.on_status.has(499));
    CHECK(all.max_backoff == 2s);
}

TEST_CASE("a retry budget that is given decides alone, unless max_retries is given too") {
    auto most = [](std::string_view settings) {
        return upstream(with_server(settings)).circuit_breaker.max_retries;
    };
    CHECK(most("retry: {attempts: 2}") == 3);
    CHECK(most("retry: {budget: 50%}") == 0);
    CHECK(most("retry: {budget: 50%}, circuit_breaker: {max_requests: 7}") == 0);
    CHECK(most("retry: {budget: 50%}, circuit_breaker: {max_retries: 8}") == 8);
}

TEST_CASE("a section that is switched on by being there has its own defaults") {
    CHECK(*upstream(with_server("outlier_detection: {}")).outlier_detection == OutlierDetection{});
    CHECK(*upstream(with_server("health_check: {}")).health_check == HealthCheck{});
    CHECK(upstream(with_server("health_check: {tcp: true}")).health_check->path.empty());
    OutlierDetection both =
        *upstream(with_server("outlier_detection: {success_rate: {}, failure_percentage: {}}"))
             .outlier_detection;
    CHECK(*both.success_rate == SuccessRate{});
    CHECK(*both.failure_percentage == FailurePercentage{});
}

TEST_CASE("the smaller of queue.size and max_pending_requests bounds the queue") {
    CHECK(upstream(with_server("queue: {size: 9}, concurrency: 1")).queue_size() == 9);
    CHECK(upstream(with_server("concurrency: 1, circuit_breaker: {max_pending_requests: 5}")).queue_size() ==
          5);
    CHECK(
        upstream(with_server("queue: {size: 0}, concurrency: 1, circuit_breaker: {max_pending_requests: 5}"))
            .queue_size() == 0);
}

TEST_CASE("a balance is a word, or a hash of something") {
    auto balance = [](std::string_view text) {
        return upstream(with_server("balance: " + std::string(text))).balance;
    };
    CHECK(balance("least_busy") == Balance{});
    CHECK(balance("random_two").policy == BalancePolicy::random_two);
    CHECK(balance("first").policy == BalancePolicy::first);
    auto hash_of = [](HashKey key, std::string name = "") {
        return Balance{.hash = key, .hash_name = std::move(name)};
    };
    CHECK(balance("{hash: client_ip}") == hash_of(HashKey::client_ip));
    CHECK(balance("{hash: path}") == hash_of(HashKey::path));
    CHECK(balance("{hash: {header: X-User}}") == hash_of(HashKey::header, "x-user"));
    CHECK(balance("{hash: {cookie: Sid}}") == hash_of(HashKey::cookie, "Sid"));
    CHECK(balance("{hash: {query: q}}") == hash_of(HashKey::query, "q"));
    CHECK(balance("{policy: first}").policy == BalancePolicy::first);
    Balance bounded = balance("{hash: path, policy: round_robin, patience: 250ms, factor: 125}");
    CHECK(bounded.policy == BalancePolicy::round_robin);
    CHECK(bounded.patience == 250ms);
    CHECK(bounded.factor == 125);
}

TEST_CASE("a balance can be sticky by a cookie of ours") {
    Upstream up =
        upstream(with_server("balance: {sticky: {cookie: gpu, secure: true, same_site: strict, max_age: 1h, "
                             "secret: x}, patience: 1s}"));
    REQUIRE(up.balance.sticky);
    CHECK(
        *up.balance.sticky ==
        Sticky{.cookie = "gpu", .secure = true, .same_site = SameSite::strict, .max_age = 1h, .secret = "x"});
    CHECK(up.balance.policy == BalancePolicy::least_busy);
    CHECK(up.balance.patience == 1s);
}

TEST_CASE("a nameserver is an IP address, with or without its port") {
    Config config =
        load_text("resolver: {nameservers: [10.0.0.2, \"::1\", 127.0.0.1:5353], timeout: 1s, attempts: 3}\n" +
                  std::string(beside("")))
            .config;
    REQUIRE(config.resolver.nameservers.size() == 3);
    CHECK(config.resolver.nameservers[0].text == "10.0.0.2:53");
    CHECK(config.resolver.nameservers[1].text == "[::1]:53");
    CHECK(config.resolver.nameservers[2].text == "127.0.0.1:5353");
    CHECK(config.resolver.timeout == 1s);
    CHECK(config.resolver.attempts == 3);
}

TEST_CASE("max_connections of a server limits it, and so its upstream has slots") {
    Upstream up = upstream("upstreams: {a: {servers: [{address: 10.0.0.1:80, max_connections: 3}]}}");
    CHECK(up.servers[0].max_connections == 3);
    CHECK(up.has_slots());
    CHECK(up.on_abandon == OnAbandon::drain);
}

TEST_CASE("slots of a device make abandoned work keep its slot too") {
    std::string workers =
        "upstreams: {a: {workers: {command: \"x ${SOCKET}\", gpus: [0]}, concurrency: 0}}\n";
    CHECK(upstream(workers).on_abandon == OnAbandon::close);
    CHECK(upstream(workers + "devices: [{gpu: 0}]").on_abandon == OnAbandon::drain);
    CHECK(upstream(workers + "devices: [{gpu: all}]").on_abandon == OnAbandon::drain);
    CHECK(upstream(workers + "devices: [{gpu: 1}]").on_abandon == OnAbandon::close);
    Config config = good(workers + "devices: [{gpu: 0, slots: 2, min_free_memory: 2GiB}, {gpu: GPU-1}]");
    CHECK(config.devices == std::vector<Device>{{"0", 2, 2 * GiB}, {"GPU-1", 1, 0}});
}

TEST_CASE("two configurations are equal when they say the same") {
    CHECK(good(beside("")) == good(beside("threads: auto")));
    CHECK(good(beside("")) != good(beside("threads: 7")));
}

}  // namespace penstock
