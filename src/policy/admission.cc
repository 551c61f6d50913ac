#include "policy/admission.h"

#include <cassert>

#include "policy/park_state.h"

namespace penstock {

namespace {

// One hold: takes the lock and the time; at its end, on every way out, what was freed goes to the next in
// line.
struct Hold {
    Hold(std::mutex& mutex, ParkState& s, Time now, Wakes* w) : lock(mutex), state(s), wakes(w) {
        state.at(now);
    }
    ~Hold() {
        state.dispatch();
        if (wakes) state.post(*wakes);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    std::lock_guard<std::mutex> lock;
    ParkState& state;
    Wakes* wakes;
};

}  // namespace

Park::Park(unsigned loops, uint64_t seed, bool strict)
    : strict_(strict), state_(std::make_unique<ParkState>(loops, seed, serving_.data())) {}
Park::~Park() = default;

Admission Park::peek(UpstreamId upstream, uint64_t bytes, Time deadline, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    return state_->peek(upstream, bytes, deadline);
}

Admission Park::admit(Ticket& ticket, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return with_park(state_->admit(ticket), ticket);
}

Admission Park::collect(Ticket& ticket, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return with_park(state_->collect(ticket), ticket);
}

void Park::cancel(Ticket& ticket, Time now, Wakes& wakes) {
    const KeyUnits back = std::move(ticket.units);  // the limiter has a lock of its own: after ours
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->cancel(ticket);
}

Connect Park::connect(Lease& lease, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->connect(lease);
}

Connect Park::redial(Lease& lease, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->redial(lease);
}

void Park::run(Lease& lease, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    state_->run(lease);
}

Ended Park::finish(Lease& lease, End end, Time now, Wakes& wakes) {
    const KeyUnits back = std::move(lease.units);  // the limiter has a lock of its own: after ours
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->finish(lease, end);
}

Admission Park::retry(Lease& lease, End end, Ticket& ticket, Time now, Wakes& wakes, Ended* ended) {
    const Hold hold(mutex_, *state_, now, &wakes);
    const Ended e = state_->finish(lease, end);
    if (ended) *ended = e;
    ticket.units = std::move(lease.units);
    return with_park(state_->admit(ticket), ticket);
}

void Park::abandon(Lease& lease, Abandon how, Wake to, Time now, Wakes& wakes, Outcome so_far) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->abandon(lease, how, to, so_far);
}

bool Park::is_over(const Lease& lease) {
    const std::lock_guard lock(mutex_);
    return state_->is_over(lease);
}

RetryAnswer Park::may_retry(Ticket& ticket, const FailedTry& failed, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    return state_->may_retry(ticket, failed);
}

void Park::retry_answered(Ticket& ticket, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    state_->retry_answered(ticket);
}

Fate Park::fate(BackendId id, uint32_t generation) {
    const std::lock_guard lock(mutex_);
    return state_->fate(id, generation);
}

void Park::idle_ended(BackendId id, uint32_t generation, uint16_t loop, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    if (ParkBackend* b = state_->find(id)) state_->idle_ended(*b, generation, loop);
}

void Park::connection_closed(BackendId id, uint32_t generation, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    if (ParkBackend* b = state_->find(id)) state_->connection_closed(*b, generation);
}

Trims Park::idle_to_close(uint16_t loop, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    return state_->idle_to_close(loop);
}

void Park::resume(Time now, Wakes& wakes) { const Hold hold(mutex_, *state_, now, &wakes); }

UpstreamId Park::add_upstream(const UpstreamRules& rules) {
    const std::lock_guard lock(mutex_);
    return state_->add_upstream(rules);
}

bool Park::has_place(UpstreamId id, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    return state_->free_place(state_->upstream(id)) < max_backends;
}

BackendId Park::add_backend(UpstreamId id, const BackendRules& rules, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->add_backend(id, rules);
}

DeviceId Park::add_device(uint32_t slots) {
    const std::lock_guard lock(mutex_);
    return state_->add_device(slots);
}

void Park::set_rules(UpstreamId id, const UpstreamRules& rules, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->set_rules(state_->upstream(id), rules);
}

void Park::set_rules(BackendId id, const BackendRules& rules, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->set_rules(state_->backend(id), rules);
}

void Park::set_device(DeviceId id, uint32_t slots, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->set_device(id, slots);
}

void Park::remove_backend(BackendId id, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->remove_backend(state_->backend(id));
}

void Park::remove_upstream(UpstreamId id, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->remove_upstream(state_->upstream(id));
}

bool Park::forget(BackendId id) {
    const std::lock_guard lock(mutex_);
    return state_->forget(id);
}

bool Park::forget(UpstreamId id) {
    const std::lock_guard lock(mutex_);
    return state_->forget(id);
}

void Park::backend_event(BackendId id, const BackendNews& news, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    if (ParkBackend* b = state_->find(id)) state_->backend_event(*b, news);
}

Lease Park::probe(BackendId id, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    Lease lease = state_->probe(id);
    if (lease) lease.park_ = this;
    return lease;
}

bool Park::make_room_for_probe(BackendId id, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->make_room_for_probe(id);
}

Time Park::oldest_work(BackendId id, uint32_t generation) {
    const std::lock_guard lock(mutex_);
    const ParkBackend* b = state_->find(id);
    return b && b->is_generation(generation) ? state_->oldest_work(*b) : never;
}

void Park::drain(Time deadline, Time now, Wakes& wakes) {
    const Hold hold(mutex_, *state_, now, &wakes);
    state_->drain(deadline);
}

Time Park::tick(Time now, Wakes& wakes, Actions& actions) {
    const Hold hold(mutex_, *state_, now, &wakes);
    return state_->tick(actions);
}

BackendChanges Park::changes() {
    const std::lock_guard lock(mutex_);
    BackendChanges out = state_->changes;
    state_->changes.count = 0;
    state_->changes.lost = 0;
    return out;
}

void Park::describe(ParkView& view, Time now) {
    const Hold hold(mutex_, *state_, now, nullptr);
    state_->describe(view);
}

Ticket::Place Park::place(const Ticket& ticket) {
    const std::lock_guard lock(mutex_);
    return ticket.place_;
}

bool Park::is_patient(const Ticket& ticket) {
    const std::lock_guard lock(mutex_);
    return ticket.place_ == Ticket::Place::waiting && ticket.waits_for_home();
}

bool Park::check(std::string* why) {
    const std::lock_guard lock(mutex_);
    return state_->check(nullptr, nullptr, why);
}

bool Park::check(std::span<const Lease* const> leases, std::span<const Ticket* const> waiting,
                 std::string* why) {
    const std::lock_guard lock(mutex_);
    return state_->check(&leases, &waiting, why);
}

// Without a place for wakes: they stay owed, and go out with the next call.
void Park::let_go(Lease& lease) {
    const Hold hold(mutex_, *state_, Time::min(), nullptr);
    state_->let_go(lease, strict_);
}

Admission Park::with_park(Admission&& a, Ticket& ticket) {
    a.lease.park_ = this;
    if (a.kind == Admission::Kind::granted) a.lease.units = std::move(ticket.units);
    return std::move(a);
}

Lease& Lease::operator=(Lease&& other) noexcept {
    if (this == &other) return *this;
    let_go();
    park_ = other.park_;
    work_ = other.work_;
    backend_ = other.backend_;
    generation_ = other.generation_;
    how_ = other.how_;
    had_home_ = other.had_home_;
    units = std::move(other.units);
    other.work_ = nullptr;
    return *this;
}

void Lease::let_go() {
    if (work_) park_->let_go(*this);
}

}  // namespace penstock
