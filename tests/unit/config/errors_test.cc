// What load() says of a file that can't be right: the whole line, as users see it.
#include <cstring>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "loading.h"

namespace penstock {

TEST_CASE("text that is not YAML is an error with its line and column") {
    CHECK(errors_of("a: [1, 2\nb: 3") ==
          "p.yaml:2:2: not valid YAML: end of sequence flow not found; check the indentation, colons, quotes "
          "and "
          "brackets here\n");
    CHECK(errors_of("upstreams:\n  a: {}\n bad: x\n") ==
          "p.yaml:3:2: not valid YAML: end of map not found; check the indentation, colons, quotes and "
          "brackets "
          "here\n");
    CHECK(errors_of("a: *nope\n") ==
          "p.yaml:1:4: not valid YAML: the referenced anchor is not defined; check the indentation, colons, "
          "quotes "
          "and brackets here\n");
}

TEST_CASE("an empty file, another kind of document and a second document are refused") {
    CHECK(errors_of("") == "p.yaml: is empty; write at least upstreams\n");
    CHECK(errors_of("# nothing\n") == "p.yaml: is empty; write at least upstreams\n");
    std::string_view right = "is not a configuration; write keys with values, and at least upstreams\n";
    CHECK(errors_of("---\n") == fmt::format("p.yaml:2:1: {}", right));
    CHECK(errors_of("[1]") == fmt::format("p.yaml:1:1: {}", right));
    CHECK(errors_of("hello") == fmt::format("p.yaml:1:1: {}", right));
    CHECK(errors_of("a: 1\n---\nb: 2\n") ==
          "p.yaml:3:1: a second document in the file; remove the line --- before it\n");
}

TEST_CASE("what would cost much to read is refused early") {
    std::string_view deep = "nested more than 50 deep; no setting is\n";
    CHECK(errors_of(std::string(100'000, '[')) == fmt::format("p.yaml:1:26: {}", deep));
    std::string dashes;
    for (int i = 0; i < 100'000; ++i) dashes += "- ";
    CHECK(errors_of(dashes) == fmt::format("p.yaml:1:101: {}", deep));

    std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n";
    for (char c = 'b'; c < 'l'; ++c) {
        bomb += fmt::format("{}: &{} [", c, c);
        for (int i = 0; i < 10; ++i) bomb += fmt::format("*{},", static_cast<char>(c - 1));
        bomb += "]\n";
    }
    CHECK(errors_of(bomb) ==
          "p.yaml:5:35: more than 100000 values, aliases counted each time; make the file smaller\n");
    std::string long_text = fmt::format("a: &a {}\nb: [", std::string(500'000, 'x'));
    for (int i = 0; i < 1000; ++i) long_text += "*a,";
    CHECK(errors_of(long_text + "]").find("more than 100000 values") != std::string::npos);

    std::string many = "a: [";
    for (int i = 0; i < 100'001; ++i) many += "1,";
    CHECK(errors_of(many + "]").find("more than 100000 values") != std::string::npos);
    CHECK(errors_of("a: &a [*a]") ==
          "p.yaml:1:8: an alias (*) inside of what it stands for; write the value out\n");
    CHECK(errors_of(std::string((1 << 20) + 1, '#')) == "p.yaml: is longer than 1MiB; make it smaller\n");
    CHECK(errors_of(std::string(1 << 20, '#')) == "p.yaml: is empty; write at least upstreams\n");
}

TEST_CASE("YAML that a configuration has no use for is refused") {
    CHECK(errors_of("a: !!python/object {}") ==
          "p.yaml:1:4: the tag tag:yaml.org,2002:python/object is not known here; leave it out\n");
    CHECK(errors_of("? [a]\n: b") == "p.yaml:1:3: a key that is no plain text; write key: value\n");
    CHECK(errors_of(fmt::format("? {}\n: b", std::string(2000, 'k'))) ==
          "p.yaml:1:3: a key of more than 1024 bytes; write a shorter one\n");
    CHECK(errors_of("a: {<<: 5}") ==
          "p.yaml:1:5: << merges only mappings; write <<: *name of one, or a list of such\n");
    CHECK(errors_of("a: \"x\\0y\"") == "p.yaml:1:4: a zero byte inside a value; remove it\n");
    CHECK(errors_of(beside("threads: !!int 2")) == "");
}

TEST_CASE("all errors are reported at once, in the order of the file") {
    CHECK(errors_of(R"(
threads: many
upstreams:
  a:
    servers: [10.0.0.1]
    concurency: 2
limits: {drain: 30}
routes: [{upstream: b}]
)") == "p.yaml:2:10: threads: \"many\" is not a whole number; give 1 to 256\n"
       "p.yaml:5:15: upstreams.a.servers[0]: \"10.0.0.1\" has no port; write 10.0.0.1:8000\n"
       "p.yaml:6:5: upstreams.a.concurency: unknown key; did you mean concurrency?\n"
       "p.yaml:7:17: limits.drain: \"30\" has no unit; write 30s for seconds, or 30ms\n"
       "p.yaml:8:11: routes[0].upstream: there is no upstream b; did you mean a?\n");
}

TEST_CASE("nobody reads more than a hundred errors, and the rest is counted") {
    std::string text = "upstreams:\n  a:\n    servers: [10.0.0.1:80]\n";
    for (int i = 0; i < 150; ++i) text += fmt::format("    unknown_{}: 1\n", i);
    std::vector<std::string> lines = texts(load_text(text).errors);
    CHECK(lines.size() == 101);
    CHECK(lines.back() == "p.yaml: and 50 more; repair these first");
}

TEST_CASE("an unknown key is refused with the nearest known one, else with all of them") {
    CHECK(errors_of(beside("listn: []")) == "p.yaml:1:1: listn: unknown key; did you mean listen?\n");
    CHECK(errors_of(with_server("queue: {tiemout: 1s}")) ==
          "p.yaml:1:49: upstreams.a.queue.tiemout: unknown key; did you mean timeout?\n");
    CHECK(errors_of(beside("resolver: {nameservers: [dns.test:53]}")) ==
          "p.yaml:1:26: resolver.nameservers[0]: \"dns.test:53\" is no IP address; write one, with a port "
          "where "
          "it is not 53\n");
    CHECK(errors_of(beside("access_log: {colour: red}")) ==
          "p.yaml:1:14: access_log.colour: unknown key; known here: path, format\n");
    CHECK(errors_of(beside("listen: [{address: \"127.0.0.1:1\", prot: [http1]}]")) ==
          "p.yaml:1:35: listen[0].prot: unknown key; did you mean protocols?\n");
}

TEST_CASE("a key that is given twice is refused") {
    CHECK(errors_of(beside("threads: 1\nthreads: 2")) ==
          "p.yaml:2:1: threads: is given twice, first in line 1; keep one\n");
    CHECK(errors_of("upstreams:\n  a: {servers: [10.0.0.1:80]}\n  a: {servers: [10.0.0.1:80]}\n") ==
          "p.yaml:3:3: upstreams.a: is given twice, first in line 2; keep one\n");
}

TEST_CASE("values of the wrong kind are refused") {
    CHECK(errors_of(beside("limits: 1GiB")) ==
          "p.yaml:1:9: limits: is a single value; write keys with values, as in {key: value}\n");
    CHECK(errors_of(beside("limits: [1]")) ==
          "p.yaml:1:9: limits: is a list; write keys with values, as in {key: value}\n");
    CHECK(errors_of(beside("listen: 127.0.0.1:8000")) ==
          "p.yaml:1:9: listen: is a single value; write a list: [{address: 0.0.0.0:8000}]\n");
    CHECK(errors_of(beside("threads: [1]")) == "p.yaml:1:10: threads: is a list; write a single value\n");
    CHECK(errors_of(beside("threads: {a: 1}")) ==
          "p.yaml:1:10: threads: is a mapping; write a single value\n");
    CHECK(errors_of(beside("limits:")) == "p.yaml:1:1: limits: is empty; give it a value or leave it out\n");
    CHECK(errors_of(beside("threads: \"\"")) ==
          "p.yaml:1:10: threads: is empty; give it a value or leave it out\n");
    CHECK(errors_of(with_server("queue: {refuse_hopeless: yes}")) ==
          "p.yaml:1:66: upstreams.a.queue.refuse_hopeless: \"yes\" is not known; write true or false\n");
}

TEST_CASE("numbers, sizes and durations out of range are refused with the range") {
    CHECK(errors_of(beside("threads: 0")) == "p.yaml:1:10: threads: 0 is out of range; give 1 to 256\n");
    CHECK(errors_of(with_server("queue: {size: -1}")) ==
          "p.yaml:1:55: upstreams.a.queue.size: -1 is out of range; give 0 to 1000000\n");
    CHECK(errors_of(with_server("circuit_breaker: {max_requests: 4294967296}")) ==
          "p.yaml:1:73: upstreams.a.circuit_breaker.max_requests: 4294967296 is out of range; give 0 or "
          "more\n");
    CHECK(errors_of(beside("limits: {memory: 1KiB}")) ==
          "p.yaml:1:18: limits.memory: 1KiB is too small; give 1MiB or more\n");
    CHECK(errors_of(beside("limits: {header_bytes: 2MiB}")) ==
          "p.yaml:1:24: limits.header_bytes: 2MiB is too large; give 1MiB or less\n");
    CHECK(errors_of(with_server("health_check: {interval: 0}")) ==
          "p.yaml:1:66: upstreams.a.health_check.interval: 0 is too short; give 1ms or more\n");
    CHECK(errors_of(with_server("status: {queue_full: 200}")) ==
          "p.yaml:1:62: upstreams.a.status.queue_full: 200 is out of range; give 400 to 599\n");
    CHECK(errors_of(with_server(fmt::format("slow_start: {}", std::string(600, '1')))) ==
          "p.yaml:1:53: upstreams.a.slow_start: is 600 bytes long, which no such value is; write a shorter "
          "one\n");
}

TEST_CASE("a variable that is not set is an error, and one that is none too") {
    CHECK(errors_of(beside("access_log: {path: \"${NOPE}\"}")) ==
          "p.yaml:1:20: access_log.path: the environment variable NOPE is not set; set it, or write the "
          "value\n");
    CHECK(errors_of(beside("access_log: {path: \"${NO-PE}\"}")) ==
          "p.yaml:1:20: access_log.path: \"${NO-PE}\" names no environment variable; write ${NAME}, or $${ "
          "for a "
          "plain ${\n");
    CHECK(
        errors_of(beside("access_log: {path: \"a${HOME\"}")) ==
        "p.yaml:1:20: access_log.path: \"${HOME\" names no environment variable; write ${NAME}, or $${ for a "
        "plain ${\n");
    CHECK(errors_of(beside("access_log: {path: \"${EMPTY}\"}")) ==
          "p.yaml:1:20: access_log.path: is empty; give it a value or leave it out\n");
    // Placeholders belong to commands and their environment alone.
    CHECK(errors_of(with_workers("", "directory: \"${SOCKET}\"")) ==
          "p.yaml:3:54: upstreams.a.workers.directory: the environment variable SOCKET is not set; set it, "
          "or write "
          "the value\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: [serve, \"${SOKET}\", \"${A} ${B}\"]}}}") ==
          "p.yaml:1:44: upstreams.a.workers.command[1]: the environment variable SOKET is not set; did you "
          "mean "
          "${SOCKET}?\n"
          "p.yaml:1:56: upstreams.a.workers.command[2]: the environment variable A is not set; set it, or "
          "write the "
          "value\n"
          "p.yaml:1:56: upstreams.a.workers.command[2]: the environment variable B is not set; set it, or "
          "write the "
          "value\n");
}

TEST_CASE("a variable must not blow a value up") {
    Surroundings big{1, {{"BIG", std::string(40 << 10, 'x')}}};
    CHECK(joined(load(beside("access_log: {path: \"${BIG}${BIG}\"}"), "p.yaml", big).errors) ==
          "p.yaml:1:20: access_log.path: is longer than 64KiB once its variables are filled in; at most that "
          "is "
          "read\n");
}

TEST_CASE("listeners, certificates and the admin address are refused with what would be right") {
    CHECK(errors_of(beside("listen: [localhost:8000]")) ==
          "p.yaml:1:10: listen[0]: \"localhost:8000\" is a name; write an IP address: 127.0.0.1:8000\n");
    CHECK(errors_of(beside("listen: [{protocols: [http1]}]")) ==
          "p.yaml:1:10: listen[0]: has no address; write address: 0.0.0.0:8000, or unix:/path\n");
    CHECK(errors_of(beside("listen: [{address: \"127.0.0.1:1\", protocols: []}]")) ==
          "p.yaml:1:35: listen[0].protocols: is empty; write [http1]\n");
    CHECK(errors_of(beside("listen: [{address: \"127.0.0.1:1\", protocols: [http3]}]")) ==
          "p.yaml:1:35: listen[0].protocols: is empty; write [http1]\n"
          "p.yaml:1:47: listen[0].protocols[0]: \"http3\" is not known; did you mean http1?\n");
    CHECK(errors_of(beside("listen: []")) ==
          "p.yaml:1:1: listen: is empty; write an address, or leave it out for 127.0.0.1:8000\n");
    CHECK(errors_of(beside("listen: [{address: \"127.0.0.1:1\", tls: {key: k}}]")) ==
          "p.yaml:1:35: listen[0].tls: lacks certificate or key; give both\n");
    CHECK(errors_of(beside(
              "listen: [{address: \"127.0.0.1:1\", tls: {certificate: c, key: k, certificates: []}}]")) ==
          "p.yaml:1:65: listen[0].tls.certificates: are given beside certificate and key; move those into "
          "the list\n"
          "p.yaml:1:65: listen[0].tls.certificates: is empty; give at least one {certificate, key}\n");
    CHECK(errors_of(beside("listen: [127.0.0.1:9901, 127.0.0.1:1, 127.0.0.1:1]")) ==
          "p.yaml:1:1: admin: 127.0.0.1:9901 is taken by listen[0] already; give each its own\n"
          "p.yaml:1:39: listen[2]: 127.0.0.1:1 is taken by listen[1] already; give each its own\n");
    CHECK(errors_of(beside("admin: nowhere")) ==
          "p.yaml:1:8: admin: \"nowhere\" has no port; write nowhere:8000\n");
    CHECK(errors_of(beside("trusted_proxies: [10.0.0.1/8]")) ==
          "p.yaml:1:19: trusted_proxies[0]: \"10.0.0.1/8\" has bits set beyond /8; write 10.0.0.0/8\n");
}

TEST_CASE("a file that says nothing of where the traffic goes is refused") {
    std::string_view right =
        "upstreams: is missing: nothing says where the traffic goes; write upstreams: {app: {servers: "
        "[127.0.0.1:9000]}}, or workers with a command\n";
    CHECK(errors_of("threads: 1") == fmt::format("p.yaml:1:1: {}", right));
    CHECK(errors_of("upstreams: {}") == fmt::format("p.yaml:1:1: {}", right));
    CHECK(errors_of("upstreams:") == "p.yaml:1:1: upstreams: is empty; give it a value or leave it out\n");
    CHECK(errors_of("upstreams: {a: {}}") ==
          "p.yaml:1:13: upstreams.a: has neither workers nor servers; write workers: {command: ...}, or "
          "servers: "
          "[127.0.0.1:9000]\n");
    CHECK(errors_of("upstreams: {a: }") ==
          "p.yaml:1:13: upstreams.a: is empty; give it a value or leave it out\n");
    // What is unknown is said once, not also as missing.
    CHECK(errors_of("upstreams: {a: {server: [10.0.0.1:80]}}") ==
          "p.yaml:1:17: upstreams.a.server: unknown key; did you mean servers?\n");
}

TEST_CASE("names of upstreams are such that they can be labels") {
    CHECK(errors_of("upstreams: {a/b: {servers: [10.0.0.1:80]}}") ==
          "p.yaml:1:13: upstreams.a/b: \"a/b\" is not a name; write 1 to 64 letters, digits, _, - or .\n");
    CHECK(errors_of("upstreams: {a-b.c_1: {servers: [10.0.0.1:80]}}") == "");
}

TEST_CASE("a command must say how the worker learns its address, in one way") {
    CHECK(errors_of("upstreams: {a: {workers: {count: 1}}}") ==
          "p.yaml:1:17: upstreams.a.workers.command: is missing; write the program to run: [uvicorn, "
          "\"app:app\", "
          "--uds, \"${SOCKET}\"]\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: [serve]}}}") ==
          "p.yaml:1:27: upstreams.a.workers.command: has neither ${SOCKET} nor ${PORT}, so the worker would "
          "not know "
          "where to listen; add such as --uds ${SOCKET} or --port ${PORT}, or put one into environment\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: \"serve ${PORT} ${SOCKET}\"}}}") ==
          "p.yaml:1:27: upstreams.a.workers.command: uses both ${SOCKET} and ${PORT}, but a worker listens "
          "in one "
          "place; keep one\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: []}}}") ==
          "p.yaml:1:36: upstreams.a.workers.command: names no program; write [program, argument]\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: \" \"}}}") ==
          "p.yaml:1:36: upstreams.a.workers.command: is empty; write the program to run and its arguments\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: [\"${EMPTY}\", \"${SOCKET}\"]}}}") ==
          "p.yaml:1:36: upstreams.a.workers.command: names no program; write [program, argument]\n");
    CHECK(errors_of("upstreams: {a: {workers: {command: \"serve ${SOCKET} ${GPU}\"}}}") ==
          "p.yaml:1:27: upstreams.a.workers.command: uses ${GPU}, but there are no gpus; write gpus: [0]\n");
}

TEST_CASE("settings of workers are refused with what would be right") {
    auto error = [](std::string_view settings) {
        std::string text = errors_of(with_workers("", settings));
        size_t at = text.find("workers.");
        return at == text.npos ? text : text.substr(at);
    };
    CHECK(error("count: 0") == "workers.count: 0 is out of range; give 1 to 1024\n");
    CHECK(error("gpus: [x]") ==
          "workers.gpus[0]: \"x\" is not a GPU; write its index, or its UUID (GPU-...)\n");
    CHECK(error("ready: {path: health}") ==
          "workers.ready.path: \"health\" does not begin with /; write /health\n");
    CHECK(error("ready: {path: /h, tcp: true}") ==
          "workers.ready.tcp: is given beside path; keep one of them\n");
    CHECK(error("ready: {tcp: false}") ==
          "workers.ready.tcp: is false, but there is no path either; write tcp: true or path: /health\n");
    CHECK(error("stop: {signal: STOP}") ==
          "workers.stop.signal: \"STOP\" is not known; write TERM, INT, QUIT, HUP, USR1, USR2 or KILL\n");
    CHECK(error("restart: {max_backoff: 100ms}") ==
          "workers.restart.max_backoff: backoff 500ms is longer than max_backoff 100ms; make it at most "
          "that\n");
    CHECK(error("restart: {backoff: 1m}") ==
          "workers.restart.backoff: backoff 1m is longer than max_backoff 30s; make it at most that\n");
    CHECK(error("recycle: {jitter: 10}") ==
          "workers.recycle.jitter: \"10\" is not a percentage; write one such as 10%\n");
    CHECK(error("environment: {\"A=B\": 1}") ==
          "workers.environment.A=B: is not a name for an environment variable; write one without =\n");
}

TEST_CASE("settings of servers are refused with what would be right") {
    CHECK(errors_of("upstreams: {a: {servers: [{weight: 2}]}}") ==
          "p.yaml:1:27: upstreams.a.servers[0]: has no address; write address: HOST:PORT, or unix:/path\n");
    CHECK(errors_of("upstreams: {a: {servers: [10.0.0.1:80, 10.0.0.1:80]}}") ==
          "p.yaml:1:40: upstreams.a.servers[1]: 10.0.0.1:80 is servers[0] already; use weight to give it "
          "more\n");
    CHECK(errors_of("upstreams: {a: {servers: [10.0.0.1:0]}}") ==
          "p.yaml:1:27: upstreams.a.servers[0]: 10.0.0.1:0 has port 0; give the port of the server\n");
    CHECK(errors_of("upstreams: {a: {servers: [{address: 10.0.0.1:80, resolve: 3s}]}}") ==
          "p.yaml:1:50: upstreams.a.servers[0].resolve: 10.0.0.1:80 is no host name; leave resolve out\n");
    CHECK(errors_of("upstreams: {a: {servers: [{address: 10.0.0.1:80, weight: 0}]}}") ==
          "p.yaml:1:58: upstreams.a.servers[0].weight: 0 is out of range; give 1 to 65535\n");
    CHECK(errors_of(with_workers("tls: {}")) ==
          "p.yaml:4:5: upstreams.a.tls: is for servers, and there are none: workers are reached without it; "
          "leave it "
          "out\n");
    CHECK(errors_of(with_server("tls: {key: k}")) ==
          "p.yaml:1:47: upstreams.a.tls.key: stands alone; give certificate and key together\n");
    std::string many = "upstreams: {a: {servers: [10.0.0.1:1";
    for (int i = 2; i < 1100; ++i) many += fmt::format(", 10.0.0.1:{}", i);
    CHECK(errors_of(many + "]}}") == "p.yaml:1:13: upstreams.a: 1099 backends; at most 1024\n");
}

TEST_CASE("settings of an upstream are refused with what would be right") {
    auto error = [](std::string_view settings) {
        std::string text = errors_of(with_server(settings));
        size_t at = text.find("upstreams.a");
        return at == text.npos ? text : text.substr(at);
    };
    CHECK(error("balance: least_bussy") ==
          "upstreams.a.balance: \"least_bussy\" is not known; did you mean least_busy?\n");
    CHECK(error("balance: fair") ==
          "upstreams.a.balance: \"fair\" is not known; write least_busy, round_robin, random_two, first or "
          "hash\n");
    CHECK(error("balance: hash") ==
          "upstreams.a.balance: hash needs to know of what; write {hash: client_ip} or {hash: {header: "
          "NAME}}\n");
    CHECK(error("balance: {hash: {}}") ==
          "upstreams.a.balance.hash: needs one key; write client_ip, path, {header: NAME}, {cookie: NAME} or "
          "{query: "
          "NAME}\n");
    CHECK(error("balance: {hash: {header: a, cookie: b}}") ==
          "upstreams.a.balance.hash: needs one key; write client_ip, path, {header: NAME}, {cookie: NAME} or "
          "{query: "
          "NAME}\n");
    CHECK(error("balance: {hash: path, sticky: {cookie: c}}") ==
          "upstreams.a.balance.sticky: stands beside hash; keep one of them\n");
    CHECK(
        error("balance: {hash: path, factor: 50}") ==
        "upstreams.a.balance.factor: is less than 100 percent of a fair share, which all cannot keep; write "
        "100 or more, or 0 for no bound\n");
    CHECK(error("balance: {policy: first, patience: 1s}") ==
          "upstreams.a.balance.patience: has no effect without hash or sticky; leave it out\n");
    CHECK(error("balance: {sticky: {cookie: c}, factor: 200}") ==
          "upstreams.a.balance.factor: has no effect without hash; leave it out\n");
    CHECK(error("balance: {sticky: {}}") ==
          "upstreams.a.balance.sticky.cookie: is missing; write the name of a cookie\n");
    CHECK(error("balance: {sticky: {cookie: \"a b\"}}") ==
          "upstreams.a.balance.sticky.cookie: \"a b\" is no cookie's name; write letters, digits, - and _\n");
    CHECK(error("balance: {sticky: {cookie: c, same_site: none}}") ==
          "upstreams.a.balance.sticky.same_site: none is taken by browsers only with secure: true; add it\n");
    CHECK(error("protocol: http3") == "upstreams.a.protocol: \"http3\" is not known; did you mean http1?\n");
    CHECK(error("on_abandon: restart") ==
          "upstreams.a.on_abandon: restart needs workers, and these servers are somebody else's; write drain "
          "or "
          "close\n");
    CHECK(error("retry: {on: [timeouts]}") ==
          "upstreams.a.retry.on[0]: \"timeouts\" is not known; write connect_failure, "
          "reset_before_response, gateway_error or 5xx\n");
    CHECK(error("retry: {on: [302]}") == "upstreams.a.retry.on[0]: 302 is out of range; give 400 to 599\n");
    CHECK(error("retry: {backoff: 1s, max_backoff: 500ms}") ==
          "upstreams.a.retry.max_backoff: 500ms is shorter than backoff 1s; make it at least that\n");
    CHECK(error("outlier_detection: {base_ejection_time: 10m}") ==
          "upstreams.a.outlier_detection.base_ejection_time: base_ejection_time 10m is longer than "
          "max_ejection_time "
          "5m; make it at most that\n");
    CHECK(error("outlier_detection: {success_rate: {stdev_factor: much}}") ==
          "upstreams.a.outlier_detection.success_rate.stdev_factor: \"much\" is not a factor; write one such "
          "as "
          "1.9\n");
    CHECK(error("health_check: {path: up}") ==
          "upstreams.a.health_check.path: \"up\" does not begin with /; write /up\n");
}

TEST_CASE("routes are refused with what would be right") {
    auto error = [](std::string_view route) {
        return errors_of(beside("routes: [{" + std::string(route) + "}]"));
    };
    CHECK(error("prefix: /x") ==
          "p.yaml:1:10: routes[0]: names no upstream; write upstream: and one of upstreams\n");
    CHECK(error("upstream: app") == "p.yaml:1:11: routes[0].upstream: there is no upstream app; write a\n");
    CHECK(error("path: /a, prefix: /a, upstream: a") ==
          "p.yaml:1:21: routes[0].prefix: is given beside path; keep one of them\n");
    CHECK(error("path: a, upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"a\" does not begin with /; write /a\n");
    CHECK(error("path: \"/a?b=c\", upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"/a?b=c\" is more than a path; write /a\n");
    CHECK(error("path: \"/a b\", upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"/a b\" has characters that no path has; write them as %XX\n");
    CHECK(error("path: /a/../%62, upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"/a/../%62\" matches nothing, as requests are compared in normal "
          "form; "
          "write /b\n");
    CHECK(error("prefix: /../b, upstream: a") ==
          "p.yaml:1:11: routes[0].prefix: \"/../b\" matches nothing, as such requests are refused "
          "(path_above_root); write a plain path\n");
    CHECK(error("path: \"/{a}{b}\", upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"/{a}{b}\" has two names that touch; put something between them\n");
    CHECK(error("path: \"/{a}/{a}\", upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"{a}\" is there twice; give the two different names\n");
    CHECK(error("path: \"/{a\", upstream: a") ==
          "p.yaml:1:11: routes[0].path: \"/{a\" has a brace without its other half; write {name}\n");
    CHECK(
        error("path: \"/{}\", upstream: a") ==
        "p.yaml:1:11: routes[0].path: \"{}\" is not a name; write letters, digits and _ inside the braces\n");
    CHECK(error("prefix: \"/{m}/\", upstream: a") ==
          "p.yaml:1:11: routes[0].prefix: \"/{m}/\" has a {name}, which only path can have; write path\n");
    CHECK(error("path: /x, upstream: \"{m}\"") ==
          "p.yaml:1:21: routes[0].upstream: {m} is not in path; write a path that has it, such as "
          "/models/{m}\n");
    CHECK(error("path: /x, strip_prefix: true, upstream: a") ==
          "p.yaml:1:21: routes[0].strip_prefix: has no prefix to strip; write prefix: /path/, or leave it "
          "out\n");
    CHECK(error("methods: [post], upstream: a") ==
          "p.yaml:1:21: routes[0].methods[0]: \"post\" is not in capitals, as methods are; write POST\n");
    CHECK(error("methods: [\"P T\"], upstream: a") ==
          "p.yaml:1:21: routes[0].methods[0]: \"P T\" is not a method; write one such as POST\n");
    CHECK(error("headers: {\"x y\": 1}, upstream: a") ==
          "p.yaml:1:28: routes[0].headers.x y: \"x y\" is not a header name; write one such as x-tier\n");
    CHECK(error("host: \"a.com:80\", upstream: a") ==
          "p.yaml:1:11: routes[0].host: \"a.com:80\" has a port; write a.com, which matches any port\n");
    CHECK(error("host: \"a*.com\", upstream: a") ==
          "p.yaml:1:11: routes[0].host: \"a*.com\" is not a host name; write example.com or *.example.com\n");
    CHECK(errors_of("upstreams: {a: {servers: [10.0.0.1:80]}, b: {servers: [10.0.0.1:81]}}") ==
          "p.yaml:1:1: routes: is missing, and there are 2 upstreams; write which requests go to which: "
          "routes: "
          "[{prefix: /, upstream: a}]\n");
}

TEST_CASE("devices and rate limits are refused with what would be right") {
    CHECK(errors_of(beside("devices: [{slots: 1}]")) ==
          "p.yaml:1:11: devices[0]: names no gpu; write gpu: 0\n");
    CHECK(
        errors_of(beside("devices: [{gpu: 0}, {gpu: 0}, {gpu: cuda}]")) ==
        "p.yaml:1:21: devices[1]: gpu 0 is devices[0] already; keep one\n"
        "p.yaml:1:37: devices[2].gpu: \"cuda\" is not a GPU; write its index, its UUID (GPU-...), or all\n");
    auto error = [](std::string_view limit) {
        return errors_of(beside("rate_limits: [{" + std::string(limit) + "}]"));
    };
    CHECK(error("key: global, rate: 1/s") ==
          "p.yaml:1:15: rate_limits[0]: has no name; write name: and a word for metrics and answers\n");
    CHECK(error("name: x, rate: 1/s") ==
          "p.yaml:1:15: rate_limits[0]: has no key; write key: client_ip, or global for all requests "
          "together\n");
    CHECK(error("name: x, key: global") ==
          "p.yaml:1:15: rate_limits[0]: limits nothing; write rate: 10/s, or concurrency: 4\n");
    CHECK(error("name: x, key: global, concurrency: 1, burst: 1") ==
          "p.yaml:1:54: rate_limits[0].burst: has no rate beside it; write rate: 10/s too\n");
    for (const char* key : {"ip", "header", "\"header:\"", "\"route:x\"", "\"heder:x\"", "\"cookie:a b\""}) {
        CAPTURE(key);
        std::string bare = key[0] == '"' ? std::string(key + 1, strlen(key) - 2) : key;
        CHECK(
            error(fmt::format("name: x, rate: 1/s, key: {}", key)) ==
            fmt::format("p.yaml:1:41: rate_limits[0].key: \"{}\" is not a key; write client_ip, header:NAME, "
                        "cookie:NAME, path:NAME, route or global\n",
                        bare));
    }
    CHECK(error("name: x, rate: 1/s, key: \"path:model\"") ==
          "p.yaml:1:36: rate_limits[0].key: no route has {model} in its path; write one that has\n");
    CHECK(error("name: x, key: global, concurrency: 1, delay: 1s") ==
          "p.yaml:1:54: rate_limits[0].delay: has no rate beside it; write rate: 10/s too\n");
    CHECK(error("name: x, key: global, concurrency: 1, cost: \"header:c\"") ==
          "p.yaml:1:54: rate_limits[0].cost: has no rate beside it; write rate: 10/s too\n");
    CHECK(error("name: x, key: global, rate: 1/s, cost: x-cost") ==
          "p.yaml:1:55: rate_limits[0].cost: \"x-cost\" says no cost; write header:NAME, such as "
          "header:x-cost\n");
    CHECK(error("name: x, key: global, rate: 1/s, delay: 2h") ==
          "p.yaml:1:49: rate_limits[0].delay: 2h is longer than anybody waits; at most 1h\n");
    CHECK(error("name: x, key: global, rate: 1/s, ipv6_prefix: 64") ==
          "p.yaml:1:49: rate_limits[0].ipv6_prefix: is for key: client_ip; leave it out\n");
    CHECK(error("name: \"a b\", key: global, rate: 1/s") ==
          "p.yaml:1:16: rate_limits[0].name: \"a b\" is not a name; write 1 to 64 letters, digits, _, - or "
          ".\n");
    CHECK(error("name: x, rate: 1/s, key: \"path:model\", match: {path: \"/m/{model}\"}") == "");
    CHECK(errors_of(
              beside("rate_limits: [{name: x, key: global, rate: 1/s}, {name: x, key: route, rate: 1/s}]")) ==
          "p.yaml:1:51: rate_limits[1].name: x is rate_limits[0] already; give each its own name\n");
}

TEST_CASE("control characters of a file do not reach the terminal") {
    CHECK(errors_of(beside("admin: \"a\\e[31mb\"")) ==
          "p.yaml:1:8: admin: \"a\\x1b[31mb\" is not an address; write 127.0.0.1:8000, [::1]:8000, name:8000 "
          "or "
          "unix:/path\n");
}

}  // namespace penstock
