// What is behind the park's lock, and the decisions on it. Nothing here locks: Park takes the mutex, says
// what time it is, calls one function, and lets post() collect the wakes. A call changes things and marks the
// upstreams that this may let go on; dispatch() then does all granting and refusing in one place.
//
// An Upstream outlives its Backends, a Backend its Works. A Work is one used slot: made by a grant, it lives
// as long as the lease that stands for it, beyond the end of the work itself (then it is `over`).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/list.h"
#include "base/slab.h"
#include "policy/admission.h"
#include "policy/outlier.h"
#include "policy/retry_after.h"

namespace penstock {

struct ParkBackend;
struct ParkUpstream;
struct DirtyTag;
struct TellTag;

struct ParkDevice {
    DeviceId id = DeviceId::none;
    uint32_t slots = 0;
    uint32_t used = 0;
    std::vector<ParkUpstream*> users;  // those with a backend on it
};

struct Work : Link<WorkTag>, Link<AbandonedTag>, Link<PermitTag>, Owed {
    // granted: its ticket has not collected it yet.
    enum class State : uint8_t { granted, held, running, draining, closing, stuck, probing, over };
    enum class Connection : uint8_t { none, waiting, dialing, busy };

    bool is_abandoned() const {
        return state == State::draining || state == State::closing || state == State::stuck;
    }
    bool is_live() const {
        return state == State::granted || state == State::held || state == State::running;
    }

    State state = State::granted;
    Connection connection = Connection::none;
    Ended::By by = Ended::By::owner;
    bool had_home = false;
    bool fresh = false;
    bool is_orphan = false;  // its lease was let go: freed when over
    ParkBackend* backend = nullptr;
    uint32_t generation = 0;
    Ticket* ticket = nullptr;  // while granted
    Time began{};              // when it took the slot
    Time abandoned_at = never;
    Time deadline = never;  // of Draining and Closing
    Time ended{};           // over
};

struct ParkBackend {
    uint32_t used() const { return granted + running + abandoned + probing; }
    uint32_t connections() const { return dialing + busy + idle + closing; }
    // Worth keeping a connection to.
    bool keeps_connections() const {
        return !removed && !restarting && (state == BackendState::ready || state == BackendState::resting);
    }
    // Of connections, and so of HTTP/1 requests. 0: none.
    uint32_t connection_bound() const {
        if (rules.slots == 0 || rules.max_connections == 0)
            return std::max(rules.slots, rules.max_connections);
        return std::min(rules.slots, rules.max_connections);
    }
    bool is_member() const;  // its upstream's keys have homes on it
    bool is_generation(uint32_t g) const { return g == generation && state != BackendState::down; }

    BackendId id;
    ParkUpstream* upstream = nullptr;
    ParkDevice* device = nullptr;
    BackendRules rules;
    BackendState state = BackendState::down;
    uint32_t generation = 0;
    Time since{};
    // starting: expected to be ready; suspect: not Ready again before; resting: its end; draining: back at;
    // down: the next start.
    Time until = never;
    Time ready_since{};
    Duration start_took{};
    Duration restart_cost{};
    Duration rest{};  // how long it rests, or did last
    // Resting has two causes: health checks say `unhealthy`, or it is `ejected`, until then. Both can hold.
    bool unhealthy = false;
    bool ejected = false;
    Time ejected_at{};
    Time ejected_until{};
    EjectReason ejected_for = EjectReason::consecutive_5xx;
    OutlierRecord outlier;  // of this generation
    std::array<uint64_t, eject_reasons> ejections{};
    uint64_t kept_by_min_healthy = 0, kept_by_percent = 0;  // ejections that were not
    Time kept_at = Time::min();                             // the last one that was told
    uint32_t failed_connects = 0;                           // in a row
    bool said_alive = false;                                // suspect: Ready at `until`
    bool hopeful = false;                                   // suspect: no probe has failed
    bool suspect_told = false;                              // suspect: it is in the log
    Time suspect_told_at = Time::min();
    Work* trial = nullptr;    // resting: its probing request, until its work is over or has failed
    bool restarting = false;  // until the next generation is Ready
    RestartWhy restart_why = RestartWhy::stuck;
    bool removed = false;

