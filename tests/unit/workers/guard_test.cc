#include "workers/guard.h"

#include <doctest/doctest.h>

using namespace penstock;

TEST_CASE("a guard reads the task that was written for it") {
    GuardTask task{.directory = "/srv/ocr",
                   .socket = "/run/a",
                   .command = {"sh", "", "a b\nc"},
                   .environment = {"A=1", "B="}};
    auto read = decode_guard_task(encode(task));
    REQUIRE(read);
    CHECK(read->directory == task.directory);
    CHECK(read->socket == task.socket);
    CHECK(read->command == task.command);
    CHECK(read->environment == task.environment);
}

TEST_CASE("a task without folder, socket or environment is a task") {
    auto read =
        decode_guard_task(encode({.directory = "", .socket = "", .command = {"true"}, .environment = {}}));
    REQUIRE(read);
    CHECK(read->command == std::vector<std::string>{"true"});
    CHECK(read->environment.empty());
}

TEST_CASE("a damaged task is refused") {
    std::string bytes = encode({.directory = "/", .socket = "", .command = {"a", "b"}, .environment = {}});
    for (size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(decode_guard_task(bytes.substr(0, size)));
    CHECK_FALSE(decode_guard_task(std::string("/\0\0x\0a\0", 7)));
    CHECK_FALSE(
        decode_guard_task(std::string("/\0\0"
                                      "0\0",
                                      5)));
}

TEST_CASE("only a guard's own arguments make a guard") {
    const char* guard[] = {"guard", "_guard", "ocr/0", nullptr};
    const char* run[] = {"penstock", "run", "_guard", nullptr};
    CHECK(is_guard(3, guard));
    CHECK_FALSE(is_guard(3, run));
    CHECK_FALSE(is_guard(2, guard));
    CHECK_FALSE(is_guard(0, nullptr));
}
