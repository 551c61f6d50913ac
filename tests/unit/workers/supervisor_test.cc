#include "workers/supervisor.h"

#include <csignal>
#include <doctest/doctest.h>
#include <string>
#include <sys/socket.h>
#include <vector>

#include "house.h"
#include "net/socket.h"
#include "workers/process_tree.h"

using namespace penstock;
using namespace penstock::testing;

namespace {

using Texts = std::vector<std::string>;

std::string accepts(const Address& address) {
    struct Asker final : Task {
        ~Asker() { unlink(); }
        void run(Time) override {}
    } asker;
    Loop loop(0);
    Probe probe(loop, asker);
    probe.ask({.address = address, .path = "/", .timeout = patience});
    run_until(loop, [&] { return !probe.is_asking(); });
    return probe.outcome().text;
}

}  // namespace

TEST_CASE("a worker is told as ready when its probe is answered, at the address that it was given") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    CHECK(house.news == Texts{"0:1 starting", "0:1 ready"});
    CHECK(accepts(house.addresses[WorkerId{0}]) == "GET / -> 200");
    auto view = house.one().view();
    CHECK(view.name == "ocr/0");
    CHECK(view.state == WorkerState::ready);
    CHECK(is_alive(view.pid));
    CHECK(view.starts == 1);
    CHECK(house.log.has("ocr/0: listening\n"));
    CHECK(house.log.has("worker ocr/0 (pid "));
}

TEST_CASE("a worker that has opened its port but is not ready gets no request") {
    House house;
    house.touch("not-ready");
    house.start();
    REQUIRE(run_until(house.loop, [&] { return house.log.has("ocr/0: listening\n"); }));
    for (int turn = 0; turn < 20; ++turn) house.loop.run_once();
    CHECK(house.news == Texts{"0:1 starting"});
    std::filesystem::remove(house.folder / "not-ready");
    CHECK(house.happens("0:1 ready"));
}

TEST_CASE("being able to connect is enough where nothing else is asked for") {
    House house;
    house.touch("not-ready");
    house.config.ready.path.clear();
    house.start();
    CHECK(house.happens("0:1 ready"));
}

TEST_CASE("workers on ports have different ones and their own index and GPU") {
    House house;
    house.config.command = {"/bin/sh", "-c",
                            "echo index ${INDEX} gpu $CUDA_VISIBLE_DEVICES ${GPU}; "
                            "exec /usr/bin/python3 -IS -c \"$SERVER\" ${PORT}"};
    house.config.shell = true;
    house.config.environment.emplace_back("SERVER", server);
    house.config.address = WorkerAddress::port;
    house.config.count = 3;
    house.config.gpus = {"0", "GPU-b", "2"};
    house.start();
    for (int i = 0; i < 3; ++i) REQUIRE(house.happens(fmt::format("{}:1 ready", i)));
    CHECK(house.log.has("ocr/0: index 0 gpu 0 0\n"));
    CHECK(house.log.has("ocr/1: index 1 gpu GPU-b GPU-b\n"));
    CHECK(house.log.has("ocr/2: index 2 gpu 2 2\n"));
    std::set<uint16_t> ports;
    for (auto& [id, address] : house.addresses) ports.insert(address.port);
    CHECK(ports.size() == 3);
}

TEST_CASE("a start that takes too long names each step, the tries and the worker's last lines") {
    House house;
    house.touch("not-ready");
    house.config.ready.timeout = 120s;
    house.config.restart = {.backoff = 1h, .max_backoff = 1h, .give_up_after = 0};
    house.start();
    REQUIRE(run_until(house.loop, [&] { return house.log.has("ocr/0: refused\n"); }));
    house.loop.run_once();
    pass(house.loop, 121s);
    REQUIRE(house.happens("0:1 exited"));
    std::string text = house.log.text();
    size_t at = text.find("not ready after 2m: exec ok ");
    REQUIRE(at != std::string::npos);
    std::string message = text.substr(at, text.find('\n', at) - at);
    CHECK(message.find("s, socket open ") != std::string::npos);
    CHECK(message.find("GET /ready") != std::string::npos);
    CHECK(message.find("; its last lines: \"listening\" | \"refused\"") != std::string::npos);
    REQUIRE(house.enters(WorkerState::down));
    auto view = house.one().view();
    CHECK(view.why.starts_with("not ready after 2m"));
    CHECK(view.exits[static_cast<size_t>(WorkerExit::start_timeout)] == 1);
    CHECK(view.until > house.loop.now() + 30min);
}