    Action::Kind asked = Action::Kind::probe;
    Time asked_at = never;  // never: nothing is asked

    uint32_t granted = 0, running = 0, abandoned = 0, probing = 0;  // granted: and held
    uint32_t stuck = 0;                                             // of the abandoned
    // What there was when slots were lowered: used only shrinks until it is below the new number.
    uint32_t most_used = 0, most_connections = 0;
    uint32_t references = 0;    // works, over or not
    List<Work, WorkTag> works;  // not over, in the order of their grants

    // Connections of this generation. `closable` of the idle ones are to be trimmed.
    uint32_t dialing = 0, busy = 0, idle = 0, closing = 0, closable = 0, waiting = 0;
    std::vector<uint32_t> idle_on, closable_on;  // by loop
    List<Work, PermitTag> permit_queue;          // `waiting` of them
};

struct ParkUpstream : Link<DirtyTag>, Link<TellTag> {
    uint32_t requests() const { return used - probing; }  // what max_requests bounds

    UpstreamId id = UpstreamId::none;
    UpstreamRules rules;
    Serving serving = Serving::none;
    bool removed = false;

    List<Ticket, QueueTag> queue;  // in order of arrival
    uint32_t waiting = 0;
    uint32_t unrestricted = 0;  // of those
    uint64_t bytes = 0;
    Ticket* tell = nullptr;  // from here on, tickets have not heard that their deadline changed

    std::vector<std::unique_ptr<ParkBackend>> backends;  // holes where one was forgotten
    std::vector<Time> forgotten_at;                      // of each hole
    std::vector<Candidate> candidates;                   // one a backend
    uint32_t version = 0;                                // counts up when homes may be others
    uint64_t member_weight = 0;                          // of those that keys have homes on
    uint32_t used = 0;                                   // slots
    uint32_t probing = 0;  // of those: by health checks, which are nobody's requests
    uint32_t connections = 0;
    bool primary_ready = false;          // a backend that is not a backup is Ready
    ParkBackend* restarting = nullptr;   // the one restart for stuck work that is under way
    List<Work, AbandonedTag> abandoned;  // in the order of abandonment

    // How long it has been Serving and Coming, up to clock_at.
    Duration serving_time{}, coming_time{};
    Time clock_at{};

    MeanHold mean_hold;
    Duration wasted{};

    Time interval_ends = never;            // of outlier detection; never: it has not begun
    std::vector<OutlierRecord*> outliers;  // one a backend: room for find_outliers()
    uint32_t retrying = 0;                 // tickets that are retries
    RetryBudget retry_budget;
    std::array<Breaker, circuit_limits> breakers;     // by CircuitLimit
    std::array<bool, circuit_limits> is_told_open{};  // as the main thread knows it
};

// What a ticket does not take although it is fit.
struct Avoids {
    bool tried = false;   // whom it has excluded
    bool backups = true;  // while a primary is Ready
};

struct ParkState {
    ParkState(unsigned loops, uint64_t seed, std::atomic<Serving>* shown);
    ~ParkState();

    // --- park_queue.cc: tickets
    Admission peek(UpstreamId, uint64_t bytes, Time deadline);
    Admission admit(Ticket&);
    Admission collect(Ticket&);
    void cancel(Ticket&);
    void dispatch();
    void post(Wakes&);
    void remind();
    void at(Time);
    void drain(Time deadline);

