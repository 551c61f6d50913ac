// What a configuration file says, as plain structs; the initialisers are the defaults, and
// conf/reference.yaml is the manual of every field. load() fills in what depends on other fields
// (marked "resolved"), so that nobody asks twice what a default is. A Config is a value: copied freely,
// never changed once loaded; two are equal when they say the same. A Duration of 0 means none, a count of 0
// no limit, unless it says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/text.h"
#include "base/time.h"
#include "policy/retry.h"

namespace penstock {

using NamedValues = std::vector<std::pair<std::string, std::string>>;  // in the order of the file

struct CertificateFiles {
    std::string certificate;
    std::string key;

    bool operator==(const CertificateFiles&) const = default;
};

struct ListenTls {
    std::vector<CertificateFiles> certificates;  // the first is for clients without SNI
    std::string client_ca;                       // set: clients must show a certificate that it signed

    bool operator==(const ListenTls&) const = default;
};

struct Listen {
    Address address;
    bool http1 = true;
    bool http2 = true;            // cleartext: by prior knowledge
    bool proxy_protocol = false;  // connections begin with a PROXY header, which says whose they are
    std::optional<ListenTls> tls;

    bool operator==(const Listen&) const = default;
};

enum class HalfClose : uint8_t { hangup, serve };

struct Limits {
    uint64_t memory = 1 * GiB;  // of all bodies together
    uint32_t connections = 65536;
    uint32_t header_bytes = 32 * KiB;
    uint32_t headers = 100;
    uint32_t max_concurrent_streams = 128;  // of one HTTP/2 connection
    uint64_t body = 100 * MiB;              // 0: no limit
    Duration client_header_timeout = 10s;
    Duration client_body_timeout = 30s;
    Duration client_write_timeout = 30s;
    Duration client_idle_timeout = 75s;
    Duration drain = 30s;
    HalfClose half_close = HalfClose::hangup;

    bool operator==(const Limits&) const = default;
};

// Who is asked for the addresses of servers that are given by name.
struct ResolverSettings {
    std::vector<Address> nameservers;  // none: those of /etc/resolv.conf
    Duration timeout = 2s;             // of each attempt
    uint32_t attempts = 2;

    bool operator==(const ResolverSettings&) const = default;
};

enum class LogFormat : uint8_t { json, combined, off };

struct AccessLog {
    std::string path = "stdout";  // or stderr, or a file
    LogFormat format = LogFormat::json;

    bool operator==(const AccessLog&) const = default;
};

struct Ready {
    std::string path;  // a GET of it must answer 2xx; empty: being able to connect is enough (tcp: true)
    Duration interval = 200ms;
    Duration timeout = 120s;
    // Instead of a path: grpc.health.v1 says that this service serves; empty: the server.
    std::optional<std::string> grpc = {};

    bool operator==(const Ready&) const = default;
};

struct Stop {
    int signal = 15;  // TERM
    Duration grace = 30s;

    bool operator==(const Stop&) const = default;
};

struct Restart {
    Duration backoff = 500ms;
    Duration max_backoff = 30s;
    uint32_t give_up_after = 0;      // failed starts in a row; 0: never
    uint32_t after_ejections = 3;    // in a row, by outlier_detection; 0: never
    Duration unhealthy_after = 60s;  // health_check finds it unhealthy for so long, and nothing runs on it
    Duration hung_after{};           // something runs on it, and for so long no byte came

    bool operator==(const Restart&) const = default;
};

struct Recycle {
    uint64_t requests = 0;
    uint64_t rss = 0;
    double jitter = 0.1;  // of both, so that not all workers go at once

    bool operator==(const Recycle&) const = default;
};

// How a worker is told where to listen: found from the placeholder that its command or environment uses.
enum class WorkerAddress : uint8_t { socket, port };

struct Workers {
    // argv, placeholders ${SOCKET} ${PORT} ${INDEX} ${GPU} still in it; a shell string stands as
    // /bin/sh -c TEXT with `shell` set.
    std::vector<std::string> command;
    bool shell = false;
    WorkerAddress address = WorkerAddress::socket;  // resolved
    std::string directory;                          // empty: where penstock was started
    NamedValues environment;                        // added to our own; values may hold placeholders
    uint32_t count = 1;
    std::vector<std::string> gpus;  // indices or UUIDs; worker i gets gpus[i mod n]
    Ready ready;
    Stop stop;
    Restart restart;
    Recycle recycle;

    bool uses(std::string_view placeholder) const;  // "${PORT}", in the command or the environment

