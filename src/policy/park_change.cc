// What the main thread changes while traffic flows: upstreams, backends and devices come, go, and get other
// rules.
#include <algorithm>
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

// A number is used again only after this long: news and closed connections of its last bearer may be on
// their way.
constexpr Duration number_rests = 60s;

ParkState::ParkState(unsigned loop_count, uint64_t random_seed, std::atomic<Serving>* serving)
    : loops(loop_count), seed(random_seed), shown(serving), loop_wakes(std::make_unique<Owed[]>(loop_count)) {
    for (unsigned i = 0; i < loops; ++i) loop_wakes[i].wake = {static_cast<uint16_t>(i), Handle{}};
}

ParkState::~ParkState() {
    for (unsigned i = 0; i < loops; ++i) loop_wakes[i].Link<OwedTag>::unlink();
}

UpstreamId ParkState::add_upstream(const UpstreamRules& rules) {
    size_t index = 0;
    while (index < upstreams.size() && upstreams[index]) ++index;
    assert(index < max_upstreams);
    if (index == upstreams.size()) upstreams.emplace_back();
    upstreams[index] = std::make_unique<ParkUpstream>();
    ParkUpstream& u = *upstreams[index];
    u.id = static_cast<UpstreamId>(index);
    u.rules = rules;
    u.clock_at = now;
    shown[index].store(Serving::none, std::memory_order_relaxed);
    return u.id;
}

size_t ParkState::free_place(const ParkUpstream& u) const {
    size_t index = 0;
    while (index < u.backends.size() && (u.backends[index] || u.forgotten_at[index] + number_rests > now))
        ++index;
    return index;
}

BackendId ParkState::add_backend(UpstreamId id, const BackendRules& rules) {
    ParkUpstream& u = upstream(id);
    const size_t index = free_place(u);
    assert(index < max_backends);
    if (index == u.backends.size()) {
        u.backends.emplace_back();
        u.forgotten_at.emplace_back();
        u.candidates.emplace_back();
        u.outliers.emplace_back();
    }
    u.candidates[index] = {};
    u.backends[index] = std::make_unique<ParkBackend>();
    ParkBackend& b = *u.backends[index];
    b.id = {id, static_cast<uint16_t>(index)};
    b.upstream = &u;
    b.since = now;
    b.idle_on.resize(loops);
    b.closable_on.resize(loops);
    set_rules(b, rules);
    return b.id;
}

DeviceId ParkState::add_device(uint32_t slots) {
    const auto id = static_cast<DeviceId>(devices.size());
    devices.push_back(std::make_unique<ParkDevice>());
    devices.back()->id = id;
    devices.back()->slots = slots;
    return id;
}

void ParkState::set_rules(ParkUpstream& u, const UpstreamRules& rules) {
    wind_clock(u);
    u.rules = rules;
    serve_permits(u);
    settle(u);
    soon(now);                 // a slow start takes other steps
    u.tell = u.queue.front();  // its timeouts may be others
    if (u.tell && u.serving != Serving::none && !u.Link<TellTag>::is_linked()) telling.push_back(u);
}

void ParkState::set_rules(ParkBackend& b, const BackendRules& rules) {
    ParkDevice* device =
        rules.device == DeviceId::none ? nullptr : devices[static_cast<size_t>(rules.device)].get();
    if (device != b.device) {
        if (b.device) b.device->used -= b.used();
        if (device) device->used += b.used();
    }
    b.device = device;
    b.rules = rules;
    b.most_used = b.used();
    b.most_connections = b.connections();
    find_device_users();
    b.upstream->candidates[b.id.index].identity = rules.identity ? rules.identity : b.id.index + 1;
    // Idle connections beyond the new bound.
    const uint32_t bound = b.connection_bound();
    for (size_t loop = 0; bound && loop < loops; ++loop)
        while (b.connections() - b.closing - b.closable > bound && b.idle_on[loop] > b.closable_on[loop])
            want_closed(b, loop);
    serve_permits(*b.upstream);
    settle(*b.upstream);
    soon(now);  // a slow start takes other steps
}

void ParkState::set_device(DeviceId id, uint32_t slots) {
    ParkDevice& device = *devices[static_cast<size_t>(id)];
    device.slots = slots;
    mark_users(device);
}

void ParkState::find_device_users() {
    for (auto& device : devices) device->users.clear();
    for (auto& u : upstreams) {
        if (!u) continue;
        for (auto& b : u->backends)
            if (b && b->device && (b->device->users.empty() || b->device->users.back() != u.get()))
                b->device->users.push_back(u.get());
        mark(*u);
    }
}

void ParkState::remove_backend(ParkBackend& b) {
    if (b.removed) return;
    b.removed = true;
    if (b.upstream->restarting == &b) b.upstream->restarting = nullptr;
    b.restarting = false;  // it is to be stopped, and not to come back
    give_back_grants(b);
    if (b.state != BackendState::down) set_state(b, BackendState::draining, never);
    trim_all(b);
    settle(*b.upstream);
    ask(b);
}

void ParkState::remove_upstream(ParkUpstream& u) {
    u.removed = true;
    for (auto& b : u.backends)
        if (b) remove_backend(*b);
}

bool ParkState::forget(BackendId id) {
    ParkBackend& b = backend(id);
    Action::Kind kind;
    if (!wants(b, kind) || kind != Action::Kind::forget) return false;
    ParkUpstream& u = *b.upstream;
    forget_connections(b);
    u.backends[id.index].reset();
    u.forgotten_at[id.index] = now;
    find_device_users();
    return true;
}

bool ParkState::forget(UpstreamId id) {
    ParkUpstream& u = upstream(id);
    const bool is_used = std::ranges::any_of(u.backends, [](const auto& b) { return b != nullptr; });
    if (!u.removed || is_used || !u.queue.empty() || u.retrying > 0) return false;
    u.Link<DirtyTag>::unlink();
    u.Link<TellTag>::unlink();
    shown[static_cast<size_t>(id)].store(Serving::none, std::memory_order_relaxed);
    upstreams[static_cast<size_t>(id)].reset();
    return true;
}

}  // namespace penstock