    // --- park_ledger.cc: leases and abandoned work
    void take(Ticket&, Lease&);
    void run(Lease&);
    Ended finish(Lease&, End);
    void abandon(Lease&, Abandon, Wake to, Outcome so_far = Outcome::unused);
    bool is_over(const Lease&);
    Lease probe(BackendId);
    bool has_slot_for_probe(const ParkBackend&) const;
    bool make_room_for_probe(BackendId);
    static Time oldest_work(const ParkBackend&);
    Work& begin_work(ParkBackend&, Work::State);
    void end_work(Work&, Ended::By, bool is_sample);  // the slot is free; the lease may still stand for it
    void let_go(Lease&, bool strict);
    void call_stuck(Work&);
    void free_work(Work&);
    void judge(Work&, Outcome);
    void find_stuck(ParkUpstream&, Time& next);
    void restart_stuck(ParkUpstream&, Time& next);

    // --- park_backends.cc
    void backend_event(ParkBackend&, const BackendNews&);
    void set_state(ParkBackend&, BackendState, Time until);
    void suspect(ParkBackend&);
    void make_ready(ParkBackend&);
    void lose_generation(ParkBackend&);
    void give_back_grants(ParkBackend&);
    void settle(ParkUpstream&);  // Serving, Coming or None?
    Time back_at(const ParkBackend&) const;
    bool wants(const ParkBackend&, Action::Kind&) const;
    void ask(ParkBackend&);
    Time tick(Actions&);
    void tick_backend(ParkBackend&, Actions&, Time& next);
    Unfit unfit(const ParkBackend&) const;
    uint32_t cap(const ParkBackend&) const;    // its slots now; 0: no limit
    uint32_t share(const ParkBackend&) const;  // its weight now, x 256
    UpstreamId add_upstream(const UpstreamRules&);
    size_t free_place(const ParkUpstream&) const;
    BackendId add_backend(UpstreamId, const BackendRules&);
    DeviceId add_device(uint32_t slots);
    void set_rules(ParkUpstream&, const UpstreamRules&);
    void set_rules(ParkBackend&, const BackendRules&);
    void set_device(DeviceId, uint32_t slots);
    void find_device_users();
    void remove_upstream(ParkUpstream&);
    void remove_backend(ParkBackend&);
    bool forget(BackendId);
    bool forget(UpstreamId);

    // --- park_outlier.cc: ejection, unhealthiness, and the way back
    void note_try(ParkBackend&, TryResult);
    void eject_if_allowed(ParkBackend&, EjectReason);
    void eject_for(ParkBackend&, EjectReason);
    void rest(ParkBackend&);
    void fail_trial(ParkBackend&);
    void check_trial(ParkBackend&, Time& next);
    void end_rest(ParkBackend&);  // it is Ready again
    void set_unhealthy(ParkBackend&, bool);
    bool has_rested(const ParkBackend&) const;
    void end_interval(ParkUpstream&, Time& next);
    Others others(const ParkBackend&) const;
    void tell_change(BackendChange);

    // --- park_connections.cc
    Connect plan_connection(Work&);
    Connect connect(Lease&);
    Connect redial(Lease&);
    bool settle_connection(Work&, Keep);  // true: keep it
    void idle_ended(ParkBackend&, uint32_t generation, uint16_t loop);
    void connection_closed(ParkBackend&, uint32_t generation);
    Trims idle_to_close(uint16_t loop);
    void serve_permits(ParkUpstream&);
    void trim_all(ParkBackend&);
    void forget_connections(ParkBackend&);
    bool has_permit(const ParkBackend&) const;
    void want_closed(ParkBackend&, size_t loop);
    bool is_wanted_by_another(const ParkBackend&) const;
    void take_idle(ParkBackend&, size_t loop);
    void drop_closable(ParkBackend&, size_t loop);

    // --- park_affinity.cc
    ParkBackend* home(ParkUpstream&, Ticket&);
    bool home_can_take(ParkUpstream&, Ticket&);
    LoadBound load_bound(const ParkUpstream&) const;
    void settle_homes(ParkUpstream&);
    Time patience_end(ParkUpstream&, Ticket&);
    void stop_being_patient(ParkUpstream&, Ticket&);
    int pick_for(ParkUpstream&, Ticket&);  // over u.candidates

