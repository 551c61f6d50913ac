#include "workers/command.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <unistd.h>

namespace penstock {

namespace {

// From systemd to penstock: its notification socket, watchdog and listening sockets.
constexpr std::array<std::string_view, 6> not_for_workers = {
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
};

std::string_view name_of(std::string_view entry) { return entry.substr(0, entry.find('=')); }

void set(std::vector<std::string>& environment, std::string_view name, std::string_view value) {
    std::erase_if(environment, [name](const std::string& entry) { return name_of(entry) == name; });
    environment.push_back(fmt::format("{}={}", name, value));
}

void set_default(std::vector<std::string>& environment, std::string_view name, std::string_view value) {
    bool is_set = std::any_of(environment.begin(), environment.end(),
                              [name](const std::string& entry) { return name_of(entry) == name; });
    if (!is_set) environment.push_back(fmt::format("{}={}", name, value));
}

}  // namespace

std::string fill_in(std::string_view text, const Placeholders& values) {
    std::string filled;
    while (!text.empty()) {
        size_t at = text.find("${");
        filled.append(text.substr(0, at));
        if (at == text.npos) break;
        text.remove_prefix(at);
        size_t end = text.find('}');
        std::string_view placeholder = text.substr(0, end == text.npos ? end : end + 1);
        if (placeholder == "${SOCKET}") {
            filled += values.socket;
        } else if (placeholder == "${PORT}") {
            filled += fmt::to_string(values.port);
        } else if (placeholder == "${INDEX}") {
            filled += fmt::to_string(values.index);
        } else if (placeholder == "${GPU}") {
            filled += values.gpu;
        } else {  // the shell's, or nobody's
            placeholder = text.substr(0, 2);
            filled.append(placeholder);
        }
        text.remove_prefix(placeholder.size());
    }
    return filled;
}

std::string gpu_of(const Workers& workers, uint32_t index) {
    return workers.gpus.empty() ? std::string() : workers.gpus[index % workers.gpus.size()];
}

std::vector<std::string> command_of(const Workers& workers, const Placeholders& values) {
    std::vector<std::string> command;
    for (const std::string& word : workers.command) command.push_back(fill_in(word, values));
    return command;
}

std::vector<std::string> environment_of(const Workers& workers, const Placeholders& values,
                                        const std::vector<std::string>& own) {
    std::vector<std::string> environment;
    for (const std::string& entry : own) {
        bool kept = std::find(not_for_workers.begin(), not_for_workers.end(), name_of(entry)) ==
                    not_for_workers.end();
        if (kept) environment.push_back(entry);
    }
    if (!values.gpu.empty()) set(environment, "CUDA_VISIBLE_DEVICES", values.gpu);
    for (const auto& [name, value] : workers.environment) set(environment, name, fill_in(value, values));
    // Without it CUDA numbers GPUs by their speed, and index 1 is not the one that nvidia-smi calls 1.
    if (!values.gpu.empty()) set_default(environment, "CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    set_default(environment, "PYTHONUNBUFFERED", "1");
    return environment;
}

std::vector<std::string> own_environment() {
    std::vector<std::string> entries;
    for (char** entry = environ; entry && *entry; ++entry) entries.emplace_back(*entry);
    return entries;
}

}  // namespace penstock
