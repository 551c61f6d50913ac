// A Connection is our end of a wire to a simulated worker, and the lease of what runs on it: the backend's
// side of an exchange, as proxy/backend_h1 is over a socket. It follows the same story,
//
//     dialing ──> busy ──> idle (in the pool) ──> busy ...
//        │          └────> abandoned ──> idle or closed
//        └───────────────> closed
//
// and the same phases: events only fill and mark, what ends is buried, reap frees.
#pragma once

#include "base/turn.h"
#include "http/rules.h"
#include "policy/admission.h"
#include "proxy/side.h"
#include "wire.h"

namespace penstock {
class Exchange;
class LiveUpstream;
}  // namespace penstock

namespace penstock::sim {

class SimLoop;
class World;

class Connection final : public Task, public Mortal, public BackendSide {
  public:
    Connection(SimLoop& loop, LiveUpstream& upstream, BackendId backend, uint32_t generation);
    ~Connection();

    BackendId backend() const { return backend_; }
    size_t process() const { return process_; }  // its number
    uint32_t generation() const { return generation_; }
    const Lease& lease() const { return lease_; }
    bool is_idle() const { return state_ == State::idle; }
    bool is_wanted() const { return exchange_ != nullptr; }
    bool is_usable() const;
    Time idle_since() const { return idle_since_; }
    std::string_view state() const;

    void dial();
    void bind(Exchange& exchange, Lease&& lease);
    void close_idle(bool told);
    void close_taken() { close(); }
    void let_go_of_wire();  // its slab frees it

    size_t index = 0;  // in its loop's list

    void fill();  // poll: something has arrived
    void run(Time now) override;
    void reap() override;

    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    Time last_sent() const override { return last_sent_; }
    void release(Time now) override;
    Remains take_remains(bool tries_fresh, Time now) override;

  private:
    enum class State : uint8_t { dialing, busy, idle, abandoned, closed };

    void read_response();
    bool read_interims();
    bool read_head();
    void read_body();
    void judge_end();
    void fail(Cause cause);
    void resume();
    void write_head();
    void write_body();
    void send();
    void shut();
    void abandon(Outcome so_far, Time now);
    void abandoned_work_is_over(Outcome outcome, Time now);
    bool may_be_pooled() const;
    void pool_or_close(const Ended& ended, bool wanted, Time now);
    void close();
    bool connecting() const { return wire_->dial_arrived != Wire::Dial::accepted; }
    bool ended() const { return wire_->end_arrived != Wire::End::none; }
    bool is_dead() const { return wire_->end_arrived == Wire::End::reset; }

    World& world_;
    SimLoop& loop_;
    LiveUpstream& upstream_;
    const BackendId backend_;
    const uint32_t generation_;
    const size_t process_;
    Wire* wire_;
    Deadline deadline_;  // pool.idle
    Exchange* exchange_ = nullptr;
    Lease lease_;
    Framing framing_;
    Asked asked_;
    Time idle_since_{};
    Time last_sent_{};
    uint64_t read_ = 0;  // of the answer's body
    uint32_t served_ = 0;
    uint8_t interims_read_ = 0;
    Outcome outcome_ = Outcome::answered;  // of its answer, when that is complete
    State state_ = State::dialing;
    bool paused_ = false;
    bool reading_head_ = true;
    bool response_complete_ = false;
    bool request_complete_ = false;
    bool broken_ = false;
};

}  // namespace penstock::sim
