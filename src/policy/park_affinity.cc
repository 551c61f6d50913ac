// Homes: the backend that a ticket's key belongs to. A home is a wish, never a must: whoever finds it busy
// takes another one, at once or when his patience ends, rather than wait beside backends that are free.
#include "policy/park_state.h"

namespace penstock {

// A key's home does not move with a slow start's growing weight: that would move every key twice. Nor is a
// backup anybody's home while it need not serve.
bool ParkBackend::is_member() const {
    return state == BackendState::ready && !restarting && !removed &&
           !(rules.backup && upstream->primary_ready);
}

void ParkState::settle_homes(ParkUpstream& u) {
    if (++u.version == 0) u.version = 1;  // 0 is nobody's
    u.member_weight = 0;
    for (auto& b : u.backends)
        if (b && b->is_member()) u.member_weight += b->rules.weight;
}

// Null: it has no key, or what the key names is not Ready.
ParkBackend* ParkState::home(ParkUpstream& u, Ticket& t) {
    if (t.key == 0 || u.rules.affinity == Affinity::none) return nullptr;
    if (t.home_of_ != u.version) {
        for (size_t i = 0; i < u.backends.size(); ++i) {
            Candidate& c = u.candidates[i];
            const ParkBackend* b = u.backends[i].get();
            c.eligible =
                b && b->is_member() && (u.rules.affinity == Affinity::by_hash || c.identity == t.key);
            if (b) c.weight = b->rules.weight;
        }
        const int found = u.rules.affinity == Affinity::by_hash ? by_hash(u.candidates, t.key)
                                                                : first_eligible(u.candidates);
        t.home_ = static_cast<uint16_t>(found);  // no_candidate: beyond every index
        t.home_of_ = u.version;
    }
    return t.home_ < u.backends.size() ? u.backends[t.home_].get() : nullptr;
}

LoadBound ParkState::load_bound(const ParkUpstream& u) const {
    return {u.rules.affinity == Affinity::by_hash ? u.rules.balance_factor : 0, u.used,
            std::max<uint64_t>(u.member_weight, 1)};
}

bool ParkState::home_can_take(ParkUpstream& u, Ticket& t) {
    const ParkBackend* b = home(u, t);
    if (!b) return is_open(u);  // it went away: anybody
    return unfit(*b) == Unfit::fit &&
           load_bound(u).allows({.weight = b->rules.weight, .in_flight = b->used()});
}

// Where nobody may wait there is no patience; nor has it who cannot have his home.
Time ParkState::patience_end(ParkUpstream& u, Ticket& t) {
    const bool may_wait =
        u.rules.patience > Duration{} && u.rules.queue_bound() > 0 && t.excluded.empty() && home(u, t);
    return may_wait ? deadline_after(now, u.rules.patience) : Time::min();
}

void ParkState::stop_being_patient(ParkUpstream& u, Ticket& t) {
    t.patient_until_ = Time::min();
    if (t.place_ == Ticket::Place::waiting) u.unrestricted += !t.is_restricted();
}

int ParkState::pick_for(ParkUpstream& u, Ticket& t) {
    if (t.key != 0 && u.rules.affinity == Affinity::by_hash) {
        for (size_t i = 0; i < u.backends.size(); ++i)
            if (u.candidates[i].eligible) u.candidates[i].weight = u.backends[i]->rules.weight;
        return by_hash(u.candidates, t.key, load_bound(u));
    }
    if (t.key != 0 && u.rules.affinity == Affinity::by_name)
        for (size_t i = 0; i < u.candidates.size(); ++i)
            if (u.candidates[i].eligible && u.candidates[i].identity == t.key) return static_cast<int>(i);
    return pick(u.rules.balancing, u.candidates, random());
}

}  // namespace penstock
