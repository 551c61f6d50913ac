#include "app/cli.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/text.h"

namespace penstock {

namespace {

constexpr std::array<std::string_view, 5> names = {"run", "check", "exec", "status", "version"};

SayCommand wrong(std::string_view message) { return {fmt::format("penstock: {}\n", message), usage_error}; }

// Each sub-command fills its own part; which one was meant is known when parsing is over.
class Parser {
  public:
    Parser() {
        app_.name("penstock");
        app_.require_subcommand(1);
        app_.set_version_flag("--version", version_text());
        auto* run = app_.add_subcommand("run", "Serve in the foreground, as CONFIG says.");
        run->add_option("CONFIG", run_.file, "The configuration, a YAML file.")->required();
        level_flag(run, run_.level);
        auto* check = app_.add_subcommand(
            "check", "Read CONFIG and say what it means, how much memory it can take, and what is wrong.");
        check->add_option("CONFIG", check_.file, "The configuration, a YAML file.")->required();
        add_exec();
        auto* status = app_.add_subcommand("status", "What a running penstock is doing.");
        status->add_option("--admin", status_.admin, "Its admin address.")->capture_default_str();
        status->add_flag("--json", status_.json, "As JSON, not as a table.");
        app_.add_subcommand("version", "The version.");
    }

    Command parse(std::vector<std::string> words, std::vector<std::string> command) {
        exec_.options.command = std::move(command);
        std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
        try {
            app_.parse(words);
        } catch (const CLI::CallForHelp&) {
            return SayCommand{&chosen() == &app_ ? help() : chosen().help(app_.get_name()), 0};
        } catch (const CLI::CallForVersion&) {
            return SayCommand{version_text(), 0};
        } catch (const CLI::ParseError& error) {
            return wrong(fmt::format("{}\n{}", error.what(), hint()));
        }
        if (app_.got_subcommand("run")) return run_;
        if (app_.got_subcommand("check")) return check_;
        if (app_.got_subcommand("status")) return status_;
        if (app_.got_subcommand("exec")) {
            if (exec_.options.command.empty())
                return wrong(
                    "exec: no command; write it behind --, as in: penstock exec -- uvicorn app:app --uds "
                    "'${SOCKET}'");
            return exec_;
        }
        return SayCommand{version_text(), 0};
    }

    std::string help() { return app_.help(); }
    static std::string version_text() { return "penstock " PENSTOCK_VERSION "\n"; }

  private:
    void add_exec() {
        auto* exec =
            app_.add_subcommand("exec", "Run COMMAND as workers and stand before them, without a file.");
        ExecOptions& options = exec_.options;
        exec->footer(
            "COMMAND holds ${SOCKET} or ${PORT}, where it has to listen; ${INDEX} and ${GPU} are filled "
            "in too.\nPut it in single quotes, or the shell takes them for its own.");
        exec->add_option("--listen", options.listen, "Where clients connect.")->capture_default_str();
        exec->add_option("--admin", options.admin, "Metrics and status; or off.")->capture_default_str();
        exec->add_option("--concurrency", options.concurrency,
                         "Requests in flight per worker [1]; 0: no limit.");
        exec->add_option("--queue", options.queue, "Requests that may wait [100]; 0: refuse at once.");
        exec->add_option("--timeout", options.timeout,
                         "For a request in all, its wait included, as in 60s [none].");
        exec->add_option("--count", options.count, "Workers [1].");
        exec->add_option("--gpus", options.gpus, "Worker i gets the i-th of these GPUs, as in 0,1.");
        level_flag(exec, exec_.level);
    }

    static void level_flag(CLI::App* command, log::Level& level) {
        command
            ->add_option_function<std::string>(
                "--log-level",
                [&level](const std::string& name) {
                    auto found = log::parse_level(name);
                    if (!found) throw CLI::ValidationError("--log-level", name + " is none");
                    level = *found;
                },
                "debug, info, warning or error [info]")
            ->type_name("LEVEL");
    }

    CLI::App& chosen() {
        auto subcommands = app_.get_subcommands();
        return subcommands.empty() ? app_ : *subcommands.front();
    }
    std::string hint() {
        auto subcommands = app_.get_subcommands();
        return fmt::format("try: penstock {}--help",
                           subcommands.empty() ? "" : subcommands.front()->get_name() + " ");
    }

    CLI::App app_{
        "A gated pipe before GPU workers: spawns them, queues what they cannot take yet, refuses what "
        "will not fit."};
    RunCommand run_;
    CheckCommand check_;
    ExecCommand exec_;
    StatusCommand status_;
};

}  // namespace

Command parse_command_line(const std::vector<std::string>& words) {
    Parser parser;
    if (words.empty()) return SayCommand{parser.help(), usage_error};
    const std::string& name = words.front();
    if (!name.starts_with('-') && std::find(names.begin(), names.end(), name) == names.end()) {
        std::string_view near = nearest_name(name, names);
        return wrong(near.empty() ? fmt::format("there is no command \"{}\"; try: penstock --help", name)
                                  : fmt::format("there is no command \"{}\"; did you mean {}?", name, near));
    }
    // What comes behind -- is the worker's, whatever it looks like.
    std::vector<std::string> ours = words, command;
    if (name == "exec") {
        auto mark = std::find(ours.begin(), ours.end(), "--");
        if (mark != ours.end()) command.assign(mark + 1, ours.end());
        ours.erase(mark, ours.end());
    }
    return parser.parse(std::move(ours), std::move(command));
}

}  // namespace penstock
