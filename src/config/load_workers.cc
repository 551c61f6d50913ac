#include <array>
#include <csignal>

#include "config/load_parts.h"
#include "policy/ticket.h"

namespace penstock {

namespace {

struct Signal {
    std::string_view name;
    int number;
};

constexpr std::array<Signal, 7> signals{{{"TERM", SIGTERM},
                                         {"INT", SIGINT},
                                         {"QUIT", SIGQUIT},
                                         {"HUP", SIGHUP},
                                         {"USR1", SIGUSR1},
                                         {"USR2", SIGUSR2},
                                         {"KILL", SIGKILL}}};

void read_command(const Value& value, Workers& out) {
    out.command.clear();
    out.shell = !value.is_list();
    if (out.shell) {
        auto text = value.command_text();
        if (!text) return;
        if (trim(*text).empty()) return value.error("is empty; write the program to run and its arguments");
        out.command = {"/bin/sh", "-c", *text};
        return;
    }
    std::vector<Value> items = value.items("[program, argument]");
    for (const Value& item : items) {
        if (auto text = item.command_text()) out.command.push_back(std::move(*text));
    }
    if (items.empty() || (!out.command.empty() && out.command[0].empty())) {
        value.error("names no program; write [program, argument]");
    }
}

void read_environment(const std::string& name, const Value& value, Workers& out) {
    if (name.empty() || name.find('=') != std::string::npos) {
        return value.error("is not a name for an environment variable; write one without =");
    }
    if (auto text = value.command_text()) out.environment.emplace_back(name, std::move(*text));
}

void read_gpu(const Value& item, std::vector<std::string>& out) {
    auto gpu = item.text();
    if (!gpu) return;
    if (!is_gpu(*gpu)) {
        return item.error(fmt::format("\"{}\" is not a GPU; write its index, or its UUID (GPU-...)", *gpu));
    }
    out.push_back(std::move(*gpu));
}

void read_ready(Section& s, Ready& out) {
    bool tcp = false;
    s.flag("tcp", tcp);
    s.text("path", out.path);
    s.duration("interval", out.interval, 1ms);
    s.duration("timeout", out.timeout, 1ms);
    if (!out.path.empty() && !out.path.starts_with('/')) {
        s.error("path", fmt::format("\"{}\" does not begin with /; write /{}", out.path, out.path));
    }
    if (s.has("grpc")) s.text_or_empty("grpc", out.grpc.emplace());
    if (tcp && s.has("path")) s.error("tcp", "is given beside path; keep one of them");
    if (out.grpc && (tcp || s.has("path"))) s.error("grpc", "is given beside path or tcp; keep one of them");
    if (!tcp && s.has("tcp") && !s.has("path") && !out.grpc) {
        s.error("tcp", "is false, but there is no path either; write tcp: true or path: /health");
    }
}

void read_stop(Section& s, Stop& out) {
    std::string name;
    s.text("signal", name);
    s.duration("grace", out.grace);
    if (name.empty()) return;
    std::string_view bare = name;
    if (bare.starts_with("SIG")) bare.remove_prefix(3);
    for (const Signal& signal : signals) {
        if (signal.name != bare) continue;
        out.signal = signal.number;
        return;
    }
    s.error("signal",
            fmt::format("\"{}\" is not known; write TERM, INT, QUIT, HUP, USR1, USR2 or KILL", name));
}

void read_restart(Section& s, Restart& out) {
    s.duration("backoff", out.backoff, 1ms);
    s.duration("max_backoff", out.max_backoff, 1ms);
    s.number("give_up_after", out.give_up_after);
    s.number("after_ejections", out.after_ejections);
    s.duration("unhealthy_after", out.unhealthy_after);
    s.duration("hung_after", out.hung_after);
    if (out.max_backoff >= out.backoff) return;
    s.error(s.has("max_backoff") ? "max_backoff" : "backoff",
            fmt::format("backoff {} is longer than max_backoff {}; make it at most that",
                        format_duration(out.backoff), format_duration(out.max_backoff)));
}

void read_recycle(Section& s, Recycle& out) {
    s.number("requests", out.requests);
    s.size("rss", out.rss);
    s.percent("jitter", out.jitter);
}

}  // namespace

bool is_gpu(std::string_view text) {
    if (text.starts_with("GPU-") || text.starts_with("MIG-")) return text.size() <= 64;
    return text.size() <= 4 && parse_number(text);
}

void read_workers(Section& s, Workers& out) {
    if (auto command = s.value("command")) read_command(*command, out);
    s.text("directory", out.directory);
    s.named("environment",
            [&out](const std::string& name, const Value& value) { read_environment(name, value, out); });
    s.number("count", out.count, 1, max_backends);
    s.list("gpus", "[0, 1]", [&out](const Value& item) { read_gpu(item, out.gpus); });
    s.section("ready", [&out](Section& inner) { read_ready(inner, out.ready); });
    s.section("stop", [&out](Section& inner) { read_stop(inner, out.stop); });
    s.section("restart", [&out](Section& inner) { read_restart(inner, out.restart); });
    s.section("recycle", [&out](Section& inner) { read_recycle(inner, out.recycle); });
    out.address = out.uses("${PORT}") ? WorkerAddress::port : WorkerAddress::socket;
}

}  // namespace penstock
