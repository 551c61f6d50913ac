#include "workers/process.h"

#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <optional>
#include <string>
#include <sys/wait.h>
#include <vector>

#include "scaffold.h"
#include "workers/process_tree.h"

using namespace penstock;
using namespace penstock::testing;

namespace {

uint64_t own_memory() {
    std::string pages = contents("/proc/self/statm");
    return std::strtoull(pages.c_str() + pages.find(' '), nullptr, 10) * 4096;
}

std::vector<std::string> shell(std::string text) { return {"/bin/sh", "-c", std::move(text)}; }

// One process on a loop of its own, with a folder into which it may write.
struct Run final : Task {
    explicit Run(std::vector<std::string> command) : process(std::in_place, loop, *this, "ocr/0") {
        task.command = std::move(command);
        task.environment = {"PATH=/usr/bin:/bin", "DIR=" + folder.path()};
    }
    ~Run() {
        process->kill();
        CHECK(ends());
        unlink();
    }
    void run(Time) override {}

    void start() { REQUIRE(process->start(task)); }
    bool starts() {
        return run_until(loop, [this] { return process->has_started() || process->is_gone(); }) &&
               process->has_started();
    }
    bool exits() {
        return run_until(loop, [this] { return process->exit().has_value(); });
    }
    bool ends() {
        return run_until(loop, [this] { return process->is_gone() || process->guard_pid() == 0; });
    }
    // The worker writes its file when it is where the test wants it.
    int wait_number(const std::string& name) {
        look_until(loop, [&] { return number_in(folder / name) != 0; });
        return number_in(folder / name);
    }

    Loop loop{0};
    Folder folder;
    GuardTask task;
    std::optional<Process> process;
};

}  // namespace

TEST_CASE("a command runs to its end and its exit code is known") {
    Run run(shell("exit 7"));
    run.start();
    REQUIRE(run.exits());
    CHECK(run.process->has_started());
    CHECK(to_string(*run.process->exit()) == "exit code 7");
    REQUIRE(run.ends());
    CHECK_FALSE(run.process->is_guard_lost());
}

TEST_CASE("a worker that a signal ends says which signal") {
    Run run(shell("kill -SEGV $$"));
    run.start();
    REQUIRE(run.exits());
    CHECK(to_string(*run.process->exit()).starts_with("signal 11 (Segmentation fault)"));
}

TEST_CASE("a command that does not exist fails in its exec step") {
    Run run({"no-such-program", "--flag"});
    run.start();
    REQUIRE(run.ends());
    CHECK_FALSE(run.process->has_started());
    CHECK(run.process->start_failure() ==
          "exec no-such-program: No such file or directory in any folder of PATH");
}

TEST_CASE("a command without the right to be executed fails in its exec step") {
    Run run({"/etc/passwd"});
    run.start();
    REQUIRE(run.ends());
    CHECK(run.process->start_failure() == "exec /etc/passwd: Permission denied");
}

TEST_CASE("a folder that does not exist fails in the directory step") {
    Run run(shell("exit 0"));
    run.task.directory = "/no/such/folder";
    run.start();
    REQUIRE(run.ends());
    CHECK(run.process->start_failure() == "directory /no/such/folder: No such file or directory");
}

TEST_CASE("a command is found by the PATH of the worker and not by ours") {
    Run run({"only-here"});
    std::ofstream(run.folder / "only-here") << "#!/bin/sh\nexit 3\n";
    std::filesystem::permissions(run.folder / "only-here", std::filesystem::perms::owner_all);
    run.task.environment = {"PATH=" + run.folder.path()};
    run.start();
    REQUIRE(run.exits());
    CHECK(to_string(*run.process->exit()) == "exit code 3");
}

TEST_CASE("a worker has its folder and exactly its environment") {
    CapturedLog log;
    Run run(shell("pwd; /usr/bin/env | sort"));
    run.task.directory = "/usr";
    run.task.environment = {"B=two words", "A=1"};
    run.start();
    REQUIRE(run.ends());
    CHECK(log.has("ocr/0: /usr\n"));
    CHECK(log.has("ocr/0: A=1\n"));
    CHECK(log.has("ocr/0: B=two words\n"));
    CHECK_FALSE(log.has("HOME="));
}

