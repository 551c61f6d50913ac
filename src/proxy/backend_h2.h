// BackendH2 is one connection to a backend that speaks HTTP/2, shared by exchanges of its loop. A
// BackendStream is one request on it, and the lease of that: bound to an exchange it is that exchange's
// backend side.
//
//     connection:  dialing ──> open ──> (idle for pool.idle, or GOAWAY and empty) ──> leaving ──> closed
//     stream:      (waits for the connection) ──> open ──> over
//                                                  └────> abandoned: no exchange; the lease ends by proof
//
// A stream outlives no connection: when that is lost, each is told, and its link cut. Both free themselves in
// reap. What HTTP/2 permits as proof of an abandoned stream's end: its END_STREAM or reset by the worker, the
// connection's end, or, where we reset the stream, the answer to what was asked behind the reset: the worker
// has read then that nobody waits. (In HTTP/1 that is the EOF that follows our half-close.)
//
// A connection can be dead without a word. So whenever a stream is abandoned it is asked whether it still
// reads; as long as it does not say so it gets no new streams, and at abandon_grace it is lost, unless its
// worker is ours: that one may be busy, and is the park's to judge.
#pragma once

#include "base/list.h"
#include "base/turn.h"
#include "codec/h2_session.h"
#include "net/channel.h"
#include "policy/admission.h"
#include "proxy/side.h"
#include "proxy/stats.h"

namespace penstock {

class BackendH2;
class BackendH2Pool;
class DataLoop;
class Exchange;
class LiveUpstream;
struct ConnectionsTag;
struct StreamsTag;

class BackendStream final : public BackendSide,
                            public H2Stream,
                            public Task,
                            public Mortal,
                            public Link<StreamsTag> {
  public:
    BackendStream(DataLoop& loop, BackendH2Pool& pool, LiveUpstream& upstream, BackendH2& connection,
                  Exchange& exchange, Lease&& lease);
    ~BackendStream();

    const Lease& lease() const { return lease_; }
    void stop_now();

    // --- for its connection
    void connection_opened();
    void connection_lost(Cause cause);  // the link is cut
    bool take_head(const H2Head& head);
    void moved();
    void ended(H2Error code, bool by_them);
    void heard(uint64_t number);  // all that was said before this question

    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    Time last_sent() const override;
    void release(Time now) override;
    Remains take_remains(bool tries_fresh, Time now) override;

    void run(Time now) override;
    void reap() override;

  private:
    enum class State : uint8_t { live, abandoned, over };

    void open(Time now);
    void fail(Cause cause);
    void abandon(Cause cause, bool request_sent, Outcome so_far, Time now);
    void abandoned_work_is_over(Outcome outcome, Time now);
    void unbind(Time now);
    void close();
    void note_not_connected();

    DataLoop& loop_;
    BackendH2Pool& pool_;
    LiveUpstream& upstream_;
    BackendH2* connection_;
    Exchange* exchange_;
    Lease lease_;
    Asked asked_;
    uint64_t question_ = 0;  // abandoned and reset: the number of the one behind the reset
    Time last_sent_{};       // once the connection is gone
    Cause abandoned_for_ = Cause::none;
    ModelLabel model_ = ModelLabel::none;
    State state_ = State::live;
    bool ran_ = false;      // the park was told that it runs
    bool ended_ = false;    // the stream is
    bool by_us_ = false;    // which proves nothing
    bool whole_ = false;    // with a complete response
    bool refused_ = false;  // the backend says that it has not looked at it
    bool heard_ = false;    // the backend has read our reset
};

class BackendH2 final : public ChannelUser,
                        public Output,
                        public Mortal,
                        public Link<ConnectionsTag>,
                        public H2User {
  public:
    BackendH2(DataLoop& loop, BackendH2Pool& pool, LiveUpstream& upstream, BackendId backend,
              uint32_t generation);
    ~BackendH2();

    BackendId backend() const { return backend_; }
    uint32_t generation() const { return generation_; }
    int dial(const SocketAddress& address, Time now);  // errno, 0 where it is under way
    bool takes_more() const;                           // another stream
    bool is_open() const { return state_ == State::open; }
    bool was_idle() const { return served_ > 0 && streams_.empty(); }
    void add(BackendStream& stream);
    void remove(BackendStream& stream, Time now);  // its end; the last one's may be the connection's
    H2Session& session() { return session_; }
    // Whether it still reads: the number of the question, which goes out behind all that was said so far.
    uint64_t ask(Time now);
    void retire() { going_away_ = true; }  // no new streams
    void want_flush();
    Time last_sent() const { return channel_.last_sent(); }
    void leave_if_idle();
    void close();

    void fill() override;
    void run(Time now) override;
    void flush(Time now) override;
    void reap() override;

    // H2User
    bool response(H2Stream& stream, const H2Head& response) override;
    void moved(H2Stream& stream) override;
    void closed(H2Stream& stream, H2Error code, bool by_them) override;
    void going_away(int32_t last, H2Error code) override;
    void answered() override;
    void said_reset(H2Error code) override;
    bool has_room() const override { return channel_.has_room(); }
    void write(std::string_view bytes) override { channel_.write(bytes); }
    void link(const Piece& piece) override { channel_.link(piece); }

  private:
    enum class State : uint8_t { dialing, open, leaving, closed };

    void opened();
    void watch();
    bool is_silent(Time now) const;
    void lose(Cause cause);
    void leave();
    void count_bytes();

    DataLoop& loop_;
    BackendH2Pool& pool_;
    LiveUpstream& upstream_;
    const BackendId backend_;
    const uint32_t generation_;
    Channel channel_;
    SocketAddress dialed_;
    Deadline deadline_;  // dialing: try again; open: pool.idle, or an answer's time; leaving: long enough
    H2Session session_;
    List<BackendStream, StreamsTag> streams_;
    size_t stream_count_ = 0;
    uint64_t served_ = 0;     // streams, those that are open too
    uint64_t questions_ = 0;  // that are out, or were
    Time asked_since_ = never;
    Time idle_since_{};
    uint64_t counted_in_ = 0, counted_out_ = 0;
    State state_ = State::dialing;
    bool going_away_ = false;  // the backend said so, or we
    bool broken_ = false;      // what it sends cannot be understood any more
    bool question_waits_ = false;
    bool question_is_out_ = false;
};

}  // namespace penstock
