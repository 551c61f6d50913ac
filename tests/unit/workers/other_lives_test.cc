// What this test program is when it is started by itself: the guard of a worker, or a penstock that is to be
// killed. And the test that kills it.
#include <csignal>
#include <cstring>
#include <doctest/doctest.h>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "scaffold.h"
#include "workers/guard.h"
#include "workers/process_tree.h"
#include "workers/supervisor.h"

using namespace penstock;
using namespace penstock::testing;

namespace {

struct Ignorant final : WorkerEvents {
    void worker_news(WorkerId, const BackendNews&, const Address&) override {}
    uint64_t requests_of(WorkerId, uint32_t) override { return 0; }
    void workers_stopped() override {}
};

// Two workers, each of which has a child in its group and one in a session of its own, and says who they are.
[[noreturn]] void be_penstock(const char* folder) {
    Loop loop(0);
    Ignorant events;
    Supervisor supervisor(loop, events);
    Workers config;
    config.command = {"/bin/sh", "-c",
                      "trap '' TERM HUP INT\n"
                      "say() { echo $2 > $DIR/$1-${INDEX}.new; mv $DIR/$1-${INDEX}.new $DIR/$1-${INDEX}; }\n"
                      "touch ${SOCKET}\n"
                      "sleep 1000 & say child $!\n"
                      "setsid sleep 1000 & say far $!\n"
                      "say worker $$\n"
                      "while :; do sleep 1000; done"};
    config.shell = true;
    config.environment = {{"DIR", folder}};
    config.count = 2;
    if (!supervisor.add("ocr", config)) ::_exit(1);
    supervisor.start();
    loop.run();
    ::_exit(0);
}

[[gnu::constructor]] void live_another_life(int argc, char** argv) {
    if (is_guard(argc, argv)) ::_exit(guard_main());
    if (argc == 3 && std::strcmp(argv[1], "_penstock") == 0) be_penstock(argv[2]);
}

}  // namespace

TEST_CASE("nothing of any worker survives a penstock that is killed with SIGKILL") {
    Folder folder;
    std::string program = "unit_workers", life = "_penstock", where = folder.path();
    std::string runtime = "XDG_RUNTIME_DIR=" + folder.path();
    char* argv[] = {program.data(), life.data(), where.data(), nullptr};
    char* environment[] = {runtime.data(), nullptr};
    pid_t penstock = 0;
    REQUIRE(::posix_spawn(&penstock, "/proc/self/exe", nullptr, nullptr, argv, environment) == 0);

    Loop loop(0);
    std::vector<pid_t> pids;
    for (const char* who : {"worker-0", "child-0", "far-0", "worker-1", "child-1", "far-1"}) {
        REQUIRE(look_until(loop, [&] { return number_in(folder / who) != 0; }));
        pids.push_back(number_in(folder / who));
    }
    for (pid_t guard : children_of(penstock)) pids.push_back(guard);
    REQUIRE(pids.size() == 8);
    std::vector<Watched> watched;
    for (pid_t pid : pids) watched.emplace_back(pid);

    ::kill(penstock, SIGKILL);
    ::waitpid(penstock, nullptr, 0);
    for (const Watched& one : watched) CHECK(one.ends());
    // Its folder with their sockets is gone too.
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        CHECK_FALSE(entry.is_directory());
    }
}
