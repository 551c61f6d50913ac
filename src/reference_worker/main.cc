// penstock-reference-worker: a small KServe v2 inference server, for demos and tests, and as an example of a
// worker that penstock can spawn:
//
//     penstock exec --concurrency 4 -- penstock-reference-worker --listen 'unix:${SOCKET}' --threads 4
#include <csignal>
#include <cstdio>
#include <event2/event.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "reference_worker/front.h"

namespace penstock::reference {
namespace {

int complain(const std::string& what) {
    fmt::print(stderr, "penstock-reference-worker: {}\n", what);
    return 1;
}

CLI::Option* add_duration(CLI::App& app, const std::string& name, Duration& to, const std::string& help) {
    auto take = [&to, name](const std::string& text) {
        auto parsed = parse_duration(text);
        if (!parsed) throw CLI::ValidationError(name, parsed.error().message);
        to = *parsed;
    };
    return app.add_option_function<std::string>(name, take, help)->type_name("DURATION");
}

int serve(const Address& at, const Options& options, uint64_t seed, unsigned threads, bool serial) {
    std::signal(SIGPIPE, SIG_IGN);  // a client may leave before its answer
    const Convnet network(seed);
    event_base* base = event_base_new();
    int status = 0;
    {
        Crew crew(network, threads, serial);
        Front front(base, options, crew);
        auto stop = [](evutil_socket_t, short, void* to) { static_cast<Front*>(to)->stop(); };
        event* term = evsignal_new(base, SIGTERM, stop, &front);
        event* interrupt = evsignal_new(base, SIGINT, stop, &front);
        event_add(term, nullptr);
        event_add(interrupt, nullptr);
        auto listening = front.listen(at);
        if (listening) {
            fmt::print(stderr, "{} listening on {}, {}\n", options.model, *listening, Convnet::platform());
            event_base_dispatch(base);
        } else {
            status = complain(listening.error().message);
        }
        event_free(term);
        event_free(interrupt);
    }
    event_base_free(base);
    return status;
}

int run(int argc, char** argv) {
    CLI::App app("A small KServe v2 inference server");
    std::string listen = "127.0.0.1:8001";
    Options options;
    uint64_t seed = 1;
    unsigned threads = 1;
    bool serial = false;
    app.add_option("--listen", listen, "IP:PORT (0: any) or unix:/path")->capture_default_str();
    app.add_option("--model", options.model, "the name of the model")->capture_default_str();
    app.add_option("--seed", seed, "of the model's weights")->capture_default_str();
    app.add_option("--threads", threads, "inferences at once")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    app.add_flag("--serial", serial, "one device: those that are inside at once take turns");
    add_duration(app, "--delay", options.delay, "how much longer each inference takes, as in 20ms");
    add_duration(app, "--ready-after", options.ready_after, "how long loading the model takes");
    app.add_flag("--faults", options.faults, "POST /faults makes it fail, for tests");
    CLI11_PARSE(app, argc, argv);
    auto at = parse_address(listen);
    if (!at) return complain("--listen: " + at.error().message);
    return serve(*at, options, seed, threads, serial);
}

}  // namespace
}  // namespace penstock::reference

int main(int argc, char** argv) {
    try {
        return penstock::reference::run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "penstock-reference-worker: %s\n", error.what());
        return 1;
    }
}
