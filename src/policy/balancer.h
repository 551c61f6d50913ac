// Which backend takes the next request: one small function a policy, over a table that the caller keeps and
// brings up to date before each call. The park calls them under its lock. Pure: randomness is an argument.
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

enum class Balancing : uint8_t { least_busy, round_robin, random_two, first };

struct Candidate {
    uint32_t weight = 1;  // 0 counts as 1
    uint32_t in_flight = 0;
    bool eligible = false;
    bool near = false;      // has an idle connection here: wins among equals
    int64_t turn = 0;       // the balancer's own, kept between calls: smooth weighted round robin
    uint64_t identity = 0;  // a hash of its name, for by_hash: stays the same wherever it stands in the table
};

constexpr int no_candidate = -1;

// The index of the one to take, or no_candidate if none is eligible. `random` is fresh at each call.
int pick(Balancing, std::span<Candidate>, uint64_t random);

// Fewest in flight for its weight; then the near ones; then by smooth weighted turns.
int least_busy(std::span<Candidate>);
// nginx's smooth weighted round robin, to the sequence.
int round_robin(std::span<Candidate>);
// Two different ones are drawn by weight; the less busy for its weight, if there is a difference.
int random_two(std::span<Candidate>, uint64_t random);
int first_eligible(std::span<const Candidate>);

// Consistent hashing with bounded load: nobody takes more than `percent` of its fair share of what is in
// flight, this request included (and its fair share is never less than one). 0: no bound.
struct LoadBound {
    uint32_t percent = 0;
    uint64_t in_flight = 0;  // of all together
    uint64_t weight = 1;     // of all together

    bool allows(const Candidate&) const;
};
// The backend that `key` likes best. Each key likes each backend in an order of its own (rendezvous hashing):
// so keys follow the weights, and when one backend leaves or comes, no key moves but its own. Of the eligible
// ones within the bound the one liked best; if all are beyond it, of the eligible ones.
int by_hash(std::span<const Candidate>, uint64_t key, const LoadBound& = {});

}  // namespace penstock
