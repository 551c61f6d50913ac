// What a pick costs: each policy over 4, 64 and 1,024 backends, by itself; and then a whole warm request of a
// park (admit, run, finish), which looks at the state of every backend before it picks.
#include <benchmark/benchmark.h>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "policy/admission.h"
#include "policy/balancer.h"

namespace penstock {
namespace {

std::vector<Candidate> fleet(int64_t count, bool weighted) {
    std::vector<Candidate> all;
    for (int64_t i = 0; i < count; ++i)
        all.push_back({.weight = weighted ? 1 + static_cast<uint32_t>(i % 3) : 1,
                       .in_flight = static_cast<uint32_t>(i % 4),
                       .eligible = true,
                       .identity = hash(std::to_string(i))});
    return all;
}

struct Dice {
    uint64_t state = 1;
    uint64_t next() { return state = state * 6364136223846793005 + 1442695040888963407; }
};

void pick_by(benchmark::State& state, Balancing policy) {
    auto all = fleet(state.range(0), true);
    Dice dice;
    for (auto _ : state) {
        const int taken = pick(policy, all, dice.next());
        benchmark::DoNotOptimize(taken);
    }
}
BENCHMARK_CAPTURE(pick_by, least_busy, Balancing::least_busy)->Arg(4)->Arg(64)->Arg(1024);
BENCHMARK_CAPTURE(pick_by, round_robin, Balancing::round_robin)->Arg(4)->Arg(64)->Arg(1024);
BENCHMARK_CAPTURE(pick_by, random_two, Balancing::random_two)->Arg(4)->Arg(64)->Arg(1024);
BENCHMARK_CAPTURE(pick_by, first, Balancing::first)->Arg(4)->Arg(64)->Arg(1024);

void pick_by_hash(benchmark::State& state) {
    const auto all = fleet(state.range(0), true);
    Dice dice;
    for (auto _ : state) {
        const int taken = by_hash(all, dice.next(), {150, 4096, 2048});
        benchmark::DoNotOptimize(taken);
    }
}
BENCHMARK(pick_by_hash)->Arg(4)->Arg(64)->Arg(1024);

void whole_request(benchmark::State& state, Balancing policy, Affinity affinity) {
    Park park(1, 1);
    UpstreamRules rules;
    rules.balancing = policy;
    rules.affinity = affinity;
    rules.balance_factor = 150;
    const UpstreamId upstream = park.add_upstream(rules);
    const Time now = Time(1h);
    Wakes wakes;
    for (int64_t i = 0; i < state.range(0); ++i) {
        const BackendId id = park.add_backend(
            upstream,
            {.slots = 16, .weight = 1 + static_cast<uint32_t>(i % 3), .identity = hash(std::to_string(i))},
            now, wakes);
        park.backend_event(id, {.event = BackendNews::Event::ready, .generation = 1}, now, wakes);
    }
    Actions actions;
    park.tick(now, wakes, actions);
    Dice dice;
    for (auto _ : state) {
        Wakes w;
        Ticket ticket;
        ticket.upstream = upstream;
        ticket.key = affinity == Affinity::none ? 0 : dice.next();
        ticket.set_wake({0, {1, 1}});
        Admission a = park.admit(ticket, now, w);
        park.run(a.lease, now);
        park.finish(a.lease, {Outcome::answered, Keep::closed}, now, w);
    }
}
BENCHMARK_CAPTURE(whole_request, least_busy, Balancing::least_busy, Affinity::none)
    ->Arg(4)
    ->Arg(64)
    ->Arg(1024);
BENCHMARK_CAPTURE(whole_request, round_robin, Balancing::round_robin, Affinity::none)
    ->Arg(4)
    ->Arg(64)
    ->Arg(1024);
BENCHMARK_CAPTURE(whole_request, random_two, Balancing::random_two, Affinity::none)
    ->Arg(4)
    ->Arg(64)
    ->Arg(1024);
BENCHMARK_CAPTURE(whole_request, first, Balancing::first, Affinity::none)->Arg(4)->Arg(64)->Arg(1024);
BENCHMARK_CAPTURE(whole_request, hash, Balancing::least_busy, Affinity::by_hash)->Arg(4)->Arg(64)->Arg(1024);

}  // namespace
}  // namespace penstock
