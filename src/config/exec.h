// `penstock exec`: the Config of the one-line sidecar, from its flags instead of a file. Everything that has
// no flag has its default.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/load.h"

namespace penstock {

struct ExecOptions {
    std::string listen = "127.0.0.1:8000";
    std::string admin = "127.0.0.1:9901";  // or off
    std::optional<uint32_t> concurrency;
    std::optional<uint32_t> queue;
    std::string timeout;  // of a request in all, its wait included; empty: none
    std::optional<uint32_t> count;
    std::string gpus;  // 0,1 or UUIDs
    // With ${PORT} or ${SOCKET}. A single argument with spaces is run by sh -c.
    std::vector<std::string> command;
};

// The error has one line for each thing that is wrong, as --flag: what is wrong; what would be right.
Result<Config> exec_config(const ExecOptions& options, const Surroundings& surroundings);

}  // namespace penstock
