// A Supervisor with one upstream of workers that are small Python servers, and what it tells.
#pragma once

#include <algorithm>
#include <csignal>
#include <doctest/doctest.h>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scaffold.h"
#include "workers/supervisor.h"

namespace penstock::testing {

// A small serial HTTP server. It is ready (200) as long as DIR/not-ready does not exist. Only one may hold
// the "GPU" (DIR/gpu) at a time: one that finds it taken says so in DIR/two-at-once.
inline constexpr const char* server = R"(
import fcntl, os, signal, socket, sys
folder, where = os.environ['DIR'], sys.argv[1]
gpu = open(folder + '/gpu' + os.environ.get('CUDA_VISIBLE_DEVICES', ''), 'w')
try:
    fcntl.flock(gpu, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(folder + '/two-at-once', 'w').close()
if where.startswith('/'):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
else:
    listener = socket.socket()
    listener.bind(('127.0.0.1', int(where)))
listener.listen()
print('listening', flush=True)
while True:
    connection, _ = listener.accept()
    request = b''
    while b'\r\n\r\n' not in request:
        more = connection.recv(65536)
        if not more:
            break
        request += more
    status = b'503 Loading' if os.path.exists(folder + '/not-ready') else b'200 OK'
    if status[:1] == b'5':
        print('refused', flush=True)
    try:
        connection.sendall(b'HTTP/1.1 ' + status + b'\r\nContent-Length: 0\r\n\r\n')
    except OSError:
        pass
    connection.close()
)";

struct House final : WorkerEvents {
    House() {
        config.command = {"/usr/bin/python3", "-IS", "-c", server, "${SOCKET}"};
        config.environment = {{"DIR", folder.path()}};
        config.ready = {.path = "/ready", .interval = 5ms, .timeout = patience};
        config.stop = {.signal = SIGTERM, .grace = patience};
        config.restart = {.backoff = 50ms, .max_backoff = 50ms, .give_up_after = 0};
        supervisor.emplace(loop, *this, 7);
    }
    ~House() {
        if (!stopped) {
            supervisor->kill();
            CHECK(shuts_down());
        }
        CHECK_FALSE(std::filesystem::exists(folder / "two-at-once"));
    }

    void worker_news(WorkerId worker, const BackendNews& told, const Address& address) override {
        constexpr const char* names[] = {"starting",  "ready",     "suspect", "alive", "probe_failed",
                                         "eject",     "unhealthy", "healthy", "drain", "undrain",
                                         "idle_stop", "exited",    "gave_up"};
        news.push_back(fmt::format("{}:{} {}", static_cast<uint32_t>(worker), told.generation,
                                   names[static_cast<size_t>(told.event)]));
        last[worker] = told;
        addresses[worker] = address;
    }
    uint64_t requests_of(WorkerId, uint32_t generation) override { return requests[generation]; }
    void workers_stopped() override { stopped = true; }

    void start() {
        auto first = supervisor->add("ocr", config);
        REQUIRE(first);
        supervisor->start();
    }
    bool shuts_down() {
        supervisor->shut_down();
        return run_until(loop, [this] { return stopped; });
    }
    // "0:1 ready": worker 0, generation 1.
    bool happens(const std::string& what) {
        return run_until(loop, [&] { return std::find(news.begin(), news.end(), what) != news.end(); });
    }
    size_t count(const std::string& what) const {
        return static_cast<size_t>(std::count(news.begin(), news.end(), what));
    }
    bool enters(WorkerState state) {
        return run_until(loop, [&] { return one().state() == state; });
    }
    Worker& one() { return supervisor->worker(WorkerId{0}); }
    void touch(const std::string& name) { std::ofstream(folder / name) << "x"; }

    Loop loop{0};
    Folder folder;
    Workers config;
    CapturedLog log;
    std::vector<std::string> news;
    std::map<WorkerId, BackendNews> last;
    std::map<WorkerId, Address> addresses;
    std::map<uint32_t, uint64_t> requests;
    bool stopped = false;
    std::optional<Supervisor> supervisor;
};

}  // namespace penstock::testing
