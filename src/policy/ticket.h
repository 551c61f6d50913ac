// What an exchange and the park hand each other: a Ticket is a place in an upstream's queue, a Lease is one
// slot on one backend of one worker generation, a Wake says "ask the park again" to whoever owns either.
//
//     admit ──> granted: here is a Lease          Lease:  Held ── run ──> Running ── proof ──> Over
//       │                                                   │                │
//       ├─────> waiting ── wake or timer ── collect         └─ dropped ──> Over   └─ not wanted ──> Abandoned
//       └─────> refused: reason, Retry-After
//
// A Ticket lives inside its exchange; the park links it into its queue, so it must be Out (cancelled or
// collected) before it dies. The Park outlives every lease. The surprising thing: letting go of a lease that
// was used does not give its slot back. Only proof that the work is over does; see Park::finish.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/list.h"
#include "base/slab.h"
#include "base/time.h"
#include "policy/breaker.h"
#include "policy/key_units.h"

namespace penstock {

class Park;

// Numbers that the park gives. They stay the same until the thing is forgotten, then may be used again.
enum class UpstreamId : uint16_t { none = UINT16_MAX };
enum class DeviceId : uint16_t { none = UINT16_MAX };
struct BackendId {
    UpstreamId upstream = UpstreamId::none;
    uint16_t index = 0;  // among the backends of its upstream
    bool operator==(const BackendId&) const = default;
};

constexpr size_t max_upstreams = 1024;
constexpr size_t max_backends = 1024;  // of one upstream

// The last few backends of one upstream that were added. A ticket that has tried so many may try the first
// one again: a set of all would be a large part of an exchange.
class BackendSet {
  public:
    static constexpr size_t capacity = 15;

    void add(size_t index) {
        if (has(index)) return;
        items_[added_ % capacity] = static_cast<uint16_t>(index);
        if (++added_ == 2 * capacity) added_ = capacity;  // full, and at its start again
    }
    bool has(size_t index) const {
        for (size_t i = 0; i < added_ && i < capacity; ++i)
            if (items_[i] == index) return true;
        return false;
    }
    bool empty() const { return added_ == 0; }

  private:
    std::array<uint16_t, capacity> items_{};
    uint8_t added_ = 0;
};

// "Ask the park": collect() for a ticket, connect() or is_over() for a lease. Carries nothing, and may be
// lost or doubled: the park sends it again until it is answered. Without a handle it is for the loop itself,
// which then calls idle_to_close().
struct Wake {
    uint16_t loop = 0;
    Handle to;
    bool for_loop() const { return to.slot == Handle{}.slot; }
};

// Filled by a call, posted by the caller once the call has returned (and so unlocked).
struct Wakes {
    static constexpr size_t capacity = 32;

    Wakes() {}  // leaves `items` as they are
    std::array<Wake, capacity> items;
    size_t count = 0;
    bool more = false;  // the call stopped at its bound: post these, then call Park::resume with a fresh one
    bool main = false;  // the main thread should call tick(): it has something to do, or a nearer deadline

    const Wake* begin() const { return items.data(); }
    const Wake* end() const { return items.data() + count; }
};

// Why the park refuses; to_string gives the x-penstock-reason of each.
enum class Refusal : uint8_t {
    none,
    queue_full,
    queue_timeout,
    no_backend,
    circuit_open,
    draining,
    request_timeout
};
std::string_view to_string(Refusal);

struct OwedTag;
struct QueueTag;
struct WorkTag;
struct AbandonedTag;
struct PermitTag;

// Somebody to be woken, until he has asked.
struct Owed : Link<OwedTag> {
    Wake wake;
    Time woken_at{};
};

class Ticket : Link<QueueTag>, Owed {
  public:
    enum class Place : uint8_t { out, waiting, granted, refused };

    // The owner sets these while the ticket is Out, and leaves them alone until it is Out again.
    UpstreamId upstream = UpstreamId::none;
    uint64_t bytes = 0;     // of its body that wait with it
    Time deadline = never;  // of the request as a whole
    BackendSet excluded;    // tried already: waits a while for any other, as long as another one is Ready
    uint64_t key = 0;       // a hash of what it belongs to (UpstreamRules::affinity): names its home. 0: none
    bool fresh = false;     // wants a new connection, not a pooled one
    KeyUnits units;         // go with each lease that it gets, come back with retry(); given back by cancel()
    void set_wake(Wake to) { wake = to; }
    Handle wake_handle() const { return wake.to; }

  private:
    friend class Park;
    template <class, class>
    friend class List;
    friend struct ParkState;

    bool is_patient() const { return patient_until_ != Time::min(); }
    bool waits_for_home() const { return is_patient() && excluded.empty(); }
    bool is_restricted() const { return !excluded.empty() || is_patient(); }

    Place place_ = Place::out;
    bool is_retry_ = false;  // one of its upstream's retries: until retry_answered() or cancel()
    Refusal refusal_ = Refusal::none;
    uint16_t home_ = 0;                 // index of its home's backend, as things were at home_of_
    uint32_t home_of_ = 0;              // a ParkUpstream::version; 0: not looked for yet
    Time patient_until_ = Time::min();  // waits for its home, or for one that it has not tried; min: for any
    uint64_t number_ = 0;               // order of arrival; kept over retries; 0: never admitted
    Duration waited_serving_{};  // while the upstream was Serving, over all its waits; while it waits: where
    Duration waited_coming_{};   // the upstream's clock stood when it would have been zero. So for Coming.
    struct Work* work_ = nullptr;  // granted
};

// What to do for a connection.
enum class Connect : uint8_t {
    free,   // connections are not counted here (HTTP/2): as the pool likes
    reuse,  // take an idle one of this loop's pool; the park counted it out for you
    dial,   // open one
    wait,   // no permit: an idle one elsewhere is being closed first. A wake comes; then connect() again
    lost,   // the worker's generation has ended: finish(unused), admit again
};

// Move-only. Its destructor abandons what was used (a test's park calls it an error) and drops what was not.
class Lease {
  public:
    Lease() = default;  // holds nothing
    Lease(Lease&& other) noexcept { *this = static_cast<Lease&&>(other); }
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { let_go(); }

    explicit operator bool() const { return work_; }
    BackendId backend() const { return backend_; }
    uint32_t generation() const { return generation_; }
    Connect how() const { return how_; }         // as last told by collect(), connect() or redial()
    bool had_home() const { return had_home_; }  // by_name: its key's home was Ready, this one or a busy one

    KeyUnits units;  // given back when the lease is over

  private:
    friend class Park;
    friend struct ParkState;
    void let_go();

    Park* park_ = nullptr;
    Work* work_ = nullptr;  // the park's: only touched under its lock
    BackendId backend_;
    uint32_t generation_ = 0;
    Connect how_ = Connect::wait;
    bool had_home_ = false;
};

// The park's answer to admit, collect, retry and (without lease) peek.
struct Admission {
    enum class Kind : uint8_t { granted, waiting, refused };

    Kind kind = Kind::refused;
    Refusal refusal = Refusal::none;
    CircuitLimit limit = CircuitLimit::none;
    uint32_t retry_after = 0;  // seconds, of a refusal
    Time wait_until = never;   // waiting: when to collect() if no wake came before
    Lease lease;
};

}  // namespace penstock