TEST_CASE("a worker that ends before it is ready says so with its last lines") {
    House house;
    house.config.command = {"/bin/sh", "-c",
                            "echo loading; echo 'ImportError: no module named x' >&2; exit 3"};
    house.config.restart.backoff = house.config.restart.max_backoff = 1h;
    house.start();
    REQUIRE(house.happens("0:1 exited"));
    std::string why(house.one().view().why);
    CHECK(why.find("before it was ready: exit code 3; exec ok ") != std::string::npos);
    CHECK(why.find("socket never open") != std::string::npos);
    CHECK(why.find("\"ImportError: no module named x\"") != std::string::npos);
    CHECK(house.one().view().exits[static_cast<size_t>(WorkerExit::exit_code)] == 1);
}

TEST_CASE("a program that does not exist is given up after so many tries and can be started again") {
    House house;
    house.config.command = {house.folder / "program"};
    house.config.restart.give_up_after = 3;
    house.start();
    REQUIRE(house.happens("0:3 gave_up"));
    CHECK(house.news ==
          Texts{"0:1 starting", "0:1 exited", "0:2 starting", "0:2 exited", "0:3 starting", "0:3 gave_up"});
    CHECK(
        house.one().view().why ==
        fmt::format("could not be started: exec {}/program: No such file or directory", house.folder.path()));
    CHECK(house.log.has("given up after 3 failures in a row"));
    REQUIRE(house.enters(WorkerState::stopped));
    CHECK(house.one().view().exits[static_cast<size_t>(WorkerExit::start_failed)] == 3);

    house.one().start();
    CHECK(house.happens("0:4 starting"));
}

TEST_CASE("a worker that is killed is told at once, has died before its successor starts, and comes back") {
    House house;
    house.start();
    for (uint32_t generation = 1; generation <= 3; ++generation) {
        REQUIRE(house.happens(fmt::format("0:{} ready", generation)));
        ::kill(house.one().view().pid, SIGKILL);
        REQUIRE(house.happens(fmt::format("0:{} exited", generation)));
        CHECK(house.last[WorkerId{0}].until > house.loop.now());
        CHECK(house.one().view().why.find("signal 9 (Killed)") != std::string::npos);
    }
    REQUIRE(house.happens("0:4 ready"));
    CHECK(house.one().view().why == "");
    CHECK(house.one().view().exits[static_cast<size_t>(WorkerExit::signal)] == 3);
}

TEST_CASE("each generation listens at an address of its own") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    Address first = house.addresses[WorkerId{0}];
    ::kill(house.one().view().pid, SIGKILL);
    REQUIRE(house.happens("0:2 ready"));
    CHECK(house.addresses[WorkerId{0}].text != first.text);
    CHECK(accepts(first) == "connect: No such file or directory");
}

TEST_CASE("after enough requests a worker is drained, stopped and started anew") {
    House house;
    house.config.recycle = {.requests = 100, .rss = 0, .jitter = 0};
    house.requests[1] = 99;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.requests[1] = 100;
    REQUIRE(house.happens("0:1 drain"));
    CHECK(house.last[WorkerId{0}].until != never);
    int old = house.one().view().pid;
    CHECK(is_alive(old));  // until nothing of it is used any more
    house.one().drained(1);
    REQUIRE(house.happens("0:2 ready"));
    CHECK(house.news ==
          Texts{"0:1 starting", "0:1 ready", "0:1 drain", "0:1 exited", "0:2 starting", "0:2 ready"});
    CHECK_FALSE(is_alive(old));
    CHECK(house.one().view().exits[static_cast<size_t>(WorkerExit::asked)] == 1);
}