    bool operator==(const Workers&) const = default;
};

struct Server {
    Address address;
    uint32_t weight = 1;
    bool backup = false;
    uint32_t concurrency = 0;  // resolved: its own, else what the upstream says, else 0
    uint32_t max_connections = 0;
    Duration resolve{};  // a host name: look it up again this often; 0: once, at start

    bool operator==(const Server&) const = default;
};

enum class Protocol : uint8_t { http1, http2 };

struct BackendTls {
    bool verify = true;
    std::string ca;           // empty: the system's
    std::string server_name;  // empty: the host of the address
    std::string certificate;  // ours, shown to the backend
    std::string key;

    bool operator==(const BackendTls&) const = default;
};

enum class BalancePolicy : uint8_t { least_busy, round_robin, random_two, first };
enum class HashKey : uint8_t { client_ip, path, header, cookie, query };

enum class SameSite : uint8_t { unsaid, lax, strict, none };

struct Sticky {
    std::string cookie = {};
    bool secure = false;
    SameSite same_site = SameSite::unsaid;
    Duration max_age{};       // 0: until the browser is closed
    std::string secret = {};  // mixed into the values, so that nobody finds an address from one

    bool operator==(const Sticky&) const = default;
};

struct Balance {
    BalancePolicy policy = BalancePolicy::least_busy;  // with hash or sticky: of requests without a home
    std::optional<HashKey> hash;
    std::string hash_name = {};  // of the header, cookie or query parameter
    std::optional<Sticky> sticky = {};
    Duration patience{};    // so long a request waits for its home while other backends are free
    uint32_t factor = 150;  // hash: percent of its fair share that a backend gets at most; 0: no bound

    bool operator==(const Balance&) const = default;
};

struct Queue {
    uint32_t size = 100;  // 0: no queue, busy is refused at once
    Duration timeout = 30s;
    uint64_t bytes = 256 * MiB;
    Duration start_timeout = 120s;
    bool refuse_hopeless = false;

    bool operator==(const Queue&) const = default;
};

struct Timeouts {
    Duration connect = 2s;
    Duration first_byte = 300s;
    Duration idle = 60s;
    Duration client_stall = 10s;
    Duration request{};

    bool operator==(const Timeouts&) const = default;
};

// What a route says instead of its upstream; nothing: as the upstream.
struct RouteTimeouts {
    std::optional<Duration> connect;
    std::optional<Duration> first_byte;
    std::optional<Duration> idle;
    std::optional<Duration> client_stall;
    std::optional<Duration> request;

    bool operator==(const RouteTimeouts&) const = default;
};

struct Buffer {
    uint64_t request = 1 * MiB;
    uint64_t response = 1 * MiB;

    bool operator==(const Buffer&) const = default;
};

enum class OnAbandon : uint8_t { drain, close, restart };

struct Pool {
    Duration idle = 4s;

    bool operator==(const Pool&) const = default;
};

struct StatusCodes {
    uint16_t queue_full = 429;
    uint16_t queue_timeout = 503;
    uint16_t request_timeout = 504;
    uint16_t no_backend = 503;

    bool operator==(const StatusCodes&) const = default;
};

struct CircuitBreaker {
    uint32_t max_connections = 0;
    uint32_t max_pending_requests = 0;
    uint32_t max_requests = 0;
    uint32_t max_retries = 3;
    uint32_t max_requests_per_connection = 0;

    bool operator==(const CircuitBreaker&) const = default;
};

struct SuccessRate {
    double stdev_factor = 1.9;
    uint32_t min_backends = 5;
    uint32_t min_requests = 100;

    bool operator==(const SuccessRate&) const = default;
};

struct FailurePercentage {
    uint32_t threshold = 85;
    uint32_t min_backends = 5;
    uint32_t min_requests = 50;

    bool operator==(const FailurePercentage&) const = default;
};

struct OutlierDetection {
    uint32_t consecutive_5xx = 5;  // 0: off, as in the two below
    uint32_t consecutive_gateway_errors = 0;
    uint32_t consecutive_local_errors = 5;
    Duration interval = 10s;
    Duration base_ejection_time = 30s;
    Duration max_ejection_time = 300s;
    uint32_t max_ejection_percent = 50;
    uint32_t min_healthy = 1;
    Duration ejection_jitter{};
    std::optional<SuccessRate> success_rate;
    std::optional<FailurePercentage> failure_percentage;

    bool operator==(const OutlierDetection&) const = default;
};

struct HealthCheck {
    std::string path = "/health";  // empty: being able to connect is enough (tcp: true)
    Duration interval = 5s;
    Duration timeout = 1s;
    uint32_t healthy = 2;
    uint32_t unhealthy = 3;
    uint16_t expect = 200;
    double jitter = 0.1;  // of the interval, so that not all are asked at once
    // Instead of a path: grpc.health.v1 says that this service serves; empty: the server.
    std::optional<std::string> grpc = {};

