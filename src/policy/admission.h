// The Park: queues, slots, connections and devices of every upstream that has a limit, behind the one mutex
// of the data path. A request waits for the pool, before a backend is chosen; a slot that comes free goes to
// the next ticket in the same call that freed it, and only a wake travels.
//
// One per process, owned by Server, used by all loops; it outlives every ticket and lease. Each call is one
// short hold: no I/O, no allocation in steady state, at most 32 grants or refusals. Time comes in with each
// call (an earlier `now` than one seen before counts as that one). Wakes go out in the caller's array.
//
//     a = park.peek(upstream, length, deadline, now)      at the head: is it refused now?
//     a = park.admit(ticket, now, wakes)                  granted: a.lease. Waiting: arm a.wait_until
//     a = park.collect(ticket, now, wakes)                at each wake, and when that timer fires
//     lease.how()                                         reuse, dial, or wait: connect() after its wake
//     park.run(lease, now)                                before the first byte goes out
//     park.finish(lease, {answered, idle}, now, wakes)    proof that the work is over
//     park.abandon(lease, drain, wake, now, wakes)        or nobody wants it, and the worker may still be
//                                                         at it: finish() when it has ended
//
// The surprising thing: no timeout gives a slot back. Work that nobody waits for holds its slot until the
// worker has ended it, or tick() has had the worker restarted.
//
// Behind the lock is park_state.h: tickets in park_queue.cc, leases and abandoned work in park_ledger.cc,
// backends in park_backends.cc, permits for connections in park_connections.cc, what is always true in
// park_check.cc, the circuit breaker and retries in park_circuit.cc. This file's calls only lock, and say
// what time it is.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "policy/park_rules.h"
#include "policy/ticket.h"

namespace penstock {

struct ParkState;

// How work ended. Only the first two may be said of a lease that was not run.
enum class Outcome : uint8_t {
    unused,          // nothing was sent
    connect_failed,  // nothing was sent: the backend is Suspect
    answered,        // a complete response
    full,        // a complete response that says: come again (429, 503 for being full). Neither good nor bad
    bad_answer,  // complete, but 5xx: counts against the backend (fails a Resting one's probing request)
    gateway_error,  // so, and 502, 503 or 504
    cut,            // the worker ended stream or connection after a part of the answer, or was too slow
    early_close,    // it did so on a fresh connection before any byte of the answer: the backend is Suspect
    stale,          // so on a reused connection: says nothing about the backend
};
// What becomes of the lease's connection, where connections are counted.
enum class Keep : uint8_t {
    idle,     // goes into this loop's pool, if Ended.keep agrees
    closing,  // we close it: connection_closed() follows
    closed,   // is closed, or there is none
};
struct End {
    Outcome outcome = Outcome::unused;
    Keep keep = Keep::closed;
};

// What finish() knows about the work that is over.
struct Ended {
    enum class By : uint8_t {
        owner,        // by this finish()
        worker_exit,  // before: its generation ended
        given_up,     // before: another's server was still at it after its limit
    };
    By by = By::owner;
    bool keep = false;  // pool the connection; else (Keep::idle was said) close it, and connection_closed()
    bool was_abandoned = false;
    Duration held{};    // how long it had the slot
    Duration wasted{};  // of that: after it was abandoned
};

enum class Abandon : uint8_t {
    drain,    // the request was sent in full: the response is read and thrown away, until abandon_limit
    close,    // our write side is shut, read to the end, until abandon_grace
    restart,  // as drain, until abandon_grace
};

// May it be sent again? over_limit, over_budget: when to come back.
struct RetryAnswer {
    RetryVerdict verdict = RetryVerdict::no;
    uint32_t retry_after = 0;
};

enum class Fate : uint8_t { unknown, alive, ended };

class Park {
  public:
    // `strict`: a used lease that is let go without a word is a bug, and asserts.
    Park(unsigned loops, uint64_t seed, bool strict = false);
    ~Park();

    // --- The data path, from any loop.

    // What admit() would say of a new request now; nothing is kept.
    Admission peek(UpstreamId, uint64_t bytes, Time deadline, Time now);
    // Out -> granted (Out again, with the lease), waiting, or refused (Out). A ticket that was admitted
    // before keeps its number, its place and the time that it waited, and is not refused for room.
    Admission admit(Ticket&, Time now, Wakes&);
    // What has become of it. Still waiting: arm wait_until again. Past its queue time: refused. Call it at
    // each wake and when the timer fires; a grant that came meanwhile wins.
    Admission collect(Ticket&, Time now, Wakes&);
    // From anywhere to Out. A grant that was not collected goes to the next in line in the same call.
    void cancel(Ticket&, Time now, Wakes&);