TEST_CASE("workers of one upstream are recycled one at a time") {
    House house;
    house.config.recycle = {.requests = 1, .rss = 0, .jitter = 0};
    house.config.count = 2;
    house.config.gpus = {"0", "1"};
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    REQUIRE(house.happens("1:1 ready"));
    house.requests[1] = 1;
    REQUIRE(run_until(house.loop, [&] { return house.count("0:1 drain") + house.count("1:1 drain") > 0; }));
    for (auto& worker : house.supervisor->view()) {
        if (worker.state == WorkerState::ready)
            CHECK(house.count(fmt::format("{}:1 drain", worker.index)) == 0);
    }
    bool zero_first = house.count("0:1 drain") == 1;
    WorkerId first{zero_first ? 0U : 1U}, second{zero_first ? 1U : 0U};
    house.supervisor->worker(first).drained(1);
    REQUIRE(house.happens(fmt::format("{}:2 ready", static_cast<uint32_t>(first))));
    CHECK(house.happens(fmt::format("{}:1 drain", static_cast<uint32_t>(second))));
}

TEST_CASE("a worker whose memory has grown beyond its bound is recycled") {
    House house;
    house.config.recycle = {.requests = 0, .rss = 1000, .jitter = 0};  // Python has more from the start
    house.start();
    REQUIRE(house.happens("0:1 drain"));
    CHECK(house.log.has("recycled: it holds "));
    CHECK(house.one().view().rss_bytes > 1'000'000);
}

TEST_CASE("a worker that ignores its stop signal is killed after the grace") {
    House house;
    house.config.command = {
        "/bin/sh", "-c",
        "trap '' TERM; /usr/bin/python3 -IS -c \"$SERVER\" ${SOCKET} & while :; do sleep 0.01; done"};
    house.config.environment.emplace_back("SERVER", server);
    house.config.stop.grace = 20ms;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    int pid = house.one().view().pid;
    CHECK(house.shuts_down());
    CHECK_FALSE(is_alive(pid));
    CHECK(house.log.has("does not end by itself and is killed"));
    CHECK(house.log.has("has stopped: signal 9 (Killed)"));
    CHECK(house.news.back() == "0:1 gave_up");
}

TEST_CASE("a shut down stops all workers at once and tells when nothing is left") {
    House house;
    house.config.count = 3;
    house.config.gpus = {"0", "1", "2"};
    house.start();
    for (int i = 0; i < 3; ++i) REQUIRE(house.happens(fmt::format("{}:1 ready", i)));
    std::vector<pid_t> pids;
    for (auto& worker : house.supervisor->view()) pids.push_back(worker.pid);
    std::string folder = house.addresses[WorkerId{0}].path;
    folder.resize(folder.rfind('/'));
    house.supervisor->shut_down();
    for (auto& worker : house.supervisor->view()) CHECK(worker.state == WorkerState::stopping);
    pass(house.loop, 2s);
    CHECK_FALSE(house.stopped);
    REQUIRE(run_until(house.loop, [&] { return house.stopped; }));
    for (pid_t pid : pids) CHECK_FALSE(is_alive(pid));
    CHECK(std::filesystem::is_empty(folder));
    house.supervisor.reset();
    CHECK_FALSE(std::filesystem::exists(folder));
    house.supervisor.emplace(house.loop, house, 7);
}

