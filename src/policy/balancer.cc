#include "policy/balancer.h"

#include <algorithm>

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
    const auto eligible = static_cast<uint64_t>(std::ranges::count_if(all, &Candidate::eligible));
    if (eligible == 0) return no_candidate;
    uint64_t first = (random & UINT32_MAX) % eligible;
    uint64_t second = eligible > 1 ? (first + 1 + (random >> 32) % (eligible - 1)) % eligible : first;
    int a = no_candidate, b = no_candidate;
    for (size_t i = 0, nth = 0; i < all.size(); ++i) {
        if (!all[i].eligible) continue;
        if (nth == first) a = static_cast<int>(i);
        if (nth == second) b = static_cast<int>(i);
        ++nth;
    }
    return is_less_busy(all[b], all[a]) ? b : a;
}

int first_eligible(std::span<const Candidate> all) {
    const auto found = std::ranges::find_if(all, &Candidate::eligible);
    return found == all.end() ? no_candidate : static_cast<int>(found - all.begin());
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
