#include "app/cli.h"

#include <doctest/doctest.h>
#include <string>
#include <vector>

using namespace penstock;

namespace {

template <class T>
T parsed(const std::vector<std::string>& words) {
    Command command = parse_command_line(words);
    T* chosen = std::get_if<T>(&command);
    REQUIRE(chosen != nullptr);
    return *chosen;
}

std::string complaint(const std::vector<std::string>& words) {
    auto said = parsed<SayCommand>(words);
    CHECK(said.exit_code == usage_error);
    return said.text;
}

}  // namespace

TEST_CASE("run and check take the configuration") {
    CHECK(parsed<RunCommand>({"run", "penstock.yaml"}).file == "penstock.yaml");
    CHECK(parsed<RunCommand>({"run", "a.yaml", "--log-level", "warning"}).level == log::Level::warn);
    CHECK(parsed<RunCommand>({"run", "--log-level=debug", "a.yaml"}).level == log::Level::debug);
    CHECK(parsed<CheckCommand>({"check", "a.yaml"}).file == "a.yaml");
}

TEST_CASE("what comes behind -- is the command of exec, whatever it looks like") {
    auto exec = parsed<ExecCommand>({"exec", "--concurrency", "1", "--queue", "5", "--", "uvicorn", "app:app",
                                     "--uds", "${SOCKET}", "--help", "--"});
    CHECK(exec.options.concurrency == 1);
    CHECK(exec.options.queue == 5);
    CHECK_FALSE(exec.options.count);
    CHECK(exec.options.command ==
          std::vector<std::string>{"uvicorn", "app:app", "--uds", "${SOCKET}", "--help", "--"});
}

TEST_CASE("exec takes all its flags") {
    auto options = parsed<ExecCommand>({"exec", "--listen", "0.0.0.0:80", "--admin", "off", "--timeout",
                                        "60s", "--count", "2", "--gpus", "0,1", "--", "x"})
                       .options;
    CHECK(options.listen == "0.0.0.0:80");
    CHECK(options.admin == "off");
    CHECK(options.timeout == "60s");
    CHECK(options.count == 2);
    CHECK(options.gpus == "0,1");
}

TEST_CASE("exec without a command says how it is written") {
    for (auto& words : {std::vector<std::string>{"exec"}, {"exec", "--count", "2"}, {"exec", "--"}})
        CHECK(complaint(words).find("penstock exec -- uvicorn") != std::string::npos);
    CHECK(complaint({"exec", "uvicorn", "app:app"}).find("uvicorn") != std::string::npos);
}

TEST_CASE("status asks the usual admin address unless told another") {
    CHECK(parsed<StatusCommand>({"status"}).admin == "127.0.0.1:9901");
    auto status = parsed<StatusCommand>({"status", "--admin", "unix:/run/a.sock", "--json"});
    CHECK(status.admin == "unix:/run/a.sock");
    CHECK(status.json);
}

TEST_CASE("the version comes by word and by flag") {
    for (auto& words : {std::vector<std::string>{"version"}, {"--version"}}) {
        auto said = parsed<SayCommand>(words);
        CHECK(said.exit_code == 0);
        CHECK(said.text == "penstock " PENSTOCK_VERSION "\n");
    }
}

TEST_CASE("help is help, of the whole and of each command") {
    auto all = parsed<SayCommand>({"--help"});
    CHECK(all.exit_code == 0);
    for (const char* name : {"run", "check", "exec", "status", "version"})
        CHECK(all.text.find(name) != std::string::npos);
    auto exec = parsed<SayCommand>({"exec", "--help"});
    CHECK(exec.exit_code == 0);
    CHECK(exec.text.find("--concurrency") != std::string::npos);
    CHECK(exec.text.find("${SOCKET}") != std::string::npos);
}

TEST_CASE("wrong words are named, with what would be right") {
    CHECK(complaint({}).find("run") != std::string::npos);
    CHECK(complaint({"rnu", "x"}) == "penstock: there is no command \"rnu\"; did you mean run?\n");
    CHECK(complaint({"zzzzzz"}).find("--help") != std::string::npos);
    CHECK(complaint({"run"}).find("CONFIG") != std::string::npos);
    CHECK(complaint({"run", "a", "second"}).find("second") != std::string::npos);
    CHECK(complaint({"run", "--verbose", "a"}).find("--verbose") != std::string::npos);
    CHECK(complaint({"run", "a", "--log-level", "loud"}).find("loud") != std::string::npos);
    CHECK(complaint({"exec", "--count", "two", "--", "x"}).find("--count") != std::string::npos);
    CHECK(complaint({"exec", "--count", "-1", "--", "x"}).find("--count") != std::string::npos);
}
