#include "workers/command.h"

#include <algorithm>
#include <doctest/doctest.h>

using namespace penstock;

namespace {

const Placeholders values{.socket = "/run/p/ocr-1-4", .port = 4711, .index = 1, .gpu = "GPU-abc"};

bool has(const std::vector<std::string>& environment, const std::string& entry) {
    return std::count(environment.begin(), environment.end(), entry) == 1;
}
bool names(const std::vector<std::string>& environment, const std::string& name) {
    return std::any_of(environment.begin(), environment.end(),
                       [&](const std::string& entry) { return entry.starts_with(name + "="); });
}

}  // namespace

TEST_CASE("placeholders are filled in wherever they stand") {
    CHECK(fill_in("--uds=${SOCKET}", values) == "--uds=/run/p/ocr-1-4");
    CHECK(fill_in("${INDEX}:${PORT}/${GPU}", values) == "1:4711/GPU-abc");
    CHECK(fill_in("plain", values) == "plain");
    CHECK(fill_in("", values) == "");
}

TEST_CASE("what is no placeholder of ours is left to the shell") {
    CHECK(fill_in("${HOME} $PORT ${PORT:-1} ${", values) == "${HOME} $PORT ${PORT:-1} ${");
    CHECK(fill_in("${${PORT}", values) == "${4711");
    CHECK(fill_in("a}b${INDEX}", values) == "a}b1");
}

TEST_CASE("workers take turns on the GPUs") {
    Workers workers;
    CHECK(gpu_of(workers, 3) == "");
    workers.gpus = {"0", "GPU-b"};
    CHECK(gpu_of(workers, 0) == "0");
    CHECK(gpu_of(workers, 1) == "GPU-b");
    CHECK(gpu_of(workers, 2) == "0");
}

TEST_CASE("the environment is ours without systemd's and with the configuration's on top") {
    Workers workers;
    workers.environment = {{"MODEL", "ppocr"}, {"PATH", "/opt/bin"}, {"WHERE", "unix:${SOCKET}"}};
    auto environment =
        environment_of(workers, values,
                       {"PATH=/bin", "HOME=/root", "NOTIFY_SOCKET=/run/n", "LISTEN_FDS=1", "LISTEN_PID=1",
                        "LISTEN_FDNAMES=a", "WATCHDOG_USEC=1", "WATCHDOG_PID=1"});
    CHECK(has(environment, "PATH=/opt/bin"));
    CHECK_FALSE(has(environment, "PATH=/bin"));
    CHECK(has(environment, "HOME=/root"));
    CHECK(has(environment, "MODEL=ppocr"));
    CHECK(has(environment, "WHERE=unix:/run/p/ocr-1-4"));
    for (const char* name :
         {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
        CHECK_FALSE(names(environment, name));
    }
}

TEST_CASE("a worker with a GPU sees that GPU only, numbered as nvidia-smi does") {
    Workers workers;
    auto environment = environment_of(workers, values, {"CUDA_VISIBLE_DEVICES=0,1,2"});
    CHECK(has(environment, "CUDA_VISIBLE_DEVICES=GPU-abc"));
    CHECK_FALSE(has(environment, "CUDA_VISIBLE_DEVICES=0,1,2"));
    CHECK(has(environment, "CUDA_DEVICE_ORDER=PCI_BUS_ID"));

    workers.environment = {{"CUDA_DEVICE_ORDER", "FASTEST_FIRST"}};
    CHECK(has(environment_of(workers, values, {}), "CUDA_DEVICE_ORDER=FASTEST_FIRST"));
}

TEST_CASE("a worker without a GPU of its own inherits what penstock may see") {
    auto environment = environment_of(Workers{}, Placeholders{}, {"CUDA_VISIBLE_DEVICES=2"});
    CHECK(has(environment, "CUDA_VISIBLE_DEVICES=2"));
    CHECK_FALSE(names(environment, "CUDA_DEVICE_ORDER"));
}

TEST_CASE("Python workers write their output at once unless somebody says otherwise") {
    CHECK(has(environment_of(Workers{}, values, {}), "PYTHONUNBUFFERED=1"));
    CHECK(has(environment_of(Workers{}, values, {"PYTHONUNBUFFERED="}), "PYTHONUNBUFFERED="));
}
