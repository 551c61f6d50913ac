#include "fleet.h"

#include <algorithm>
#include <fmt/format.h>

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
    for (size_t i = 0; i < places_.size(); ++i) launch(i);
    if (world_.plan().changes > Duration{})
        world_.add(What::something_changes, main_thread, world_.chance().around(world_.plan().changes));
}

void Fleet::launch(size_t i) {
    start(i);
    if (places_[i].process->rules().spawned) return;
    places_[i].process->is_up(1);
    tell(i, News::ready);
}

void Fleet::collect(std::vector<const Lease*>& leases) const {
    for (const Held& held : held_) leases.push_back(&held.lease);
}

// An id that was used before goes on counting where its last bearer ended.
uint32_t Fleet::generation(const Place& place, uint32_t life) const {
    return place.backend->first_generation + life - 1;
}

size_t Fleet::place_of(BackendId backend) const {
    auto at = std::ranges::find_if(
        places_, [&](const Place& p) { return p.process->id() == backend && !p.forgotten; });
    if (at == places_.end()) world_.fail("an order for a backend that is forgotten");
    return static_cast<size_t>(at - places_.begin());
}

void Fleet::tell(size_t i, News event, Time until, Duration restart_cost) {
    if (places_[i].forgotten) return;
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
            if (generation(places_[i], event.value) != places_[i].generation) return;
            Duration cost = world_.chance().one_in(2) ? Duration{} : places_[i].process->plan().start;
            return tell(i, News::ready, never, cost);
        }
        case What::worker_exited: return exited(i, generation(places_[i], event.value));
        case What::start_is_due:
            if (places_[i].process->is_gone() && !places_[i].gave_up && places_[i].removed_at == never)
                start(i);
            return;
        case What::probe_answered: return probe_answered(i, event.value);
        case What::back_in_service:
            if (event.value != places_[i].generation) return;
            tell(i, News::undrain);
            return tell(i, News::healthy);
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
        count_changes();
        for (const Action& action : actions) act(action);
        if (actions.more) continue;
        tick_at_ = std::max(next, world_.now() + 1ms);
        return;
    }
}

void Fleet::act(const Action& action) {
    const size_t i = place_of(action.backend);
    Place& place = places_[i];
    if (action.generation != place.generation && action.kind != Action::Kind::forget) return;
    switch (action.kind) {
        case Action::Kind::probe: return place.probes ? void() : probe(i, world_.latency());
        case Action::Kind::restart:
            if (place.removed_at != never) world_.fail("asked to restart process {}, which was removed", i);
            if (action.why == RestartWhy::stuck) {
                world_.tally().count("restarts for stuck work");
                expect_one_restart(place);
                place.restarts = true;
            } else {
                world_.tally().count("restarts of ejected workers");
            }
            break;
        case Action::Kind::stop: world_.tally().count("workers stopped"); break;
        case Action::Kind::forget: return forget(i);
    }
    // Nothing that anybody waits for is lost by it.
    for (auto& loop : world_.loops())
        for (const Connection* connection : loop->connections())
            if (connection->is_wanted() && connection->backend() == action.backend &&
                connection->generation() == action.generation)
                world_.fail("asked to end process {}, which serves a request", i);
    place.process->kill(world_.latency());
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
    if (generation != places_[i].generation || places_[i].forgotten) return;
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
    place.generation = generation(place, process.rules().spawned ? process.life() : 1);
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
    if (place.removed_at != never) return tell(i, News::exited);
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
    if (places_[i].forgotten) return;
    Process& process = *places_[i].process;
    const Duration a_while = chance.around(process.plan().work * 20);
    const Handle who{static_cast<uint32_t>(i), 0};
    switch (chance.below(world_.plan().set_changes ? 15 : 13)) {
        case 0: return process.kill({});
        case 1: return process.hang(a_while);
        case 2: return tell(i, News::eject, world_.now() + a_while);
        case 3:
            world_.add(What::back_in_service, main_thread, a_while, who, places_[i].generation);
            return tell(i, News::unhealthy);
        case 4:  // a recycling, or an operator who changes his mind
            if (!process.rules().spawned || chance.one_in(4))
                world_.add(What::back_in_service, main_thread, a_while, who, places_[i].generation);
            return tell(i, News::drain, chance.one_in(3) ? never : world_.now() + a_while);
        case 5: return process.rules().spawned ? tell(i, News::idle_stop, world_.now() + a_while) : void();
        case 6: return change_slots(i);
        case 7: return change_rules();
        case 8: return world_.change_device();
        case 9: return tell(i, News::suspect);
        case 10: return process.flap(static_cast<uint32_t>(chance.between(1, 4)));
        case 11:
        case 12: return process.fall_sick(a_while * 2);
        default: return change_the_set();
    }
}

// --- backends that come and go, as a name's addresses do

size_t Fleet::size_of(UpstreamId pool) const {
    return static_cast<size_t>(std::ranges::count_if(
        places_, [&](const Place& p) { return p.process->id().upstream == pool && p.removed_at == never; }));
}