TEST_CASE("a shut down during a start, a stop or a back-off ends too") {
    SUBCASE("start") {
        House house;
        house.start();
        CHECK(house.shuts_down());
        CHECK(house.count("0:2 starting") == 0);
    }
    SUBCASE("start, once the process runs") {
        House house;
        house.touch("not-ready");
        house.start();
        REQUIRE(run_until(house.loop, [&] { return house.one().view().pid != 0; }));
        CHECK(house.shuts_down());
    }
    SUBCASE("stop") {
        House house;
        house.start();
        REQUIRE(house.happens("0:1 ready"));
        house.one().restart("asked");
        house.one().drained(1);
        CHECK(house.one().state() == WorkerState::stopping);
        CHECK(house.shuts_down());
        CHECK(house.count("0:2 starting") == 0);
    }
    SUBCASE("back-off") {
        House house;
        house.config.command = {"/bin/false"};
        house.config.restart.backoff = house.config.restart.max_backoff = 1h;
        house.start();
        REQUIRE(house.happens("0:1 exited"));
        CHECK(house.shuts_down());
    }
    SUBCASE("nothing was added") {
        House house;
        house.supervisor->start();
        CHECK(house.shuts_down());
    }
}

TEST_CASE("a restart that was asked for waits for the requests that run") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.one().restart("asked");
    CHECK(house.one().state() == WorkerState::draining);
    CHECK(house.news.back() == "0:1 drain");
    house.one().drained(0);  // of another generation
    CHECK(house.one().state() == WorkerState::draining);
    house.one().drained(1);
    CHECK(house.happens("0:2 ready"));
}

TEST_CASE("a retired worker drains, stops, stays away, and can be started again") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.one().retire();
    CHECK(house.last[WorkerId{0}].until == never);
    house.one().drained(1);
    REQUIRE(house.enters(WorkerState::stopped));
    CHECK(house.news.back() == "0:1 gave_up");
    house.one().start();
    CHECK(house.happens("0:2 ready"));
}

TEST_CASE(
    "a worker that cannot be killed raises an alarm, has no successor, and does not keep penstock from "
    "ending") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    // A guard that does not run is as good as a process that the kernel does not let go.
    int guard = house.one().guard_pid();
    ::kill(guard, SIGSTOP);
    house.supervisor->shut_down();
    pass(house.loop, patience + 1s);  // the grace
    CHECK(house.log.has("does not end by itself and is killed"));
    CHECK_FALSE(house.stopped);
    pass(house.loop, 11s);
    CHECK(house.log.has("worker ocr/0: SIGKILL does not end it; nothing is started in its place"));
    CHECK(house.one().state() == WorkerState::stopping);
    REQUIRE(run_until(house.loop, [&] { return house.stopped; }));

    ::kill(guard, SIGCONT);
    CHECK(house.enters(WorkerState::stopped));
    CHECK(house.one().guard_pid() == 0);
}

TEST_CASE("gunicorn and its worker processes are ready, drain, and end together") {
    House house;
    std::ofstream(house.folder / "app.py") << "def app(environ, start_response):\n"
                                              "    start_response('200 OK', [('Content-Length', '2')])\n"
                                              "    return [b'ok']\n";
    house.config.command = {"/usr/bin/gunicorn", "--workers=2", "--bind=unix:${SOCKET}",
                            "--log-level=warning", "app:app"};
    house.config.directory = house.folder.path();
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    std::vector<pid_t> processes = children_of(house.one().view().pid);
    processes.push_back(house.one().view().pid);
    CHECK(processes.size() >= 2);
    house.one().restart("asked");
    house.one().drained(1);
    REQUIRE(house.happens("0:2 starting"));
    for (pid_t pid : processes) CHECK_FALSE(is_alive(pid));
    CHECK_FALSE(house.log.has("is killed"));
    REQUIRE(house.happens("0:2 ready"));

    processes = children_of(house.one().view().pid);
    ::kill(house.one().view().pid, SIGKILL);
    REQUIRE(house.happens("0:3 starting"));
    for (pid_t pid : processes) CHECK_FALSE(is_alive(pid));
}