    // After `wait`: how it stands now.
    Connect connect(Lease&, Time now, Wakes&);
    // The pooled connection meant for it is no good (too old, an event on it) and leaves the pool: it is
    // closing.
    Connect redial(Lease&, Time now, Wakes&);
    // From here on the worker may be at work: the slot ends only by proof.
    void run(Lease&, Time now);
    // The work is over; takes the lease. Late calls, after the generation has ended, do nothing.
    Ended finish(Lease&, End, Time now, Wakes&);
    // finish() and admit() in one hold: the ticket is back in its place before the slot is given away.
    Admission retry(Lease&, End, Ticket&, Time now, Wakes&, Ended* = nullptr);
    // Nobody wants the answer any more. The caller keeps the lease, watches the connection and says finish();
    // `to` is woken when is_over() turns true before that. A lease that was not run is finished as unused.
    // `so_far`: what the try says about its backend already, as the rest of it says nothing: `cut` if it was
    // given up as too slow, the status of an answer that was dropped, `unused` where nothing is the
    // backend's.
    void abandon(Lease&, Abandon, Wake to, Time now, Wakes&, Outcome so_far = Outcome::unused);
    bool is_over(const Lease&);

    // This try of the ticket's request failed. `again`: it is one of the upstream's retries from here on,
    // until an answer to it has begun, or cancel().
    RetryAnswer may_retry(Ticket&, const FailedTry&, Time now);
    void retry_answered(Ticket&, Time now);
    // What has become of the worker that a request was sent to and whose connection broke.
    Fate fate(BackendId, uint32_t generation);

    // A pooled connection is no good any more and leaves the pool: it is closing.
    void idle_ended(BackendId, uint32_t generation, uint16_t loop, Time now, Wakes&);
    // One that was closing, for whatever reason: its descriptor is closed.
    void connection_closed(BackendId, uint32_t generation, Time now, Wakes&);
    // At a wake for the loop: close these.
    Trims idle_to_close(uint16_t loop, Time now);

    // Goes on where a call stopped with `more`.
    void resume(Time now, Wakes&);

    // --- The main thread.

    UpstreamId add_upstream(const UpstreamRules&);
    bool has_place(UpstreamId, Time now);                                      // for one more backend
    BackendId add_backend(UpstreamId, const BackendRules&, Time now, Wakes&);  // Down; news bring it up
    DeviceId add_device(uint32_t slots);
    // Live: what was lowered evicts nobody, what was raised is used at once.
    void set_rules(UpstreamId, const UpstreamRules&, Time now, Wakes&);
    void set_rules(BackendId, const BackendRules&, Time now, Wakes&);
    void set_device(DeviceId, uint32_t slots, Time now, Wakes&);
    // Drains it for good: tick() says stop (of a worker), later forget. An upstream refuses from now on.
    void remove_backend(BackendId, Time now, Wakes&);
    void remove_upstream(UpstreamId, Time now, Wakes&);
    // Frees it; false if something refers to it still.
    bool forget(BackendId);
    bool forget(UpstreamId);

    void backend_event(BackendId, const BackendNews&, Time now, Wakes&);
    // A slot for a probe of a Ready, Suspect or Resting backend; an empty lease if there is none: skip it.
    // Its result comes as news; the lease ends with finish().
    Lease probe(BackendId, Time now);
    // After an empty one: has an idle connection closed if nothing else stands in the way. True: ask again
    // soon.
    bool make_room_for_probe(BackendId, Time now, Wakes&);
    // When its oldest work that a backend may be at (abandoned work, too) began; never: there is none.
    Time oldest_work(BackendId, uint32_t generation);
    // We stop: who would start after `deadline` is refused.
    void drain(Time deadline, Time now, Wakes&);
    // What comes with time. Call it at the returned time (a second from now, at the latest) and at
    // wakes.main.
    Time tick(Time now, Wakes&, Actions&);
    BackendChanges changes();  // since the last call; wakes.main comes with new ones

    // --- Reading.

    Serving serving(UpstreamId id) const {  // without the lock
        return serving_[static_cast<size_t>(id)].load(std::memory_order_relaxed);
    }
    void describe(ParkView&, Time now);  // numbers of one moment
    // Recounts everything. With the leases and waiting tickets found by walking the loops, they must be the
    // same.
    bool check(std::string* why = nullptr);
    bool check(std::span<const Lease* const> leases, std::span<const Ticket* const> waiting,
               std::string* why);
    // For checks; its owner asks with collect().
    Ticket::Place place(const Ticket&);
    bool is_patient(const Ticket&);  // it waits for its home alone

  private:
    friend class Lease;
    void let_go(Lease&);
    Admission with_park(Admission&&, Ticket&);

    const bool strict_;
    std::mutex mutex_;
    std::array<std::atomic<Serving>, max_upstreams> serving_{};
    const std::unique_ptr<ParkState> state_;
};

}  // namespace penstock
