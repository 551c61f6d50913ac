// Workers that are in trouble: suspected, held by work that nobody waits for, crashing again and again.
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

TEST_CASE("a worker held by work that nobody waits for is restarted without a drain") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.one().restart_by_force(7);  // of a generation that is not there: nothing
    CHECK(house.one().state() == WorkerState::ready);
    house.one().restart_by_force(1);
    REQUIRE(house.happens("0:2 ready"));
    CHECK(house.count("0:1 drain") == 0);
    CHECK(house.count("0:1 exited") == 1);
}

TEST_CASE("a suspect worker that answers is told as alive") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    for (bool only_connect : {false, true}) {
        house.news.clear();
        house.one().check(1, only_connect);
        REQUIRE(house.happens("0:1 alive"));
        CHECK(house.news.size() == 1);
    }
}

TEST_CASE("a suspect worker that is busy with something else is not taken for dead") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    // It serves one connection at a time: while this one says nothing, nobody else gets an answer.
    Dialed silent = dial(*socket_address(house.addresses[WorkerId{0}]));
    Descriptor owner(silent.fd);
    REQUIRE(silent.error == 0);
    house.one().check(1, false);
    pass(house.loop, 10s);
    REQUIRE(house.happens("0:1 alive"));
    CHECK(house.count("0:1 probe_failed") == 0);
}

TEST_CASE("a suspect worker that does not answer as it should is asked again until it does") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.touch("not-ready");
    house.one().check(1, false);
    REQUIRE(house.happens("0:1 probe_failed"));
    CHECK(house.count("0:1 alive") == 0);
    std::filesystem::remove(house.folder / "not-ready");
    CHECK(house.happens("0:1 alive"));
}

TEST_CASE("a suspect worker that never answers is restarted") {
    House house;
    house.config.ready.timeout = 120s;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    house.touch("not-ready");
    house.one().check(1, false);
    REQUIRE(house.happens("0:1 probe_failed"));
    CHECK(house.one().state() == WorkerState::ready);
    pass(house.loop, 121s);
    REQUIRE(house.happens("0:1 exited"));
    CHECK(house.one().view().exits[static_cast<size_t>(WorkerExit::hung)] == 1);
    CHECK(house.count("0:1 alive") == 0);
}

TEST_CASE("a suspect worker that has died is told as exited and not as alive") {
    House house;
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    ::kill(house.one().view().pid, SIGKILL);
    house.one().check(1, false);
    REQUIRE(house.happens("0:2 ready"));
    CHECK(house.count("0:1 alive") == 0);
}

TEST_CASE("what a worker left behind is killed from here when somebody killed its guard") {
    House house;
    house.config.command = {
        "/bin/sh", "-c",
        "setsid sh -c 'echo $$ > $DIR/far.new; mv $DIR/far.new $DIR/far; exec sleep 1000' & "
        "exec /usr/bin/python3 -IS -c \"$SERVER\" ${SOCKET}"};
    house.config.environment.emplace_back("SERVER", server);
    house.start();
    REQUIRE(house.happens("0:1 ready"));
    REQUIRE(look_until(house.loop, [&] { return number_in(house.folder / "far") != 0; }));
    int far = number_in(house.folder / "far"), near = house.one().view().pid;
    ::kill(house.one().guard_pid(), SIGKILL);
    REQUIRE(house.happens("0:2 starting"));
    CHECK_FALSE(is_alive(far));
    CHECK_FALSE(is_alive(near));
    CHECK(house.happens("0:2 ready"));
}

TEST_CASE("a crash loop is slowed down more and more") {
    House house;
    house.config.command = {"/bin/false"};
    house.config.restart = {.backoff = 1s, .max_backoff = 4s, .give_up_after = 0};
    house.start();
    Duration longest[] = {1s, 2s, 4s, 4s};
    for (uint32_t generation = 1; generation <= 4; ++generation) {
        REQUIRE(house.happens(fmt::format("0:{} exited", generation)));
        REQUIRE(run_until(house.loop, [&] { return house.one().guard_pid() == 0; }));
        Duration wait = house.last[WorkerId{0}].until - house.loop.now();
        CHECK(wait <= longest[generation - 1]);
        CHECK(wait > longest[generation - 1] / 2);  // the jitter, and the time that it took to get here
        CHECK(house.count(fmt::format("0:{} starting", generation + 1)) == 0);
        pass(house.loop, wait + 1ms);
        CHECK(house.count(fmt::format("0:{} starting", generation + 1)) == 1);
    }
}
