// Which backend takes the next request: one small function a policy, over a table that the caller keeps and
// brings up to date before each call. The park uses it under its lock; loops use it for upstreams without
// limits, over tables of their own.
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

enum class Balancing : uint8_t { least_busy, round_robin, random_two, first };

struct Candidate {
    uint32_t weight = 1;  // 0 counts as 1
    uint32_t in_flight = 0;
    bool eligible = false;
    bool near = false;  // has an idle connection here: wins among equals
    int64_t turn = 0;   // the balancer's own, kept between calls: smooth weighted round robin
};

constexpr int no_candidate = -1;

// The index of the one to take, or no_candidate if none is eligible. `random` is fresh at each call.
int pick(Balancing, std::span<Candidate>, uint64_t random);

// Fewest in flight for its weight; then the near ones; then by smooth weighted turns.
int least_busy(std::span<Candidate>);
int round_robin(std::span<Candidate>);
// The less busy of two drawn at random.
int random_two(std::span<Candidate>, uint64_t random);
int first_eligible(std::span<const Candidate>);

}  // namespace penstock