TEST_CASE("no descriptor, signal mask or ignored signal of ours reaches a worker") {
    CapturedLog log;
    Descriptor leaky(::open("/dev/zero", O_RDONLY));  // without close-on-exec, as a careless library does it
    Descriptor high(::fcntl(leaky.number(), F_DUPFD, 700));
    auto old_handler = std::signal(SIGUSR1, SIG_IGN);
    sigset_t some, old_mask;
    sigemptyset(&some);
    sigaddset(&some, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &some, &old_mask);

    Run run({"/usr/bin/python3", "-c",
             "import os, signal\n"
             "fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))\n"
             "print('open', fds[:-1])\n"  // the last one is the listing itself
             "print('stdin', os.readlink('/proc/self/fd/0'))\n"
             "for line in open('/proc/self/status'):\n"
             "    name, value = line.split(':')\n"
             "    if name in ('SigBlk', 'SigIgn'): print(name, hex(int(value, 16) & 0x7fffffff))\n"
             "print('leader', os.getsid(0) == os.getpgid(0) == os.getpid())\n"});
    run.start();
    REQUIRE(run.ends());
    ::sigprocmask(SIG_SETMASK, &old_mask, nullptr);
    std::signal(SIGUSR1, old_handler);

    CHECK(log.has("open [0, 1, 2]\n"));
    CHECK(log.has("stdin /dev/null\n"));
    CHECK(log.has("SigBlk 0x0\n"));
    CHECK(log.has("SigIgn 0x1001000\n"));  // SIGPIPE and SIGXFSZ, which Python itself ignores
    CHECK(log.has("leader True\n"));
}

TEST_CASE("a worker that is asked to stop may end by itself") {
    Run run(shell("trap 'echo bye; exit 5' TERM; echo 1 > $DIR/up; while :; do sleep 0.01; done"));
    run.start();
    REQUIRE(run.wait_number("up") == 1);
    run.process->stop(SIGTERM);
    REQUIRE(run.exits());
    CHECK(to_string(*run.process->exit()) == "exit code 5");
    CHECK(run.process->last_lines().text() == "\"bye\"");
}

TEST_CASE("a worker that ignores its stop signal is killed with its children") {
    Run run(shell("trap '' TERM; sleep 1000 & echo $! > $DIR/child; while :; do sleep 0.01; done"));
    run.start();
    int child = run.wait_number("child");
    Watched watched(child);
    REQUIRE(watched.is_watched());
    run.process->stop(SIGTERM);
    run.process->kill();
    REQUIRE(run.exits());
    CHECK(to_string(*run.process->exit()) == "signal 9 (Killed)");
    REQUIRE(run.ends());
    CHECK_FALSE(is_alive(child));
}

TEST_CASE("what a stopped worker leaves behind gets the signal too and the time until the kill") {
    // sh dies of TERM at once; its child wants to say something first.
    Run run(
        shell("(trap 'echo 1 > $DIR/cleaned; exit 0' TERM; echo 1 > $DIR/up; while :; do sleep 0.01; done) & "
              "wait"));
    run.start();
    REQUIRE(run.wait_number("up") == 1);
    run.process->stop(SIGTERM);
    REQUIRE(run.ends());
    CHECK(to_string(*run.process->exit()) == "signal 15 (Terminated)");
    CHECK(number_in(run.folder / "cleaned") == 1);
}

TEST_CASE("nothing that a crashed worker started outlives it, not even in a session of its own") {
    Run run(
        shell("setsid sh -c 'echo $$ > $DIR/far; exec sleep 1000' & "
              "sleep 1000 & echo $! > $DIR/near; "
              "while [ ! -s $DIR/far ]; do sleep 0.01; done; kill -KILL $$"));
    run.start();
    REQUIRE(run.exits());
    int far = run.wait_number("far"), near = run.wait_number("near");
    REQUIRE(run.ends());
    CHECK_FALSE(is_alive(far));
    CHECK_FALSE(is_alive(near));
}