void Fleet::change_the_set() {
    Chance& chance = world_.chance();
    const auto pool = static_cast<UpstreamId>(chance.below(world_.plan().pools.size()));
    const size_t size = size_of(pool);
    if (size < 64 && (size <= 1 || chance.one_in(2))) {
        world_.tally().count("backends added");
        world_.add_backend(pool);
        return launch(places_.size() - 1);
    }
    const size_t from = chance.below(places_.size());
    for (size_t n = 0; n < places_.size(); ++n) {
        const size_t i = (from + n) % places_.size();
        if (places_[i].process->id().upstream == pool && places_[i].removed_at == never) return remove(i);
    }
}

void Fleet::remove(size_t i) {
    world_.say("backend {} is removed", i);
    world_.tally().count("backends removed");
    places_[i].removed_at = world_.now();
    places_[i].restarts = false;
    Wakes wakes;
    world_.park().remove_backend(places_[i].process->id(), world_.now(), wakes);
    deliver(world_.park(), wakes, world_.now(), world_);
}

// Nothing refers to it: no lease, and no connection but to a process that has ended.
void Fleet::forget(size_t i) {
    Place& place = places_[i];
    if (place.removed_at == never) world_.fail("asked to forget process {}, which was not removed", i);
    for (auto& loop : world_.loops())
        for (const Connection* connection : loop->connections())
            if (connection->process() == i && (connection->lease() || !place.is_over))
                world_.fail("asked to forget process {}, to which a connection is open", i);
    if (!world_.park().forget(place.process->id())) world_.fail("backend {} is not forgotten", i);
    world_.say("backend {} is forgotten", i);
    world_.tally().count("backends forgotten");
    place.forgotten = true;
}

void Fleet::count_changes() {
    for (const BackendChange& change : world_.park().changes()) {
        using Kind = BackendChange::Kind;
        Tally& tally = world_.tally();
        if (change.kind == Kind::ejected) tally.count(fmt::format("ejected: {}", to_string(change.reason)));
        if (change.kind == Kind::kept) tally.count("not ejected");
        if (change.kind == Kind::back) tally.count("back after a probing request");
    }
}

// --- what must be true

void Fleet::expect_in_service(BackendId backend) {
    const size_t i = place_of(backend);
    if (places_[i].removed_at != never) world_.fail("a slot of process {} was granted after its removal", i);
    world_.park().describe(view_, world_.now());
    const BackendView& b = *view_of(i, view_);
    if (b.state == BackendState::resting && b.until > world_.now())
        world_.fail("a slot of process {} was granted while it rests", i);
}

const BackendView* Fleet::view_of(size_t process, const ParkView& view) const {
    if (places_[process].forgotten) return nullptr;
    const BackendId id = places_[process].process->id();
    for (const BackendView& b : view.upstreams[static_cast<size_t>(id.upstream)].backends)
        if (b.id == id) return &b;
    world_.fail("the park does not show process {}", process);
}

bool Fleet::is_settled(std::string& why) {
    world_.park().describe(view_, world_.now());
    for (size_t i = 0; i < places_.size(); ++i) {
        const Place& place = places_[i];
        if (place.forgotten || place.gave_up) continue;
        const BackendView& b = *view_of(i, view_);
        const bool serves = b.state == BackendState::ready && b.unfit == Unfit::fit;
        if (place.removed_at == never && (serves || b.unfit == Unfit::backup)) continue;
        why = fmt::format("process {} is {}, {}{}", i, to_string(b.state), to_string(b.unfit),
                          place.removed_at == never ? "" : ", and was removed");
        return false;
    }
    return true;
}

namespace {
bool has_rested(const BackendView& b) { return b.state == BackendState::resting && b.unfit == Unfit::fit; }
}  // namespace

void Fleet::bring_back() {
    world_.park().describe(view_, world_.now());
    for (const UpstreamView& pool : view_.upstreams)
        for (auto n = std::ranges::count_if(pool.backends, has_rested); n > 0; --n) bring_one_back(pool);
}

void Fleet::bring_one_back(const UpstreamView& pool) {
    Ticket ticket;
    ticket.upstream = pool.id;
    ticket.set_wake({0, Handle{}});
    Wakes wakes;
    Admission answer = world_.park().admit(ticket, world_.now(), wakes);
    if (answer.kind != Admission::Kind::granted) {
        if (answer.kind == Admission::Kind::waiting) world_.park().cancel(ticket, world_.now(), wakes);
        return deliver(world_.park(), wakes, world_.now(), world_);  // a device is at work, or a probe
    }
    const auto at = std::ranges::find(pool.backends, answer.lease.backend(), &BackendView::id);
    if (!has_rested(*at)) world_.fail("all is quiet, and a request does not go to one that has rested");
    if (answer.lease.how() == Connect::dial || answer.lease.how() == Connect::free) {
        world_.tally().count("back after all was quiet");
        world_.park().run(answer.lease, world_.now());
        world_.park().finish(answer.lease, {Outcome::answered, Keep::closed}, world_.now(), wakes);
    } else {
        world_.park().finish(answer.lease, {Outcome::unused, Keep::closed}, world_.now(), wakes);
    }
    deliver(world_.park(), wakes, world_.now(), world_);
}

// --- what an operator changes

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
