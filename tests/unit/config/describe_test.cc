#include "config/describe.h"

#include <doctest/doctest.h>

#include "loading.h"

namespace penstock {

namespace {

std::string described(std::string_view text) {
    Loaded loaded = load_text(text);
    CHECK(joined(loaded.errors) == "");
    return describe(loaded.config, memory_bound(loaded.config), loaded.warnings);
}

}  // namespace

TEST_CASE("check tells in a few lines what it understood") {
    CHECK(described(R"(
listen: [0.0.0.0:8000, unix:/run/p.sock]
limits: {connections: 1000}
upstreams:
  ocr:
    workers: {command: [uvicorn, "ocr:app", --uds, "${SOCKET}"], directory: /srv/ocr, count: 2, gpus: [0, 1],
              ready: {path: /health}, recycle: {requests: 1000, rss: 8GiB}}
    timeouts: {request: 60s}
    on_abandon: restart
  triton:
    servers: [10.0.0.5:8000, {address: "unix:/run/t.sock", weight: 2, backup: true, concurrency: 8}]
    balance: {hash: {header: x-session}, patience: 200ms}
    queue: {size: 5}
routes:
  - {path: "/v2/models/{model}/infer", upstream: triton}
  - {host: ocr.example.com, prefix: /api/, methods: [POST], headers: {x-tier: gold}, upstream: ocr, strip_prefix: true}
  - {upstream: ocr}
)") == R"(listen    0.0.0.0:8000 (http1, http2)
          unix:/run/p.sock (http1, http2)
admin     127.0.0.1:9901
threads   2
routes    /v2/models/{model}/infer -> triton
          ocr.example.com/api/* (POST, x-tier: gold) -> ocr, without /api/
          everything -> ocr

upstream ocr
  workers   2 x uvicorn ocr:app --uds ${SOCKET}
            in /srv/ocr
            on GPU 0, 1, in turn
            ready when GET /health answers 2xx, within 2m; stopped within 30s
            replaced after 1000 requests or 8GiB of memory, give or take 10%
  slots     2 requests at a time in all
  queue     100 requests or 256MiB, then 429; 30s at most, then 503
  timeouts  connect 2s, first byte 5m, idle 1m, client stall 10s, the whole request 1m
  abandoned work keeps its slot; its worker is restarted after 30s, at most 5m

upstream triton
  servers   10.0.0.5:8000, any number of requests at a time
            unix:/run/t.sock, 8 requests at a time, weight 2, backup
  balance   hash of header x-session, at most 150 % of a fair share, waits 200ms for a busy home; without home least_busy
  slots     not limited: requests never wait
  timeouts  connect 2s, first byte 5m, idle 1m, client stall 10s, the whole request none
  abandoned work keeps its slot until the backend has ended it, at most 5m

memory    at most 1.5GiB; 1.1GiB while heads are small and answers are read
       1GiB of bodies (limits.memory)
     7.1MiB for 1000 client connections with a request each (limits.connections)
      32MiB for the process and its 2 loops
   247.4MiB more if each client sends a head of 32KiB (limits.header_bytes) and reads nothing
   179.6MiB more if each speaks HTTP/2, with up to 128 requests at once

1 warning
  p.yaml:11:5: upstreams.triton.servers: some have no concurrency beside backends that have: they take all that would wait, so nothing ever queues; give each a concurrency
)");
}

TEST_CASE("each rate limit is a line of what check tells, and its keys a line of the memory") {
    std::string text = described(beside(R"(
rate_limits:
  - {name: per-client, key: client_ip, rate: 10/s, burst: 20}
  - {name: tenants, key: "header:authorization", concurrency: 4, match: {prefix: /api/}}
  - {name: work, key: global, rate: 600/m, delay: 2s, cost: "header:x-cost", concurrency: 1, dry_run: true})"));
    CHECK(text.find(R"(
limits    per-client: 10/s, 20 at once after a rest, then 429; each client_ip
          tenants: 4 requests in flight; each header:authorization, of /api/*
          work: 600/m, 10 at once after a rest, a request costs its x-cost, then held back for 2s at most, then 429; 1 request in flight; all requests together (dry run: nobody is refused)
)") != text.npos);
    CHECK(text.find("for the keys that rate limits remember") != text.npos);
    CHECK(described(beside("")).find("rate limits") == std::string::npos);
}

TEST_CASE("a shell command is shown as it was written, and no queue as none") {
    std::string text = described(
        "admin: off\nupstreams: {a: {workers: {command: \"exec serve ${PORT}\"}, queue: {size: 0}, "
        "abandon_limit: 0}}");
    CHECK(text.find("admin     off\n") != std::string::npos);
    CHECK(text.find("  workers   1 x exec serve ${PORT}\n") != std::string::npos);
    CHECK(text.find("  slots     1 request at a time in all\n") != std::string::npos);
    CHECK(text.find("  queue     none: refused with 429 when all are busy\n") != std::string::npos);
    CHECK(text.find("until the backend has ended it, however long that takes\n") != std::string::npos);
    CHECK(text.find("warning") == std::string::npos);
}

}  // namespace penstock
