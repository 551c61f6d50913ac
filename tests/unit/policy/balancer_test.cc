#include "policy/balancer.h"

#include <array>
#include <doctest/doctest.h>
#include <string>
#include <vector>

namespace penstock {
namespace {

Candidate candidate(uint32_t in_flight, uint32_t weight = 1, bool near = false) {
    return {.weight = weight, .in_flight = in_flight, .eligible = true, .near = near};
}

TEST_CASE("random_two draws all, however heavy they are together") {
    std::vector<Candidate> all(1024, Candidate{.weight = 20'000 * 256, .eligible = true});
    int late = 0;
    for (uint64_t i = 1; i <= 1000; ++i)  // even steps over all numbers
        late += pick(Balancing::random_two, all, i * 0x9e3779b97f4a7c15) >= 900;
    CHECK(late > 60);  // an eighth of them, twice drawn
}

TEST_CASE("least_busy takes the one with the fewest in flight") {
    std::vector<Candidate> all{candidate(2), candidate(1), candidate(3)};
    CHECK(least_busy(all) == 1);
}

TEST_CASE("least_busy counts in flight per weight, without rounding") {
    std::vector<Candidate> all{candidate(1, 1), candidate(2, 3)};
    CHECK(least_busy(all) == 1);
    all = {candidate(1, 1), candidate(4, 3)};
    CHECK(least_busy(all) == 0);
}

TEST_CASE("least_busy never takes one that is not eligible") {
    std::vector<Candidate> all{candidate(0), candidate(5)};
    all[0].eligible = false;
    CHECK(least_busy(all) == 1);
    all[1].eligible = false;
    CHECK(least_busy(all) == no_candidate);
    CHECK(least_busy({}) == no_candidate);
}

TEST_CASE("among equals least_busy takes the one with an idle connection, but never a busier one for it") {
    std::vector<Candidate> all{candidate(1), candidate(1, 1, true), candidate(1)};
    CHECK(least_busy(all) == 1);
    all = {candidate(1), candidate(2, 1, true)};
    CHECK(least_busy(all) == 0);
}

TEST_CASE("among equals least_busy takes turns") {
    std::vector<Candidate> all{candidate(0), candidate(0), candidate(0)};
    std::string taken;
    for (int i = 0; i < 6; ++i) taken += static_cast<char>('a' + least_busy(all));
    CHECK(taken == "abcabc");
}

TEST_CASE("several near ones take turns among themselves") {
    std::vector<Candidate> all{candidate(0, 1, true), candidate(0), candidate(0, 1, true)};
    std::string taken;
    for (int i = 0; i < 4; ++i) taken += static_cast<char>('a' + least_busy(all));
    CHECK(taken == "acac");
}

TEST_CASE("round_robin is smooth by weight: 5,1,1 gives a a b a c a a") {
    std::vector<Candidate> all{candidate(9, 5), candidate(0, 1), candidate(0, 1)};
    std::string taken;
    for (int i = 0; i < 7; ++i) taken += static_cast<char>('a' + round_robin(all));
    CHECK(taken == "aabacaa");
}

TEST_CASE("a weight of 0 counts as 1") {
    std::vector<Candidate> all{candidate(1, 0), candidate(2, 1)};
    CHECK(least_busy(all) == 0);
}

TEST_CASE("random_two draws two different ones and takes the less busy") {
    std::vector<Candidate> all{candidate(0), candidate(1), candidate(2), candidate(3)};
    std::array<int, 4> taken{};
    uint64_t random = 1;
    for (int i = 0; i < 6000; ++i) {
        random = random * 6364136223846793005 + 1442695040888963407;
        ++taken[static_cast<size_t>(random_two(all, random))];
    }
    // The busiest loses each of its draws; the least busy wins each: it is in half of all pairs.
    CHECK(taken[3] == 0);
    CHECK(taken[0] > 2700);
    CHECK(taken[0] < 3300);
    all[0].eligible = all[1].eligible = all[2].eligible = false;
    CHECK(random_two(all, random) == 3);
    all[3].eligible = false;
    CHECK(random_two(all, random) == no_candidate);
}

TEST_CASE("first takes the first that is eligible") {
    std::vector<Candidate> all{candidate(0), candidate(7), candidate(0)};
    all[0].eligible = false;
    CHECK(first_eligible(all) == 1);
    CHECK(pick(Balancing::first, all, 0) == 1);
    CHECK(pick(Balancing::least_busy, all, 0) == 2);
}

}  // namespace
}  // namespace penstock
