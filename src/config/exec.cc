#include "config/exec.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "config/checks.h"
#include "config/load_parts.h"

namespace penstock {

namespace {

class ExecReader {
  public:
    explicit ExecReader(const ExecOptions& options) : options_(options) {}

    Result<Config> read(unsigned cores) {
        Config config = default_config(cores);
        address("--listen", options_.listen, config.listen.emplace_back().address);
        if (options_.admin == "off") {
            config.admin.reset();
        } else {
            address("--admin", options_.admin, *config.admin);
        }
        Upstream& upstream = config.upstreams.emplace_back();
        upstream.name = "app";
        workers(upstream.workers.emplace());
        upstream.concurrency = options_.concurrency.value_or(1);
        upstream.on_abandon = upstream.has_slots() ? OnAbandon::drain : OnAbandon::close;
        if (options_.queue) upstream.queue.size = *options_.queue;
        timeout(upstream);
        resolve(config, Places());
        if (problems_.empty()) {
            for (const Problem& problem : check(config, Places()).errors) problems_.push_back(said(problem));
        }
        if (problems_.empty()) return config;
        return failure(fmt::format("{}", fmt::join(problems_, "\n")));
    }

  private:
    void add(std::string_view flag, std::string_view message) {
        problems_.push_back(fmt::format("{}: {}", flag, message));
    }

    void address(std::string_view flag, const std::string& text, Address& out) {
        auto found = parse_address(text);
        if (!found) return add(flag, found.error().message);
        if (found->kind == Address::Kind::name) {
            return add(flag,
                       fmt::format("\"{}\" is a name; write an IP address: 127.0.0.1:{}", text, found->port));
        }
        out = *found;
    }

    void workers(Workers& out) {
        out.command = options_.command;
        bool one_line = out.command.size() == 1 && out.command[0].find(' ') != std::string::npos;
        if (one_line) {
            out.shell = true;
            out.command.insert(out.command.begin(), {"/bin/sh", "-c"});
        }
        out.address = out.uses("${PORT}") ? WorkerAddress::port : WorkerAddress::socket;
        out.count = options_.count.value_or(1);
        if (out.count == 0) add("--count", "0 would serve nothing; give 1 or more");
        std::string_view rest = options_.gpus;
        while (!rest.empty()) {
            size_t comma = rest.find(',');
            std::string_view gpu = trim(rest.substr(0, comma));
            if (!is_gpu(gpu)) {
                add("--gpus", fmt::format("\"{}\" is not a GPU; write indices or UUIDs, as in 0,1", gpu));
            }
            out.gpus.emplace_back(gpu);
            rest = comma == rest.npos ? std::string_view{} : rest.substr(comma + 1);
        }
    }

    // One number for the user: whatever else could end a request before it must wait as long.
    void timeout(Upstream& upstream) {
        if (options_.timeout.empty()) return;
        auto found = parse_duration(options_.timeout);
        if (!found) return add("--timeout", found.error().message);
        upstream.timeouts.request = *found;
        if (*found == Duration::zero()) return;
        upstream.queue.timeout = *found;
        upstream.timeouts.first_byte = std::max(upstream.timeouts.first_byte, *found);
        upstream.timeouts.idle = std::max(upstream.timeouts.idle, *found);
    }

    // The settings of exec have no paths in a file: name what the user typed.
    static std::string said(const Problem& problem) {
        if (problem.path == "upstreams.app.workers.command") return "COMMAND: " + problem.message;
        if (problem.path == "admin" || problem.path.starts_with("listen"))
            return "--listen: " + problem.message;
        if (problem.path == "upstreams.app") return "--count: " + problem.message;
        return fmt::format("{}: {}", problem.path, problem.message);
    }

    const ExecOptions& options_;
    std::vector<std::string> problems_;
};

}  // namespace

Result<Config> exec_config(const ExecOptions& options, const Surroundings& surroundings) {
    return ExecReader(options).read(surroundings.cores);
}

}  // namespace penstock
