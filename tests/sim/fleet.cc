#include "fleet.h"

#include <algorithm>

#include "process.h"
#include "proxy/upstream.h"
#include "world.h"

namespace penstock::sim {

using News = BackendNews::Event;

void Fleet::add(Process& process, Backend& backend) {
    backend.spawned = process.rules().spawned;
    places_.push_back({&process, &backend});
}

void Fleet::start_all() {
    for (size_t i = 0; i < places_.size(); ++i) {
        start(i);
        if (places_[i].process->rules().spawned) continue;
        places_[i].process->is_up(1);
        tell(i, News::ready);
    }
    if (world_.plan().changes > Duration{})
        world_.add(What::something_changes, main_thread, world_.chance().around(world_.plan().changes));
}

void Fleet::collect(std::vector<const Lease*>& leases) const {
    for (const Held& held : held_) leases.push_back(&held.lease);
}

void Fleet::tell(size_t i, News event, Time until, Duration restart_cost) {
    if (event == News::ready || event == News::gave_up) places_[i].restarts = false;
    Wakes wakes;
    world_.park().backend_event(places_[i].process->id(), {event, places_[i].generation, until, restart_cost},
                                world_.now(), wakes);
    deliver(world_.park(), wakes, world_.now(), world_);
}

void Fleet::step() {
    if (inbox_.empty()) return tick();
    Event event = inbox_.front();
    inbox_.erase(inbox_.begin());
    open(event);
}

void Fleet::open(const Event& event) {
    const size_t i = event.who.slot;
    switch (event.what) {
        case What::wake_main: return tick();
        case What::worker_is_up: {
            if (event.value != places_[i].generation) return;
            Duration cost = world_.chance().one_in(2) ? Duration{} : places_[i].process->plan().start;
            return tell(i, News::ready, never, cost);
        }
        case What::worker_exited: return exited(i, event.value);
        case What::start_is_due:
            if (places_[i].process->is_gone() && !places_[i].gave_up) start(i);
            return;
        case What::probe_answered: return probe_answered(i, event.value);
        case What::back_in_service:
            if (event.value != places_[i].generation) return;
            tell(i, News::undrain);
            return tell(i, News::ready);
        case What::something_changes: return something_changes();
        case What::drain_all: {
            Wakes wakes;
            world_.park().drain(world_.now() + world_.chance().around(100ms), world_.now(), wakes);
            return deliver(world_.park(), wakes, world_.now(), world_);
        }
        default: world_.fail("an event that is none of the main thread's");
    }
}

// --- what the park asks for

void Fleet::tick() {
    while (true) {
        Wakes wakes;
        Actions actions;
        Time next = world_.park().tick(world_.now(), wakes, actions);
        deliver(world_.park(), wakes, world_.now(), world_);
        for (const Action& action : actions) act(action);
        if (actions.more) continue;
        tick_at_ = std::max(next, world_.now() + 1ms);
        return;
    }
}

void Fleet::act(const Action& action) {
    auto place =
        std::ranges::find_if(places_, [&](const Place& p) { return p.process->id() == action.backend; });
    const auto i = static_cast<size_t>(place - places_.begin());
    if (action.generation != place->generation) return;
    switch (action.kind) {
        case Action::Kind::probe: return place->probes ? void() : probe(i, world_.latency());
        case Action::Kind::restart:
            world_.tally().count("restarts for stuck work");
            expect_one_restart(*place);
            place->restarts = true;
            break;
        case Action::Kind::stop: world_.tally().count("workers stopped"); break;
        case Action::Kind::forget: world_.fail("asked to forget a backend that was not removed");
    }
    // Nothing that anybody waits for is lost by it.
    for (auto& loop : world_.loops())
        for (const Connection* connection : loop->connections())
            if (connection->is_wanted() && connection->backend() == action.backend &&
                connection->generation() == action.generation)
                world_.fail("asked to end process {}, which serves a request", i);
    place->process->kill(world_.latency());
}

void Fleet::expect_one_restart(const Place& wanted) {
    for (const Place& other : places_)
        if (&other != &wanted && other.restarts &&
            other.process->id().upstream == wanted.process->id().upstream)
            world_.fail("two restarts of one upstream at a time");
}

// A Suspect one is asked whether it lives; where there is a slot, it is held meanwhile, or only looked at.
void Fleet::probe(size_t i, Duration after) {
    places_[i].probes = true;
    world_.add(What::probe_answered, main_thread, after, {static_cast<uint32_t>(i), 0},
               places_[i].generation);
    Lease slot = world_.park().probe(places_[i].process->id(), world_.now());
    if (!slot) return;
    if (world_.chance().one_in(2)) return held_.push_back({i, std::move(slot)});
    Wakes wakes;
    world_.park().finish(slot, {Outcome::unused, Keep::closed}, world_.now(), wakes);
    deliver(world_.park(), wakes, world_.now(), world_);
}

void Fleet::probe_answered(size_t i, uint32_t generation) {
    places_[i].probes = false;
    auto held = std::ranges::find_if(held_, [&](const Held& h) { return h.process == i; });
    if (held != held_.end()) {
        BackendId backend = held->lease.backend();
        uint32_t of = held->lease.generation();
        Wakes wakes;
        const bool later = world_.chance().one_in(2);
        world_.park().finish(held->lease, {Outcome::unused, later ? Keep::closing : Keep::closed},
                             world_.now(), wakes);
        deliver(world_.park(), wakes, world_.now(), world_);
        held_.erase(held);
        if (later) {
            Wakes more;
            world_.park().connection_closed(backend, of, world_.now(), more);
            deliver(world_.park(), more, world_.now(), world_);
        }
    }
    if (generation != places_[i].generation) return;
    const Process& process = *places_[i].process;
    if (process.is_up() && !process.hangs()) return tell(i, News::alive);
    tell(i, News::probe_failed);
    if (!process.rules().spawned || process.is_up()) probe(i, world_.chance().around(50ms));
}

// --- the life of workers

void Fleet::start(size_t i) {
    Place& place = places_[i];
    Process& process = *place.process;
    process.start();
    place.is_over = false;
    place.generation = process.rules().spawned ? process.life() : 1;
    place.backend->set_address(place.generation, SocketAddress{});
    const Time expected =
        world_.chance().one_in(4) ? never : world_.now() + world_.chance().around(process.plan().start);
    tell(i, News::starting, process.rules().spawned ? expected : world_.now());
}

void Fleet::exited(size_t i, uint32_t generation) {
    Place& place = places_[i];
    if (generation != place.generation) return;
    place.is_over = true;
    Chance& chance = world_.chance();
    place.gave_up = chance.one_in(100);
    if (place.gave_up && chance.one_in(2)) return tell(i, News::gave_up);
    const Duration wait = chance.around(place.process->plan().start / 4);
    tell(i, News::exited, chance.one_in(8) ? never : world_.now() + wait);
    if (place.gave_up) return tell(i, News::gave_up);
    world_.add(What::start_is_due, main_thread, wait, {static_cast<uint32_t>(i), 0});
}

// --- from outside

void Fleet::something_changes() {
    Chance& chance = world_.chance();
    if (!world_.is_traffic_over())
        world_.add(What::something_changes, main_thread, chance.around(world_.plan().changes));
    const size_t i = chance.below(places_.size());
    Process& process = *places_[i].process;
    const Duration a_while = chance.around(process.plan().work * 20);
    const Handle who{static_cast<uint32_t>(i), 0};
    switch (chance.below(10)) {
        case 0: return process.kill({});
        case 1: return process.hang(a_while);
        case 2: return tell(i, News::eject, world_.now() + a_while);
        case 3:
            world_.add(What::back_in_service, main_thread, a_while, who, places_[i].generation);
            return tell(i, News::eject);
        case 4:  // a recycling, or an operator who changes his mind
            if (!process.rules().spawned || chance.one_in(4))
                world_.add(What::back_in_service, main_thread, a_while, who, places_[i].generation);
            return tell(i, News::drain, chance.one_in(3) ? never : world_.now() + a_while);
        case 5: return process.rules().spawned ? tell(i, News::idle_stop, world_.now() + a_while) : void();
        case 6: return change_slots(i);
        case 7: return change_rules();
        case 8: return world_.change_device();
        default: return tell(i, News::suspect);
    }
}

void Fleet::change_slots(size_t i) {
    Process& process = *places_[i].process;
    BackendRules rules = process.rules();
    if (rules.slots == 0) return;
    rules.slots = static_cast<uint32_t>(world_.chance().between(1, 6));
    world_.say("process {} has {} slots now, and had {}", i, rules.slots, process.rules().slots);
    process.set_rules(rules);
    Wakes wakes;
    world_.park().set_rules(process.id(), rules, world_.now(), wakes);
    deliver(world_.park(), wakes, world_.now(), world_);
}

void Fleet::change_rules() {
    Chance& chance = world_.chance();
    const size_t pool = chance.below(world_.plan().pools.size());
    UpstreamRules rules = world_.plan().pools[pool].rules;
    rules.queue_size = static_cast<uint32_t>(chance.below(50));
    rules.queue_timeout = chance.around(rules.queue_timeout) + 1ms;
    rules.start_timeout = chance.around(rules.start_timeout) + 1ms;
    if (rules.max_requests) rules.max_requests = static_cast<uint32_t>(chance.between(1, 8));
    if (rules.max_connections) rules.max_connections = static_cast<uint32_t>(chance.between(1, 8));
    Wakes wakes;
    world_.park().set_rules(static_cast<UpstreamId>(pool), rules, world_.now(), wakes);
    deliver(world_.park(), wakes, world_.now(), world_);
}

}  // namespace penstock::sim
