// What a worker is started with: its command, environment and address, placeholders filled in. Pure.
//
// The environment is penstock's own, without what systemd gave to penstock alone (a worker must not answer
// for it), with CUDA_VISIBLE_DEVICES, and with what the configuration says on top. Python programs also get
// PYTHONUNBUFFERED, or their prints would reach the log 8 KiB late.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace penstock {

// What ${SOCKET} ${PORT} ${INDEX} ${GPU} stand for.
struct Placeholders {
    std::string socket;  // a path
    uint16_t port = 0;
    uint32_t index = 0;
    std::string gpu;
};

std::string fill_in(std::string_view text, const Placeholders& values);

std::string gpu_of(const Workers& workers, uint32_t index);  // empty: none was named

std::vector<std::string> command_of(const Workers& workers, const Placeholders& values);

// `own` is penstock's environment, as NAME=value each.
std::vector<std::string> environment_of(const Workers& workers, const Placeholders& values,
                                        const std::vector<std::string>& own);

std::vector<std::string> own_environment();

}  // namespace penstock
