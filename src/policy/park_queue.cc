// Tickets: who waits, who is next, who is refused.
#include <algorithm>
#include <cassert>

#include "policy/park_state.h"

namespace penstock {

constexpr unsigned decisions_per_call = 32;  // bounds the hold: a grant is some tens of nanoseconds
constexpr Duration remind_after = 100ms;
constexpr Duration shortest_patience = 1s;

void ParkState::at(Time t) {
    now = std::max(now, t);
    decisions = 0;
    if (now < armed) return;
    // Something may have come with time. Until tick() does, every call looks everywhere.
    main_wanted = main_wanted || !overdue;
    overdue = true;
    for (auto& u : upstreams)
        if (u) mark(*u);
}

Admission ParkState::peek(UpstreamId id, uint64_t bytes, Time deadline) {
    ParkUpstream& u = upstream(id);
    if (!dirty.empty()) dispatch();
    const bool waits = u.unrestricted > 0 || !is_open(u);
    if (Refusal r = refused_now(u, waits, u.waiting, deadline, {}); r != Refusal::none) return refusal(u, r);
    if (waits && !has_room(u, bytes)) return no_room(u);
    Admission a;
    a.kind = waits ? Admission::Kind::waiting : Admission::Kind::granted;
    return a;
}

Admission ParkState::admit(Ticket& t) {
    assert(t.place_ == Ticket::Place::out);
    ParkUpstream& u = upstream(t.upstream);
    const bool is_new = t.number_ == 0;
    // What an earlier call left at its bound goes first. One that comes back (retry) stands before them.
    if (is_new && !dirty.empty()) dispatch();
    t.patient_until_ = is_new ? patience_end(u, t) : Time::min();  // who was at its home once goes anywhere
    if (!t.excluded.empty()) t.patient_until_ = elsewhere_until(u, t);
    bool waits = (is_new && u.unrestricted > 0) || !can_place(u, t);
    if (is_new && waits && t.is_patient() && !has_room(u, t.bytes)) {  // rather anywhere than refused
        stop_being_patient(u, t);
        waits = u.unrestricted > 0 || !can_place(u, t);
    }
    const Refusal r = refused_now(u, waits, is_new ? u.waiting : 0, t.deadline, t.waited_coming_);
    if (r != Refusal::none) return refusal(u, r);
    if (is_new && waits && !has_room(u, t.bytes)) return no_room(u);
    if (is_new) t.number_ = ++last_number;
    enter_queue(u, t);
    mark(u);
    dispatch();
    return collect(t);
}

Admission ParkState::collect(Ticket& t) {
    ParkUpstream& u = upstream(t.upstream);
    t.Link<OwedTag>::unlink();
    if (t.place_ == Ticket::Place::waiting && t.is_patient() && t.patient_until_ <= now) {
        stop_being_patient(u, t);
        mark(u);
        dispatch();
        t.Link<OwedTag>::unlink();
    }
    Admission a;
    switch (t.place_) {
        case Ticket::Place::granted:
            a.kind = Admission::Kind::granted;
            take(t, a.lease);
            break;
        case Ticket::Place::waiting:
            a.kind = Admission::Kind::waiting;
            a.wait_until = wait_until(u, t);
            if (a.wait_until > now) break;
            leave_queue(u, t);
            t.place_ = Ticket::Place::out;
            a = refusal(u, u.serving == Serving::coming ? Refusal::no_backend : Refusal::queue_timeout);
            break;
        case Ticket::Place::refused:
            t.place_ = Ticket::Place::out;
            a = refusal(u, t.refusal_);
            break;
        case Ticket::Place::out: assert(!"collect: the ticket is not in the park"); break;
    }
    return a;
}

void ParkState::cancel(Ticket& t) {
    t.Link<OwedTag>::unlink();
    retry_answered(t);
    if (t.place_ == Ticket::Place::waiting) leave_queue(upstream(t.upstream), t);
    if (t.place_ == Ticket::Place::granted) {
        Work& work = *t.work_;
        end_work(work, Ended::By::owner, false);
        free_work(work);
        t.work_ = nullptr;
    }
    t.place_ = Ticket::Place::out;
}

void ParkState::drain(Time deadline) {
    draining = true;
    drain_deadline = deadline;
    for (auto& u : upstreams)
        if (u) mark(*u);
}

// All granting and refusing of waiting tickets is here. Among the upstreams that something has changed for,
// the oldest ticket that could go goes first: they may share a device.
void ParkState::dispatch() {
    while (!dirty.empty() && decisions < decisions_per_call) {
        ParkUpstream* of_oldest = nullptr;
        Ticket* oldest = nullptr;
        for (ParkUpstream *u = dirty.front(), *next; u; u = next) {
            next = dirty.next(*u);
            Ticket* t = next_to_place(*u);
            if (!t && !refuse_one(*u)) u->Link<DirtyTag>::unlink();
            if (decisions == decisions_per_call) return;
            if (t && (!oldest || t->number_ < oldest->number_)) oldest = t, of_oldest = u;
        }
        if (!oldest) continue;
        const ParkUpstream& u = *of_oldest;
        const bool hopeless = u.rules.refuse_hopeless && u.mean_hold.has_samples() &&
                              oldest->deadline - u.mean_hold.value() < now;
        if (hopeless)
            refuse(*of_oldest, *oldest, Refusal::request_timeout);
        else
            grant(*of_oldest, *oldest);
    }
}

// Those who cannot be placed and need not wait. One a call; true if there was one.
bool ParkState::refuse_one(ParkUpstream& u) {
    if (u.queue.empty()) return false;
    if (u.serving == Serving::none) return refuse(u, *u.queue.front(), Refusal::no_backend), true;
    if (!draining || now + expected_wait(load(u, u.waiting - 1)) <= drain_deadline) return false;
    return refuse(u, *u.queue.back(), Refusal::draining), true;
}

void ParkState::post(Wakes& wakes) {
    while (wakes.count < Wakes::capacity) {
        if (Owed* owed = unsent.pop_front()) {
            wakes.items[wakes.count++] = owed->wake;
            owed->woken_at = now;
            sent.push_back(*owed);
        } else if (!telling.empty()) {
            tell_one(*telling.front());
        } else {
            break;
        }
    }
    wakes.more = !unsent.empty() || !telling.empty() || !dirty.empty();
    wakes.main = wakes.main || main_wanted;
    main_wanted = false;
}

// A wake may be lost: whoever has not asked for a while gets it again. The list is in order of sending.
void ParkState::remind() {
    while (Owed* owed = sent.front()) {
        if (owed->woken_at + remind_after > now) break;
        owe(*owed);
    }
}

// The upstream changed between Serving and Coming, or will be Ready at another time: the deadlines of its
// tickets are others, and some need not wait.
void ParkState::tell_one(ParkUpstream& u) {
    Ticket* t = u.tell;
    u.tell = t ? u.queue.next(*t) : nullptr;
    if (!u.tell) u.Link<TellTag>::unlink();
    if (!t) return;
    wind_clock(u);
    if (u.serving == Serving::coming &&
        cannot_wait_so_long(u, t->deadline, u.coming_time - t->waited_coming_))
        refuse(u, *t, Refusal::no_backend);
    else
        owe(*t);
}

Refusal ParkState::refused_now(ParkUpstream& u, bool waits, uint64_t ahead, Time deadline, Duration waited) {
    if (u.serving == Serving::none) return Refusal::no_backend;
    if (u.serving == Serving::coming && waits && cannot_wait_so_long(u, deadline, waited))
        return Refusal::no_backend;
    const bool hopeless_counts = u.rules.refuse_hopeless && deadline != never && u.mean_hold.has_samples();
    if (!hopeless_counts && !(draining && waits)) return Refusal::none;
    const Time start = waits ? now + expected_wait(load(u, ahead)) : now;
    if (draining && waits && start > drain_deadline) return Refusal::draining;
    if (hopeless_counts && start + u.mean_hold.value() > deadline) return Refusal::request_timeout;
    return Refusal::none;
}

bool ParkState::cannot_wait_so_long(ParkUpstream& u, Time deadline, Duration waited) const {
    const Time ready = now + to_ready(u);
    return ready > deadline || ready > deadline_after(now - waited, u.rules.start_timeout);
}

Admission ParkState::refusal(ParkUpstream& u, Refusal reason, CircuitLimit limit) {
    Admission a;
    a.refusal = reason;
    a.limit = limit;
    count_refusal(u, limit);
    a.retry_after = retry_after(expected_wait(load(u, u.waiting)), random());
    return a;
}

// The queue is full. Why did it come to that: a bound of the circuit breaker, or the backends themselves? The
// bound that is named is the one that refused: where the breaker bounds the queue too, that is this one.
Admission ParkState::no_room(ParkUpstream& u) {
    const bool by_pending = u.rules.max_pending <= u.rules.queue_size && is_met(u, CircuitLimit::pending);
    for (auto& b : u.backends) {
        const Unfit why = b ? unfit(*b) : Unfit::down;
        if (why != Unfit::max_connections && why != Unfit::max_requests) continue;
        const CircuitLimit met =
            why == Unfit::max_connections ? CircuitLimit::connections : CircuitLimit::requests;
        return refusal(u, Refusal::circuit_open, by_pending ? CircuitLimit::pending : met);
    }
    if (u.rules.queue_size == 0 && u.serving == Serving::coming) return refusal(u, Refusal::no_backend);
    return refusal(u, Refusal::queue_full, by_pending ? CircuitLimit::pending : CircuitLimit::none);
}

bool ParkState::has_room(const ParkUpstream& u, uint64_t bytes) const {
    if (u.waiting >= u.rules.queue_bound()) return false;
    return u.rules.queue_bytes == 0 || bytes + u.bytes <= u.rules.queue_bytes;
}

bool ParkState::is_open(const ParkUpstream& u) const {
    return std::ranges::any_of(u.backends, [&](const auto& b) { return b && unfit(*b) == Unfit::fit; });
}

// What a ticket has tried already it avoids while another one is Ready, free or not, and as long as its
// patience lasts; else any will do. That other one may be a backup, where all primaries have been tried.
Avoids ParkState::avoids(const ParkUpstream& u, const Ticket& t) const {
    Avoids what;
    if (t.excluded.empty() || !t.is_patient()) return what;
    bool is_primary = false;
    for (auto& b : u.backends) {
        if (!b || b->state != BackendState::ready || b->restarting || t.excluded.has(b->id.index)) continue;
        what.tried = true;
        is_primary = is_primary || !b->rules.backup;
    }
    what.backups = !(what.tried && !is_primary);
    return what;
}

// So long a ticket waits for a backend that it has not tried: long enough for one of them to finish what it
// is at, and never so long that no time is left for the others.
Time ParkState::elsewhere_until(const ParkUpstream& u, const Ticket& t) const {
    const Duration left = std::min(u.rules.queue_timeout - t.waited_serving_, t.deadline - now);
    return now + std::clamp(left / 2, Duration{}, std::max<Duration>(u.mean_hold.value(), shortest_patience));
}

bool ParkState::can_take(const ParkBackend& b, const Ticket& t, Avoids what) const {
    if (what.tried && t.excluded.has(b.id.index)) return false;
    const Unfit why = unfit(b);
    return why == Unfit::fit || (why == Unfit::backup && !what.backups);
}

bool ParkState::can_place(ParkUpstream& u, Ticket& t) {
    if (t.waits_for_home()) return home_can_take(u, t);
    const Avoids what = avoids(u, t);
    return std::ranges::any_of(u.backends, [&](const auto& b) { return b && can_take(*b, t, what); });
}

Ticket* ParkState::next_to_place(ParkUpstream& u) {
    if (u.queue.empty()) return nullptr;
    bool open = false, backup = false;  // a backup that need not serve: only for who has tried all others
    for (auto& b : u.backends) {
        const Unfit why = b ? unfit(*b) : Unfit::down;
        open = open || why == Unfit::fit;
        backup = backup || why == Unfit::backup;
    }
    if (!open && !(backup && u.waiting > u.unrestricted)) return nullptr;
    for (Ticket* t = u.queue.front(); t; t = u.queue.next(*t))
        if (t->is_restricted() ? can_place(u, *t) : open) return t;
    return nullptr;
}

// A backend whose rest is over returns through one request, and gets it before the policy is asked: that may
// like another one for ever. Who has failed once already is spared, while a Ready one that he has not tried
// can take him; and so is a session that is at home with another, unless nobody else has come for as long as
// the rest was.
ParkBackend& ParkState::choose(ParkUpstream& u, Ticket& t) {
    const Avoids what = avoids(u, t);
    const bool at_home = u.rules.affinity == Affinity::by_name && home(u, t);  // uses the candidates, too
    ParkBackend* returning = nullptr;
    bool is_other = false;
    for (size_t i = 0; i < u.backends.size(); ++i) {
        Candidate& c = u.candidates[i];
        ParkBackend* b = u.backends[i].get();
        c.eligible = b && can_take(*b, t, what);
        if (!c.eligible) continue;
        if (b->state == BackendState::resting) {
            if (!returning) returning = b;
            c.eligible = false;
            continue;
        }
        is_other = true;
        c.weight = share(*b);
        c.in_flight = b->used();
        c.near = !t.fresh && b->idle_on[t.wake.loop] > 0;
    }
    if (returning) {
        const bool is_spared = what.tried || (at_home && returning->until + returning->rest > now);
        if (!is_spared || !is_other) return *returning;
    }
    return *u.backends[static_cast<size_t>(pick_for(u, t))];
}

void ParkState::grant(ParkUpstream& u, Ticket& t) {
    ParkBackend& b = choose(u, t);
    leave_queue(u, t);
    Work& work = begin_work(b, Work::State::granted);
    work.ticket = &t;
    work.wake = t.wake;
    work.fresh = t.fresh;
    work.had_home = u.rules.affinity == Affinity::by_name && home(u, t);
    t.work_ = &work;
    t.place_ = Ticket::Place::granted;
    owe(t);
    ++decisions;
}

void ParkState::refuse(ParkUpstream& u, Ticket& t, Refusal reason) {
    leave_queue(u, t);
    t.place_ = Ticket::Place::refused;
    t.refusal_ = reason;
    owe(t);
    ++decisions;
}

void ParkState::enter_queue(ParkUpstream& u, Ticket& t) {
    wind_clock(u);
    t.waited_serving_ = u.serving_time - t.waited_serving_;
    t.waited_coming_ = u.coming_time - t.waited_coming_;
    t.place_ = Ticket::Place::waiting;
    ++u.waiting;
    u.unrestricted += !t.is_restricted();
    u.bytes += t.bytes;
    // Newcomers go to the end and those who come back to the front, nearly always.
    Ticket* front = u.queue.front();
    if (front && t.number_ < front->number_) return u.queue.push_front(t);
    Ticket* before = u.queue.back();
    while (before && before->number_ > t.number_) before = u.queue.prev(*before);
    if (before)
        u.queue.insert_after(*before, t);
    else
        u.queue.push_back(t);
}

void ParkState::leave_queue(ParkUpstream& u, Ticket& t) {
    wind_clock(u);
    t.waited_serving_ = u.serving_time - t.waited_serving_;
    t.waited_coming_ = u.coming_time - t.waited_coming_;
    if (u.tell == &t) u.tell = u.queue.next(t);
    t.Link<QueueTag>::unlink();
    --u.waiting;
    u.unrestricted -= !t.is_restricted();
    u.bytes -= t.bytes;
}

// A ticket has two clocks, one for the time that its upstream was Serving while it waited and one for Coming.
// Each runs against its own timeout, so that neither a start nor a crash gives anybody more than their sum.
Time ParkState::wait_until(ParkUpstream& u, const Ticket& t) {
    wind_clock(u);
    const bool coming = u.serving == Serving::coming;
    const Duration waited = coming ? u.coming_time - t.waited_coming_ : u.serving_time - t.waited_serving_;
    const Time end = deadline_after(now - waited, coming ? u.rules.start_timeout : u.rules.queue_timeout);
    return t.is_patient() ? std::min(end, t.patient_until_) : end;
}

void ParkState::wind_clock(ParkUpstream& u) {
    if (u.serving == Serving::serving) u.serving_time += now - u.clock_at;
    if (u.serving == Serving::coming) u.coming_time += now - u.clock_at;
    u.clock_at = now;
}

Duration ParkState::to_ready(const ParkUpstream& u) const {
    if (u.serving == Serving::serving) return {};
    Time first = never;
    for (auto& b : u.backends)
        if (b) first = std::min(first, back_at(*b));
    return first == never ? Duration{} : std::max(first - now, Duration{});
}

Load ParkState::load(const ParkUpstream& u, uint64_t ahead) const {
    Load load{.ahead = ahead,
              .slots = 0,
              .mean = u.mean_hold,
              .oldest = {},
              .to_ready = to_ready(u),
              .queue_timeout = u.rules.queue_timeout};
    bool unlimited = false;
    for (auto& b : u.backends) {
        if (!b || b->removed) continue;
        for (const Work* w = b->works.front(); w; w = b->works.next(*w)) {
            if (w->state == Work::State::stuck || w->state == Work::State::probing) continue;
            load.oldest = std::max(load.oldest, now - w->began);
            break;  // they stand in the order of their grants
        }
        if (u.serving == Serving::serving && (b->state != BackendState::ready || b->restarting)) continue;
        uint64_t slots = b->rules.slots;
        if (b->device && b->device->slots)
            slots = std::min<uint64_t>(slots ? slots : UINT64_MAX, b->device->slots);
        unlimited = unlimited || slots == 0;
        load.slots += slots;
    }
    if (unlimited) load.slots = UINT32_MAX;
    if (u.rules.max_requests) load.slots = std::min<uint64_t>(load.slots, u.rules.max_requests);
    if (u.rules.connection_bound()) load.slots = std::min<uint64_t>(load.slots, u.rules.connection_bound());
    return load;
}

uint64_t ParkState::random() {  // splitmix64
    uint64_t z = (seed += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

}  // namespace penstock
