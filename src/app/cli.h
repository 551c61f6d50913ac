// The command line: words in, one command out. It runs nothing and prints nothing: main.cc does.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/log.h"
#include "config/exec.h"

namespace penstock {

struct RunCommand {
    std::string file;
    log::Level level = log::Level::info;
};
struct CheckCommand {
    std::string file;
};
struct ExecCommand {
    ExecOptions options;
    log::Level level = log::Level::info;
};
struct StatusCommand {
    std::string admin = "127.0.0.1:9901";
    bool json = false;
};
// Help or version, that was asked for (exit code 0, to stdout), or what is wrong with the words (2, to
// stderr).
struct SayCommand {
    std::string text;
    int exit_code = 0;
};

using Command = std::variant<SayCommand, RunCommand, CheckCommand, ExecCommand, StatusCommand>;

constexpr int usage_error = 2;

Command parse_command_line(const std::vector<std::string>& words);  // without the program's name

}  // namespace penstock