TEST_CASE("a worker that turns itself into a daemon counts as ended and its daemon is killed") {
    Run run({"/usr/bin/python3", "-c",
             "import os, time\n"
             "if os.fork(): os.waitpid(-1, 0); os._exit(0)\n"
             "os.setsid()\n"
             "if os.fork(): os._exit(0)\n"
             "with open(os.environ['DIR'] + '/daemon', 'w') as f: print(os.getpid(), file=f)\n"
             "time.sleep(1000)\n"});
    run.start();
    REQUIRE(run.exits());
    REQUIRE(run.ends());
    if (int daemon = number_in(run.folder / "daemon")) CHECK_FALSE(is_alive(daemon));
}

TEST_CASE("a process that the worker left behind with its pipes open holds nothing up") {
    CapturedLog log;
    Run run(shell("trap '' HUP; sleep 1000 & echo last words; exit 0"));
    run.start();
    REQUIRE(run.ends());
    CHECK(log.has("ocr/0: last words\n"));
}

TEST_CASE("a hundred megabytes of output neither block a worker nor stay in memory") {
    CapturedLog log;  // the LineWriter drops what it has no room for
    Run run(
        shell("/usr/bin/head -c 100000000 /dev/zero | /usr/bin/tr '\\0' 'x' | /usr/bin/fold -w 20000; echo; "
              "echo done"));
    uint64_t before = own_memory();
    run.start();
    REQUIRE(run.ends());
    uint64_t after = own_memory();
    CHECK(to_string(*run.process->exit()) == "exit code 0");
    CHECK(run.process->last_lines().text(1) == "\"done\"");
    CHECK(after < before + 60'000'000);
}

TEST_CASE("a line without end is cut at a bounded length") {
    CapturedLog log;
    Run run(shell("/usr/bin/head -c 3000000 /dev/zero | /usr/bin/tr '\\0' 'x'; echo; echo done"));
    run.start();
    REQUIRE(run.ends());
    CHECK(log.text().size() < 20'000);
    CHECK(log.has("... [2995904 bytes cut]\n"));
    CHECK(log.has("ocr/0: done\n"));
}

TEST_CASE("a worker whose guard is killed dies with it") {
    Run run(shell("echo $$ > $DIR/pid; exec sleep 1000"));
    run.start();
    int pid = run.wait_number("pid");
    Watched watched(pid);
    ::kill(run.process->guard_pid(), SIGKILL);
    REQUIRE(run.ends());
    CHECK(run.process->is_guard_lost());
    CHECK(watched.ends());
}

TEST_CASE("the socket of a worker is gone when the worker is") {
    Run run({"/usr/bin/python3", "-c",
             "import os, socket, time\n"
             "s = socket.socket(socket.AF_UNIX); s.bind(os.environ['DIR'] + '/sock'); s.listen()\n"
             "print('up', flush=True)\n"
             "os.kill(os.getpid(), 9)\n"});
    run.task.socket = run.folder / "sock";
    run.start();
    REQUIRE(run.ends());
    CHECK(run.process->last_lines().text() == "\"up\"");
    CHECK_FALSE(std::filesystem::exists(run.folder / "sock"));
}

TEST_CASE("the memory of a worker is that of all its processes") {
    Run run({"/usr/bin/python3", "-c",
             "import os, time\n"
             "child = os.fork()\n"
             "block = bytearray(50_000_000)\n"
             "block[::4096] = b'x' * len(block[::4096])\n"
             "if child == 0:\n"
             "    with open(os.environ['DIR'] + '/up', 'w') as f: print(1, file=f)\n"
             "time.sleep(1000)\n"});
    run.start();
    REQUIRE(run.wait_number("up") == 1);
    // The child says when its block is there; the parent's may still grow.
    CHECK(look_until(run.loop, [&] { return memory_below(run.process->guard_pid()) > 100'000'000; }));
}
