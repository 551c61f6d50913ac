// Seeded simulation of exchanges, admission and worker crashes. README.md says what it plays and what must be
// true.
//
//     sim                    until 300,000 requests are served, from seed 1 on
//     sim --requests 1000000
//     sim --seed 17          one seed; with --tell, step by step
//     sim --from 5000        other seeds
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <CLI/CLI.hpp>

#include "world.h"

extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace penstock::sim {
namespace {

uint64_t current_seed = 0;
const World* current_world = nullptr;

// An assertion or a sanitizer ends the program: say which seed it was.
void say_seed() {
    std::fflush(stdout);
    std::fprintf(stderr, "sim: seed %" PRIu64 ", step %" PRIu64 "\nagain: sim --seed %" PRIu64 "\n",
                 current_seed, current_world ? current_world->steps() : 0, current_seed);
}

struct Sum {
    Tally tally;
    uint64_t seeds = 0, requests = 0, served = 0, steps = 0;
};

uint64_t play(uint64_t seed, bool tells, Sum& sum) {
    current_seed = seed;
    World world(seed, tells);
    current_world = &world;
    world.run();
    current_world = nullptr;
    sum.tally.add(world.tally());
    ++sum.seeds;
    sum.requests += world.requests();
    sum.served += world.served();
    sum.steps += world.steps();
    return world.digest();
}

// A simulation that does not meet these any more is blind.
constexpr std::string_view expected[] = {
    "answered",
    "answered: 101",
    "left",
    "sent again",
    "processes died",
    "workers stopped",
    "restarts for stuck work",
    "drained seeds",
    "ejected: consecutive_5xx",
    "ejected: consecutive_gateway_errors",
    "ejected: consecutive_local_errors",
    "ejected: success_rate",
    "ejected: probing_request",
    "not ejected",
    "back after a probing request",
    "restarts of ejected workers",
    "cookies set",
    "at home",
    "away from home",
    "homes waited for",
    "homes that are not there",
    "backends added",
    "backends forgotten",
    "abandoned: over",
    "abandoned: ended by an exit",
    "abandoned: given up",
};

int report(const Sum& sum, bool is_long) {
    for (const auto& [what, n] : sum.tally.counts()) std::printf("%10" PRIu64 "  %s\n", n, what.c_str());
    std::printf("%" PRIu64 " requests, %" PRIu64 " of them served, in %" PRIu64 " seeds, %" PRIu64
                " steps: all is well; %.1f s of CPU\n",
                sum.requests, sum.served, sum.seeds, sum.steps,
                static_cast<double>(std::clock()) / CLOCKS_PER_SEC);
    for (std::string_view what : expected)
        if (is_long && sum.tally.of(what) == 0) {
            std::fprintf(stderr, "sim: never happened: %.*s\n", static_cast<int>(what.size()), what.data());
            return 1;
        }
    return 0;
}

}  // namespace
}  // namespace penstock::sim

int main(int argc, char** argv) {
    using namespace penstock::sim;
    CLI::App app("Plays penstock against simulated clients and workers");
    uint64_t requests = 300'000, seed = 0, from = 1;
    bool tells = false;
    app.add_option("--requests", requests, "go on until so many have reached a worker");
    app.add_option("--seed", seed, "play this one only");
    app.add_option("--from", from, "the first seed");
    app.add_flag("--tell", tells, "print what happens");
    CLI11_PARSE(app, argc, argv);

    std::signal(SIGABRT, [](int) { say_seed(); });
    std::signal(SIGSEGV, [](int) {
        say_seed();
        std::_Exit(1);
    });
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(say_seed);

    Sum sum;
    if (seed != 0) {
        play(seed, tells, sum);
        return report(sum, false);
    }
    for (uint64_t next = from; sum.served < requests; ++next) {
        const uint64_t digest = play(next, tells, sum);
        Sum again;
        if (next < from + 3 && play(next, false, again) != digest) {
            std::fprintf(stderr, "sim: seed %" PRIu64 " has told two different stories\n", next);
            return 1;
        }
    }
    return report(sum, requests >= 100'000);
}
