// How each policy spreads 100,000 picks, beside what its definition says.
#include <algorithm>
#include <array>
#include <cmath>
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "base/hash.h"
#include "policy/balancer.h"

namespace penstock {
namespace {

constexpr int picks = 100'000;

struct Dice {
    uint64_t state = 1;
    uint64_t next() {
        uint64_t z = (state += 0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
};

std::vector<Candidate> fleet(std::initializer_list<uint32_t> weights) {
    std::vector<Candidate> all;
    for (const uint32_t weight : weights)
        all.push_back({.weight = weight,
                       .eligible = true,
                       .identity = hash("10.0.0." + std::to_string(all.size() + 1) + ":8000")});
    return all;
}

// Of random draws: within four standard deviations of the share that is expected.
void check_share(int taken, double share) {
    const double expected = picks * share;
    INFO(taken << " taken, " << expected << " expected");
    CHECK(std::abs(taken - expected) <= 4 * std::sqrt(expected * (1 - share)) + 1);
}

TEST_CASE("round_robin: each gets its weight of every round, exactly") {
    auto all = fleet({5, 1, 1, 3});
    std::array<int, 4> taken{};
    for (int i = 0; i < picks; ++i) ++taken[static_cast<size_t>(round_robin(all))];
    CHECK(taken == std::array{50'000, 10'000, 10'000, 30'000});
}

TEST_CASE("round_robin: nobody is taken twice in a row who need not be") {
    auto all = fleet({3, 3, 2});
    int last = no_candidate;
    for (int i = 0; i < picks; ++i) {
        const int now = round_robin(all);
        CHECK_FALSE(now == last);
        last = now;
    }
}

TEST_CASE("least_busy: with equal service times the load in flight follows the weights, exactly") {
    auto all = fleet({4, 2, 1, 1});
    std::array<int, 4> taken{};
    std::vector<int> running;  // the last 80 picks are in flight
    for (int i = 0; i < picks; ++i) {
        const int now = least_busy(all);
        ++taken[static_cast<size_t>(now)];
        ++all[static_cast<size_t>(now)].in_flight;
        running.push_back(now);
        if (running.size() < 80) continue;
        CHECK(all[0].in_flight <= 40);
        CHECK(all[3].in_flight <= 10);
        --all[static_cast<size_t>(running.front())].in_flight;
        running.erase(running.begin());
    }
    CHECK(std::abs(taken[0] - 50'000) <= 40);
    CHECK(std::abs(taken[1] - 25'000) <= 40);
    CHECK(std::abs(taken[2] - 12'500) <= 40);
    CHECK(std::abs(taken[3] - 12'500) <= 40);
}

TEST_CASE("least_busy: idle ones take smooth weighted turns") {
    auto all = fleet({5, 1, 1});
    std::string taken;
    for (int i = 0; i < 7; ++i) taken += static_cast<char>('a' + least_busy(all));
    CHECK(taken == "aabacaa");
}

TEST_CASE("random_two: among idle ones each gets its weight") {
    auto all = fleet({5, 1, 1, 3});
    Dice dice;
    std::array<int, 4> taken{};
    for (int i = 0; i < picks; ++i) ++taken[static_cast<size_t>(random_two(all, dice.next()))];
    check_share(taken[0], 0.5);
    check_share(taken[1], 0.1);
    check_share(taken[2], 0.1);
    check_share(taken[3], 0.3);
}

TEST_CASE("random_two: the busiest of n is never taken, the least busy in 2/n of all draws") {
    auto all = fleet({1, 1, 1, 1, 1, 1, 1, 1});
    for (uint32_t i = 0; i < all.size(); ++i) all[i].in_flight = i;
    Dice dice;
    std::array<int, 8> taken{};
    for (int i = 0; i < picks; ++i) ++taken[static_cast<size_t>(random_two(all, dice.next()))];
    // The k-th least busy wins against the 7 - k busier ones, in (7 - k) of 28 pairs.
    for (size_t k = 0; k < 8; ++k) check_share(taken[k], static_cast<double>(7 - k) / 28);
}

TEST_CASE("first: the first takes all that it can, then the second") {
    auto all = fleet({1, 9, 9});
    std::array<int, 3> taken{};
    for (int i = 0; i < picks; ++i) {
        all[0].eligible = i % 4 != 0;
        all[1].eligible = i % 8 != 0;
        ++taken[static_cast<size_t>(first_eligible(all))];
    }
    CHECK(taken == std::array{75'000, 12'500, 12'500});
}

TEST_CASE("by_hash: keys follow the weights") {
    const auto all = fleet({5, 1, 1, 3});
    std::array<int, 4> taken{};
    for (int i = 0; i < picks; ++i) ++taken[static_cast<size_t>(by_hash(all, hash(std::to_string(i))))];
    check_share(taken[0], 0.5);
    check_share(taken[1], 0.1);
    check_share(taken[2], 0.1);
    check_share(taken[3], 0.3);
}

TEST_CASE("by_hash: when one of n backends leaves, its own keys move and no other, evenly over the rest") {
    for (const size_t leaver : {0U, 3U, 7U}) {
        const auto before = fleet({1, 1, 1, 1, 1, 1, 1, 1});
        auto after = before;
        after[leaver].eligible = false;
        std::array<int, 8> came{};
        int moved = 0;
        for (int i = 0; i < picks; ++i) {
            const uint64_t key = hash(std::to_string(i));
            const int was = by_hash(before, key), is = by_hash(after, key);
            if (was == is) continue;
            CHECK(was == static_cast<int>(leaver));
            ++moved;
            ++came[static_cast<size_t>(is)];
        }
        check_share(moved, 1.0 / 8);
        for (size_t i = 0; i < 8; ++i)
            if (i != leaver) check_share(came[i], 1.0 / 8 / 7);
    }
}

TEST_CASE("by_hash: when one comes, the keys that move all move to it; where it stands is all the same") {
    const auto after = fleet({1, 1, 2, 1, 1});
    const std::vector<Candidate> before(after.begin(), after.end() - 1);
    auto turned_round = after;
    std::ranges::reverse(turned_round);
    int moved = 0;
    for (int i = 0; i < picks; ++i) {
        const uint64_t key = hash(std::to_string(i));
        const int was = by_hash(before, key), is = by_hash(after, key);
        CHECK(by_hash(turned_round, key) == 4 - is);
        if (was == is) continue;
        CHECK(is == 4);
        ++moved;
    }
    check_share(moved, 1.0 / 6);
}

TEST_CASE("by_hash: nobody ever has more than its bounded share, and no key goes without a backend") {
    auto all = fleet({2, 1, 1});
    Dice dice;
    uint64_t in_flight = 0;
    std::vector<int> running;
    for (int i = 0; i < picks; ++i) {
        // A few keys only: without a bound most would fall on one.
        const uint64_t key = hash(std::to_string(dice.next() % 3));
        const LoadBound bound{125, in_flight, 4};
        const int now = by_hash(all, key, bound);
        REQUIRE_FALSE(now == no_candidate);
        Candidate& c = all[static_cast<size_t>(now)];
        ++c.in_flight, ++in_flight;
        // 1.25 x its share, rounded up
        CHECK(c.in_flight <= (125 * in_flight * c.weight + 399) / 400);
        running.push_back(now);
        while (running.size() > 1 + dice.next() % 40) {
            --all[static_cast<size_t>(running.front())].in_flight, --in_flight;
            running.erase(running.begin());
        }
    }
}

TEST_CASE("by_hash: a key whose backend is beyond its bound goes to the one it likes second") {
    auto all = fleet({1, 1, 1});
    const uint64_t key = hash("a conversation");
    const int home = by_hash(all, key);
    all[static_cast<size_t>(home)].eligible = false;
    const int second = by_hash(all, key);
    all[static_cast<size_t>(home)].eligible = true;
    all[static_cast<size_t>(home)].in_flight = 2;
    CHECK(by_hash(all, key, {125, 2, 3}) == second);
    CHECK(by_hash(all, key, {0, 2, 3}) == home);
    for (Candidate& c : all) c.in_flight = 5;  // all beyond what that bound says
    CHECK(by_hash(all, key, {125, 2, 3}) == home);
    for (Candidate& c : all) c.eligible = false;
    CHECK(by_hash(all, key) == no_candidate);
}

}  // namespace
}  // namespace penstock
