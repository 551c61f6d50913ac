#include "config/exec.h"

#include <doctest/doctest.h>

namespace penstock {

namespace {

ExecOptions serving(std::vector<std::string> command = {"serve", "--uds", "${SOCKET}"}) {
    ExecOptions options;
    options.command = std::move(command);
    return options;
}

Config good(const ExecOptions& options) {
    auto config = exec_config(options, Surroundings{2, {}});
    REQUIRE_MESSAGE(config, (config ? "" : config.error().message));
    return *config;
}

std::string error_of(const ExecOptions& options) {
    auto config = exec_config(options, Surroundings{2, {}});
    return config ? "" : config.error().message;
}

}  // namespace

TEST_CASE("a command alone is a worker that takes one request at a time, on 127.0.0.1:8000") {
    Config config = good(serving());
    REQUIRE(config.listen.size() == 1);
    CHECK(config.listen[0].address.text == "127.0.0.1:8000");
    CHECK(config.admin->text == "127.0.0.1:9901");
    CHECK(config.threads == 2);
    REQUIRE(config.upstreams.size() == 1);
    const Upstream& app = config.upstreams[0];
    CHECK(app.name == "app");
    CHECK(app.concurrency == 1);
    CHECK(app.on_abandon == OnAbandon::drain);
    CHECK(app.queue == Queue{});
    CHECK(app.timeouts == Timeouts{});
    CHECK(app.workers->count == 1);
    CHECK(app.workers->command == std::vector<std::string>{"serve", "--uds", "${SOCKET}"});
    CHECK(app.workers->address == WorkerAddress::socket);
    REQUIRE(config.routes.size() == 1);
    CHECK(config.routes[0].upstream == "app");
}

TEST_CASE("the flags say what a file would") {
    ExecOptions options = serving({"serve", "${PORT}"});
    options.listen = "unix:/run/p.sock";
    options.admin = "off";
    options.concurrency = 4;
    options.queue = 5;
    options.timeout = "600s";
    options.count = 3;
    options.gpus = "0, 2,GPU-1";
    Config config = good(options);
    CHECK(config.listen[0].address.path == "/run/p.sock");
    CHECK(!config.admin);
    const Upstream& app = config.upstreams[0];
    CHECK(app.concurrency == 4);
    CHECK(app.queue.size == 5);
    CHECK(app.workers->count == 3);
    CHECK(app.workers->gpus == std::vector<std::string>{"0", "2", "GPU-1"});
    CHECK(app.workers->address == WorkerAddress::port);
    // Nothing else ends a request before the timeout that was asked for.
    CHECK(app.timeouts.request == 600s);
    CHECK(app.queue.timeout == 600s);
    CHECK(app.timeouts.first_byte == 600s);
    CHECK(app.timeouts.idle == 600s);
}

TEST_CASE("a single argument with spaces is a line for the shell") {
    Config config = good(serving({"cd /srv && exec serve ${SOCKET}"}));
    CHECK(config.upstreams[0].workers->shell);
    CHECK(config.upstreams[0].workers->command ==
          std::vector<std::string>{"/bin/sh", "-c", "cd /srv && exec serve ${SOCKET}"});
}

TEST_CASE("without a limit of slots, abandoned work is told by closing") {
    ExecOptions options = serving();
    options.concurrency = 0;
    CHECK(good(options).upstreams[0].on_abandon == OnAbandon::close);
}

TEST_CASE("all wrong flags are reported, each under its own name") {
    ExecOptions options = serving();
    options.listen = "8000";
    options.admin = "localhost:1";
    options.count = 0;
    options.gpus = "0,x";
    options.timeout = "5";
    CHECK(error_of(options) ==
          "--listen: \"8000\" is only a port; write 127.0.0.1:8000, or 0.0.0.0:8000 for every interface\n"
          "--admin: \"localhost:1\" is a name; write an IP address: 127.0.0.1:1\n"
          "--count: 0 would serve nothing; give 1 or more\n"
          "--gpus: \"x\" is not a GPU; write indices or UUIDs, as in 0,1\n"
          "--timeout: \"5\" has no unit; write 5s for seconds, or 5ms");
}

TEST_CASE("a command that could not be reached is refused") {
    CHECK(error_of(serving({})) ==
          "COMMAND: is missing; write the program to run: [uvicorn, \"app:app\", --uds, \"${SOCKET}\"]");
    CHECK(error_of(serving({"serve"})) ==
          "COMMAND: has neither ${SOCKET} nor ${PORT}, so the worker would not know where to listen; add "
          "such as "
          "--uds ${SOCKET} or --port ${PORT}, or put one into environment");
    ExecOptions clash = serving();
    clash.listen = "127.0.0.1:9901";
    CHECK(error_of(clash) == "--listen: 127.0.0.1:9901 is taken by listen[0] already; give each its own");
    ExecOptions many = serving();
    many.count = 2000;
    CHECK(error_of(many) == "--count: 2000 backends; at most 1024");
}

}  // namespace penstock