    bool operator==(const HealthCheck&) const = default;
};

struct Retry {
    uint32_t attempts = 1;  // after the first one; 0: never again
    bool on_connect_failure = true;
    bool on_reset_before_response = true;
    RetriableStatuses on_status{};
    Duration backoff = 25ms;  // a random time up to this before the first retry, twice that before the next
    Duration max_backoff = 250ms;
    Duration per_try_timeout{};
    double budget = 0.2;      // of the requests at work and of those answered in the last minute
    bool idempotent = false;  // a POST may be sent again too

    bool operator==(const Retry&) const = default;
};

struct Upstream {
    std::string name;
    std::optional<Workers> workers;
    std::vector<Server> servers;
    Protocol protocol = Protocol::http1;
    std::optional<BackendTls> tls;
    Balance balance;
    uint32_t concurrency = 0;  // resolved, per worker: 1 where there are workers; servers have their own
    Queue queue;
    Timeouts timeouts;
    Buffer buffer;
    OnAbandon on_abandon = OnAbandon::close;  // resolved: drain where slots are limited
    Duration abandon_grace = 30s;
    Duration abandon_limit = 300s;
    Pool pool;
    StatusCodes status;
    CircuitBreaker circuit_breaker;
    std::optional<OutlierDetection> outlier_detection;
    std::optional<HealthCheck> health_check;
    Duration slow_start{};
    Retry retry;

    bool has_slots() const;       // some backend has a limit of its own
    uint32_t queue_size() const;  // the smaller of queue.size and max_pending_requests (where that is set)

    bool operator==(const Upstream&) const = default;
};

struct Device {
    std::string gpu;  // index, UUID, or all
    uint32_t slots = 1;
    uint64_t min_free_memory = 0;

    bool operator==(const Device&) const = default;
};

// Which requests; an empty field matches everything. At most one of path and prefix is set.
struct Match {
    std::string host;    // lower case, without port; *.example.com matches every name below
    std::string path;    // the whole path; {name} stands for one or more characters other than '/'
    std::string prefix;  // how the path begins
    std::vector<std::string> methods;
    NamedValues headers;  // names in lower case; the value must be equal

    bool operator==(const Match&) const = default;
};

struct Route {
    Match match;
    std::string upstream;       // may hold {name} of match.path
    bool strip_prefix = false;  // the backend sees the path without match.prefix
    RouteTimeouts timeouts;

    bool operator==(const Route&) const = default;
};

enum class LimitKey : uint8_t { client_ip, header, cookie, path, route, global };

constexpr size_t max_rate_limits = 64;

struct RateLimit {
    std::string name;
    LimitKey key = LimitKey::global;
    std::string key_name;      // of the header or cookie, or the {name} of the route's path
    std::optional<Rate> rate;  // at least one of rate and concurrency is set
    uint64_t burst = 0;        // resolved: what the rate gives in a second, at least 1
    uint32_t concurrency = 0;
    Match match;
    Duration delay{};         // what is too early is held back for so long, at most, instead of refused
    std::string cost_header;  // says what a request costs of the rate; empty: 1
    bool dry_run = false;
    bool headers = true;       // RateLimit and RateLimit-Policy on answers
    uint32_t keys = 100'000;   // that are remembered at a time
    uint8_t ipv6_prefix = 64;  // of client_ip: addresses that are alike in so many bits are one client

    uint32_t most_keys() const { return key == LimitKey::global ? 1 : keys; }

    bool operator==(const RateLimit&) const = default;
};

struct Config {
    std::vector<Listen> listen;    // never empty once loaded: 127.0.0.1:8000 when the file names none
    std::optional<Address> admin;  // 127.0.0.1:9901; nothing: `admin: off`
    uint32_t threads = 1;          // resolved from auto
    Limits limits;
    std::vector<Network> trusted_proxies;  // 127.0.0.0/8 and ::1
    AccessLog access_log;
    ResolverSettings resolver;
    std::vector<Upstream> upstreams;  // in the order of the file
    std::vector<Device> devices;
    std::vector<Route> routes;  // never empty once loaded; a single upstream without routes gets one for all
    std::vector<RateLimit> rate_limits;

    const Upstream* upstream(std::string_view name) const;
    bool shares_device(const Upstream& upstream) const;  // some worker's GPU has slots in `devices`
    bool limits_concurrency() const;                     // some rate limit counts requests in flight

    bool operator==(const Config&) const = default;
};

// What an empty file would say, but for the traffic: the defaults that are no plain initialisers.
Config default_config(unsigned cores);

}  // namespace penstock
