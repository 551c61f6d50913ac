// What the rate limiter costs: a hold of its lock for a request under one limit or three, with few keys and
// with a million of them (then nothing is in a cache), from 1 to 4 threads; a refusal; a unit in flight; and
// new keys that find the table full of live ones.
#include <array>
#include <benchmark/benchmark.h>
#include <memory>
#include <string>
#include <vector>

#include "policy/rate_limiter.h"

namespace penstock {
namespace {

constexpr HashKey128 secret{0x0706050403020100, 0x0f0e0d0c0b0a0908};
std::unique_ptr<RateLimiter> limiter;
std::vector<Hash128> keys;

LimitRules rate(uint64_t count, Duration per, uint64_t burst, uint32_t most_keys) {
    LimitRules rules;
    rules.rate = {count, per};
    rules.burst = burst;
    rules.keys = most_keys;
    return rules;
}

void open_limiter(std::vector<LimitRules> rules, size_t key_count) {
    limiter = std::make_unique<RateLimiter>(rules, secret);
    keys.clear();
    for (size_t i = 0; i < key_count; ++i) keys.push_back(hash128("client " + std::to_string(i), secret));
}

// So many requests under `limits` limits, of keys in no order that a cache could know.
bool ask(uint64_t number, size_t limits, Time now) {
    std::array<LimitAsk, 3> asks;
    for (size_t i = 0; i < limits; ++i) {
        asks[i].limit = static_cast<uint16_t>(i);
        asks[i].key = keys[(number * 0x9E3779B97F4A7C15u >> 20) % keys.size()];
    }
    KeyUnits units;
    return limiter->admit({asks.data(), limits}, now, never, units).passes;
}

// Each key has come before and owes something for the whole run: found, looked at, counted.
void passes(benchmark::State& state) {
    const auto key_count = static_cast<size_t>(state.range(0));
    const auto limits = static_cast<size_t>(state.range(1));
    if (state.thread_index() == 0) {
        const auto rules = rate(1, 1h, 1'000'000'000, static_cast<uint32_t>(key_count));
        open_limiter(std::vector<LimitRules>(limits, rules), key_count);
        for (const Hash128& key : keys) {
            std::array<LimitAsk, 3> asks;
            for (size_t i = 0; i < limits; ++i) asks[i].limit = static_cast<uint16_t>(i), asks[i].key = key;
            KeyUnits units;
            limiter->admit({asks.data(), limits}, Time(1h), never, units);
        }
    }
    uint64_t number = static_cast<uint64_t>(state.thread_index()) << 32;
    for (auto _ : state) benchmark::DoNotOptimize(ask(++number, limits, Time(1h)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(passes)
    ->Args({100, 1})
    ->Args({1'000'000, 1})
    ->Args({1'000'000, 3})
    ->ThreadRange(1, 4)
    ->UseRealTime();

// All keys have used up their burst.
void refuses(benchmark::State& state) {
    const auto key_count = static_cast<size_t>(state.range(0));
    open_limiter({rate(1, 1h, 1, static_cast<uint32_t>(key_count))}, key_count);
    for (const Hash128& key : keys) {
        LimitAsk one;
        one.key = key;
        KeyUnits units;
        limiter->admit({&one, 1}, Time(1h), never, units);
    }
    uint64_t number = 0;
    for (auto _ : state) benchmark::DoNotOptimize(ask(++number, 1, Time(1h)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(refuses)->Arg(100)->Arg(1'000'000);

// A million clients, each a few times a minute: keys are forgotten as they are free, and come again as new
// ones.
void comes_and_goes(benchmark::State& state) {
    open_limiter({rate(10, 1s, 20, 1'000'000)}, 1'000'000);
    uint64_t number = 0;
    for (auto _ : state) {
        ++number;
        benchmark::DoNotOptimize(ask(number, 1, Time(1h) + number * 20us));  // 50,000 a second
    }
    state.counters["keys"] = limiter->tally(0).keys;
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(comes_and_goes);

// Every request is a key never seen, and the table is full of keys that owe something: each makes one go.
void floods(benchmark::State& state) {
    constexpr uint32_t most = 1'000'000;
    open_limiter({rate(1, 1h, 1, most)}, 1);
    uint64_t number = 0;
    auto come = [&number] {
        LimitAsk one;
        one.key = {++number * 0x9E3779B97F4A7C15u, number};
        KeyUnits units;
        return limiter->admit({&one, 1}, Time(1h) + number * 1us, never, units).passes;
    };
    while (number < most) come();
    for (auto _ : state) benchmark::DoNotOptimize(come());
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(floods);

// A unit taken and given back, for one of a million keys.
void in_flight(benchmark::State& state) {
    if (state.thread_index() == 0) {
        LimitRules rules;
        rules.concurrency = 4;
        open_limiter({rules}, 1'000'000);
    }
    uint64_t number = static_cast<uint64_t>(state.thread_index()) << 32;
    for (auto _ : state) benchmark::DoNotOptimize(ask(++number, 1, Time(1h)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(in_flight)->ThreadRange(1, 4)->UseRealTime();

// The key itself: an address, a bearer token.
void hashes(benchmark::State& state) {
    const std::string text(static_cast<size_t>(state.range(0)), 'x');
    for (auto _ : state) benchmark::DoNotOptimize(hash128(text, secret));
}
BENCHMARK(hashes)->Arg(16)->Arg(200);

}  // namespace
}  // namespace penstock
