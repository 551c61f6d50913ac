#include "policy/balancer.h"

#include <algorithm>
#include <cmath>

namespace penstock {

namespace {

uint64_t weight_of(const Candidate& c) { return std::max<uint32_t>(c.weight, 1); }

// Cross-multiplied, so that 1 of weight 1 and 2 of weight 2 are really equal.
bool is_less_busy(const Candidate& a, const Candidate& b) {
    return a.in_flight * weight_of(b) < b.in_flight * weight_of(a);
}

// nginx's smooth weighted round robin over those that `takes_part` accepts: each gains its weight, the
// richest is taken and pays what all gained. Weights 5,1,1 give a a b a c a a.
template <class TakesPart>
int smooth_turn(std::span<Candidate> all, TakesPart takes_part) {
    int best = no_candidate;
    int64_t total = 0;
    for (size_t i = 0; i < all.size(); ++i) {
        Candidate& c = all[i];
        if (!takes_part(c)) continue;
        c.turn += static_cast<int64_t>(weight_of(c));
        total += static_cast<int64_t>(weight_of(c));
        if (best == no_candidate || c.turn > all[best].turn) best = static_cast<int>(i);
    }
    if (best != no_candidate) all[best].turn -= total;
    return best;
}

// Where `at` falls when the eligible ones, but for one, lie side by side, each as long as its weight.
int drawn(std::span<const Candidate> all, uint64_t at, int but) {
    for (size_t i = 0; i < all.size(); ++i) {
        if (!all[i].eligible || static_cast<int>(i) == but) continue;
        if (at < weight_of(all[i])) return static_cast<int>(i);
        at -= weight_of(all[i]);
    }
    return no_candidate;
}

uint64_t mixed(uint64_t z) {  // splitmix64's mixer
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// How little a key likes a backend: the first arrival of a process that comes at the rate of its weight, so
// that it is the earliest of all as often as its weight says. Depends on nothing but these two.
double dislike(uint64_t key, const Candidate& c) {
    const uint64_t z = mixed(key ^ c.identity);                          // both are hashes already
    const double even = (static_cast<double>(z >> 11) + 0.5) * 0x1p-53;  // in (0, 1)
    return -std::log(even) / static_cast<double>(weight_of(c));
}

}  // namespace

int least_busy(std::span<Candidate> all) {
    const Candidate* least = nullptr;
    size_t equals = 0, near = 0;
    int only = no_candidate, only_near = no_candidate;
    for (size_t i = 0; i < all.size(); ++i) {
        const Candidate& c = all[i];
        if (!c.eligible || (least && is_less_busy(*least, c))) continue;
        if (!least || is_less_busy(c, *least)) least = &c, equals = near = 0;
        ++equals;
        only = static_cast<int>(i);
        if (c.near) ++near, only_near = static_cast<int>(i);
    }
    if (equals <= 1) return only;
    if (near == 1) return only_near;
    const Candidate model = *least;  // turns change nothing of what is compared
    return smooth_turn(all, [&](const Candidate& c) {
        return c.eligible && !is_less_busy(model, c) && (near == 0 || c.near);
    });
}

int round_robin(std::span<Candidate> all) {
    return smooth_turn(all, [](const Candidate& c) { return c.eligible; });
}

int random_two(std::span<Candidate> all, uint64_t random) {
    uint64_t whole = 0;
    for (const Candidate& c : all) whole += c.eligible ? weight_of(c) : 0;
    if (whole == 0) return no_candidate;
    const int a = drawn(all, random % whole, no_candidate);
    whole -= weight_of(all[a]);
    if (whole == 0) return a;
    const int b = drawn(all, mixed(random) % whole, a);  // all weights together may be beyond 32 bits
    return is_less_busy(all[b], all[a]) ? b : a;
}

int first_eligible(std::span<const Candidate> all) {
    const auto found = std::ranges::find_if(all, &Candidate::eligible);
    return found == all.end() ? no_candidate : static_cast<int>(found - all.begin());
}

bool LoadBound::allows(const Candidate& c) const {
    // in_flight < percent/100 x (all in flight and this one) x weight / all weight, without rounding
    return percent == 0 || c.in_flight * 100 * weight < percent * (in_flight + 1) * weight_of(c);
}

int by_hash(std::span<const Candidate> all, uint64_t key, const LoadBound& bound) {
    int best = no_candidate;
    bool best_is_allowed = false;
    double least = 0;
    for (size_t i = 0; i < all.size(); ++i) {
        const Candidate& c = all[i];
        if (!c.eligible) continue;
        const bool is_allowed = bound.allows(c);
        if (best_is_allowed && !is_allowed) continue;
        const double now = dislike(key, c);
        if (best != no_candidate && is_allowed == best_is_allowed && now >= least) continue;
        best = static_cast<int>(i);
        best_is_allowed = is_allowed;
        least = now;
    }
    return best;
}

int pick(Balancing balancing, std::span<Candidate> all, uint64_t random) {
    switch (balancing) {
        case Balancing::least_busy: return least_busy(all);
        case Balancing::round_robin: return round_robin(all);
        case Balancing::random_two: return random_two(all, random);
        case Balancing::first: return first_eligible(all);
    }
    return no_candidate;
}

}  // namespace penstock