    // --- park_circuit.cc: the circuit breaker's limits, and retries
    RetryAnswer may_retry(Ticket&, const FailedTry&);
    void retry_answered(Ticket&);
    Fate fate(BackendId, uint32_t generation);
    void count_refusal(ParkUpstream&, CircuitLimit);
    void settle_breakers(ParkUpstream&, Actions&);
    bool is_met(const ParkUpstream&, CircuitLimit) const;
    CircuitView circuit(const ParkUpstream&, CircuitLimit) const;

    // --- park_check.cc
    bool check(const std::span<const Lease* const>*, const std::span<const Ticket* const>*, std::string* why);
    void describe(ParkView&);

    // --- used by all
    ParkUpstream& upstream(UpstreamId id) { return *upstreams[static_cast<size_t>(id)]; }
    ParkBackend* find(BackendId id) {  // news of what was forgotten meanwhile find nothing
        const auto i = static_cast<size_t>(id.upstream);
        if (i >= upstreams.size() || !upstreams[i] || id.index >= upstreams[i]->backends.size())
            return nullptr;
        return upstreams[i]->backends[id.index].get();
    }
    ParkBackend& backend(BackendId id) { return *upstream(id.upstream).backends[id.index]; }
    void mark(ParkUpstream& u) {
        if (!u.Link<DirtyTag>::is_linked()) dirty.push_back(u);
    }
    void mark_users(const ParkDevice&);
    void owe(Owed& owed) {
        owed.Link<OwedTag>::unlink();
        unsent.push_back(owed);
    }
    void soon(Time t) {  // tick() must come by then
        if (t < armed) armed = t, main_wanted = true;
    }
    uint64_t random();

    // The queue's own.
    Admission refusal(ParkUpstream&, Refusal, CircuitLimit = CircuitLimit::none);
    Refusal refused_now(ParkUpstream&, bool waits, uint64_t ahead, Time deadline, Duration waited_coming);
    bool cannot_wait_so_long(ParkUpstream&, Time deadline, Duration waited_coming) const;
    Admission no_room(ParkUpstream&);
    bool has_room(const ParkUpstream&, uint64_t bytes) const;
    bool is_open(const ParkUpstream&) const;
    bool can_place(ParkUpstream&, Ticket&);
    Avoids avoids(const ParkUpstream&, const Ticket&) const;
    bool can_take(const ParkBackend&, const Ticket&, Avoids) const;
    Time elsewhere_until(const ParkUpstream&, const Ticket&) const;
    Ticket* next_to_place(ParkUpstream&);
    ParkBackend& choose(ParkUpstream&, Ticket&);
    void grant(ParkUpstream&, Ticket&);
    void refuse(ParkUpstream&, Ticket&, Refusal);
    void enter_queue(ParkUpstream&, Ticket&);
    void leave_queue(ParkUpstream&, Ticket&);
    bool refuse_one(ParkUpstream&);
    void tell_one(ParkUpstream&);
    Time wait_until(ParkUpstream&, const Ticket&);
    void wind_clock(ParkUpstream&);
    Load load(const ParkUpstream&, uint64_t ahead) const;
    Duration to_ready(const ParkUpstream&) const;

    const unsigned loops;
    uint64_t seed;
    std::atomic<Serving>* const shown;
    Time now{};
    Time armed = Time::min();  // when tick() will come, as far as we know
    bool overdue = false;      // it has not come then, and was called
    bool main_wanted = false;
    bool draining = false;
    Time drain_deadline = never;
    uint64_t last_number = 0;
    BackendChanges changes;
    unsigned decisions = 0;  // grants and refusals of this call

    std::vector<std::unique_ptr<ParkUpstream>> upstreams;  // holes where one was forgotten
    std::vector<std::unique_ptr<ParkDevice>> devices;
    Slab<Work> works;
    List<ParkUpstream, DirtyTag> dirty;
    List<ParkUpstream, TellTag> telling;
    List<Owed, OwedTag> unsent, sent;    // who must be woken; who was, and has not asked yet
    std::unique_ptr<Owed[]> loop_wakes;  // of the loops themselves
};

}  // namespace penstock
