// Configuration files: whatever the bytes are, load() ends, and says either a Config that holds together or
// errors that say what would be right.
#include <cstdio>
#include <cstdlib>

#include "config/describe.h"
#include "config/load.h"
#include "config/unsupported.h"

namespace penstock::fuzz {
namespace {

void expect(bool holds, const char* what, const Loaded& loaded) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    for (const Problem& problem : loaded.errors) std::fprintf(stderr, "%s\n", problem.text().c_str());
    std::abort();
}

void expect_whole(const Loaded& loaded) {
    const Config& config = loaded.config;
    expect(!config.listen.empty() && !config.upstreams.empty() && !config.routes.empty(),
           "nothing is missing", loaded);
    expect(config.threads > 0, "there is a thread", loaded);
    for (const Upstream& upstream : config.upstreams) {
        expect(upstream.workers || !upstream.servers.empty(), "an upstream has backends", loaded);
        if (upstream.workers) expect(!upstream.workers->command.empty(), "a worker has a command", loaded);
    }
    for (const Route& route : config.routes) {
        bool by_name = route.upstream.find('{') != std::string::npos;
        expect(by_name || config.upstream(route.upstream), "a route leads somewhere", loaded);
    }
    expect(!describe(config, memory_bound(config), loaded.warnings).empty(), "it can be described", loaded);
    for (const Problem& problem : unsupported(config, loaded.places)) {
        expect(!problem.text().empty(), "it can be refused", loaded);
    }
}

}  // namespace
}  // namespace penstock::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace penstock;
    static const Surroundings surroundings{2, {{"HOME", "/home/me"}, {"COUNT", "3"}}};
    std::string_view text(reinterpret_cast<const char*>(data), size);
    Loaded loaded = load(text, "f.yaml", surroundings);
    for (const Problem& problem : loaded.errors) {
        bool says_right = problem.message.find(';') != std::string::npos;
        fuzz::expect(says_right && problem.text().starts_with("f.yaml:"), "an error says what is right",
                     loaded);
    }
    if (loaded.is_good()) fuzz::expect_whole(loaded);
    fuzz::expect(load(text, "f.yaml", surroundings).config == loaded.config, "twice is the same", loaded);
    return 0;
}
