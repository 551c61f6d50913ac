// penstock: what the command line asks for.
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <unistd.h>
#include <variant>

#include "app/admin_client.h"
#include "app/cli.h"
#include "app/server.h"
#include "app/status.h"
#include "base/log.h"
#include "config/describe.h"
#include "config/load.h"
#include "config/memory_bound.h"
#include "config/unsupported.h"
#include "proxy/credentials.h"
#include "workers/guard.h"

namespace penstock {
namespace {

constexpr int failed = 1;

void say(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void complain(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

// Who started us may have closed one of the three. Its number would go to a socket, and the log into that.
void fill_standard_descriptors() {
    int fd = 0;
    while (fd >= 0 && fd <= 2) fd = ::open("/dev/null", O_RDWR);  // stays open in workers, as the three do
    if (fd > 2) ::close(fd);
}

// A configuration that this version can serve, or all that is wrong with it on stderr.
std::optional<Loaded> load_or_complain(const std::string& file) {
    Loaded loaded = load_file(file, surroundings_of_this_process());
    if (loaded.is_good()) loaded.errors = unsupported(loaded.config, loaded.places);
    if (loaded.is_good()) {  // what the files hold that it names
        TicketKeys keys;
        LoadedCredentials files = load_credentials(loaded.config, loaded.places, keys);
        loaded.errors = std::move(files.errors);
        for (Problem& warning : files.warnings) loaded.warnings.push_back(std::move(warning));
        sort_by_place(loaded.warnings);
    }
    for (const Problem& problem : loaded.errors) complain(problem.text() + '\n');
    if (!loaded.is_good()) return std::nullopt;
    return loaded;
}

int serve(const Config& config, log::Level level) {
    log::set_level(level);
    return run(config);
}

int execute(const SayCommand& command) {
    command.exit_code == 0 ? say(command.text) : complain(command.text);
    return command.exit_code;
}

int execute(const RunCommand& command) {
    auto loaded = load_or_complain(command.file);
    if (!loaded) return failed;
    for (const Problem& warning : loaded->warnings) complain(fmt::format("warning: {}\n", warning.text()));
    return serve(loaded->config, command.level);
}

int execute(const CheckCommand& command) {
    auto loaded = load_or_complain(command.file);
    if (!loaded) return failed;
    say(describe(loaded->config, memory_bound(loaded->config), loaded->warnings));
    return 0;
}

int execute(const ExecCommand& command) {
    auto config = exec_config(command.options, surroundings_of_this_process());
    if (!config) {
        complain(fmt::format("penstock exec: {}\n", config.error().message));
        return usage_error;
    }
    return serve(*config, command.level);
}

int execute(const StatusCommand& command) {
    auto address = parse_address(command.admin);
    if (!address) {
        complain(fmt::format("penstock status: --admin: {}\n", address.error().message));
        return usage_error;
    }
    auto reply = ask_admin(*address, "/status");
    if (!reply) {
        complain(fmt::format("penstock status: {}\n", reply.error().message));
        return failed;
    }
    std::string text = command.json ? reply->body : status_for_people(reply->body);
    if (reply->status != 200 || text.empty()) {
        complain(fmt::format("penstock status: {} does not answer as penstock would (status {})\n",
                             address->text, reply->status));
        return failed;
    }
    say(text);
    return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
    if (penstock::is_guard(argc, argv)) return penstock::guard_main();
    penstock::fill_standard_descriptors();
    try {
        auto command = penstock::parse_command_line({argv + 1, argv + argc});
        return std::visit([](const auto& chosen) { return penstock::execute(chosen); }, command);
    } catch (const std::exception& error) {  // nothing on the way throws, but memory can end
        std::fprintf(stderr, "penstock: %s\n", error.what());
        return 1;
    }
}
