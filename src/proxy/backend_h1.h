// BackendH1 is one connection to a backend that speaks HTTP/1, and the lease of what runs on it.
//
//     dialing ──> busy ──> idle (in the pool) ──> busy ...
//        │          └────> abandoned: no exchange; the lease ends by proof ──> idle or closed
//        └───────────────> closed
//
// Bound to an exchange it is that exchange's backend side. When the exchange does not want the answer any
// more it stays behind with the lease, reads the response and throws it away, or shuts its writing side and
// reads to the end: only then is the slot free. It frees itself in reap.
#pragma once

#include "base/turn.h"
#include "codec/h1_reader.h"
#include "net/channel.h"
#include "policy/admission.h"
#include "proxy/side.h"
#include "proxy/stats.h"

namespace penstock {

class Backend;
class DataLoop;
class Exchange;
class LiveUpstream;
struct PoolTag;

class BackendH1 final : public ChannelUser, public Mortal, public Link<PoolTag>, public BackendSide {
  public:
    BackendH1(DataLoop& loop, LiveUpstream& upstream, BackendId backend, uint32_t generation);
    ~BackendH1();

    BackendId backend() const { return backend_; }
    uint32_t generation() const { return generation_; }
    const Lease& lease() const { return lease_; }
    bool is_usable() const;  // of an idle one: nothing came or ended since it was pooled
    Time idle_since() const { return idle_since_; }

    int dial(const SocketAddress& address, Time now);  // errno, 0 where it is under way
    void bind(Exchange& exchange, Lease&& lease);
    // An idle one leaves the pool and is closed. `told`: the park asked for it, and counts it as closing.
    void close_idle(bool told);
    void close_taken() { close(); }  // taken from the pool, and no good: the park was told
    void close_uncounted();          // the dial failed at once: the park never counted it
    bool is_counted() const { return counted_; }
    void stop_now();

    void fill() override;
    void run(Time now) override;
    void reap() override;

    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    Time last_sent() const override { return channel_.last_sent(); }
    void release(Time now) override;
    Remains take_remains(bool tries_fresh, Time now) override;

  private:
    enum class State : uint8_t { dialing, busy, idle, abandoned, closed };

    void read_response();
    bool read_head();
    void read_body();
    void fail(Cause cause);
    void response_done();
    void ended_by_backend();
    bool write_head();
    void write_body();
    void abandon(Cause cause, Outcome so_far, Time now);
    void abandoned_work_is_over(Outcome outcome, Time now);
    bool may_be_pooled() const;
    void pool_or_close(const Ended& ended, bool wanted, Time now);
    void close();
    void count_bytes();

    DataLoop& loop_;
    LiveUpstream& upstream_;
    const BackendId backend_;
    const uint32_t generation_;
    Channel channel_;
    SocketAddress dialed_;
    Deadline deadline_;  // dialing: try again; idle: pool.idle
    H1ResponseReader reader_;
    H1BodyReader body_reader_;
    Exchange* exchange_ = nullptr;
    Lease lease_;
    Framing framing_;  // of the response that is read
    Asked asked_;
    Outcome outcome_ = Outcome::answered;  // of the answer, once it is complete
    Cause abandoned_for_ = Cause::none;
    ModelLabel model_ = ModelLabel::none;
    uint32_t served_ = 0;
    uint64_t counted_in_ = 0, counted_out_ = 0;
    Time idle_since_{};
    uint32_t events_when_pooled_ = 0;
    State state_ = State::dialing;
    bool reading_head_ = true;
    bool response_complete_ = false;
    bool request_complete_ = false;  // sent in full
    bool chunked_ = false;           // how the request's body is written
    bool broken_ = false;            // what it sends cannot be understood any more
    bool counted_ = true;            // the park must hear when it is closed
};

}  // namespace penstock
