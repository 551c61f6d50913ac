// ClientH2 is one connection of a client that speaks HTTP/2: it feeds the session with bytes, makes a
// ClientStream of each request, and writes what the session has to say, once a turn. It outlives its streams;
// it frees itself in reap, after the last.
//
//     open ──> leaving (the last stream was named) ──> finishing (our last words are on their way out) ──>
//     closed
//
// Its clocks: the first head, a head that has begun, nothing to do, a client that does not read. Those of
// a request are its exchange's.
#pragma once

#include "base/turn.h"
#include "codec/h2_session.h"
#include "net/channel.h"
#include "proxy/client_origin.h"
#include "proxy/client_stream.h"

namespace penstock {

class DataLoop;

class ClientH2 final : public ChannelUser, public Mortal, public Output, public H2User {
  public:
    ClientH2(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin);
    ClientH2(DataLoop& loop, Channel& from, ClientOrigin&& origin);  // goes on with another's connection
    ~ClientH2();

    // What has come is served; the client is told which request was the last.
    void drain();
    void stop_now();
    bool has_connection() const { return channel_.is_open(); }

    // --- for its streams
    DataLoop& loop() { return loop_; }
    H2Session& session() { return session_; }
    ClientInfo client() const { return origin_.info(); }
    void flush_later();
    void removed(ClientStream& stream);

    // Channel and task
    void fill() override;
    void run(Time now) override;
    void flush(Time now) override;
    void reap() override;

    // H2User
    void request(int32_t id, const H2Head& request) override;
    void moved(H2Stream& stream) override;
    void closed(H2Stream& stream, H2Error code, bool by_them) override;
    void answered() override;
    void said_reset(H2Error code) override;
    bool has_room() const override { return channel_.has_room(); }
    void write(std::string_view bytes) override { channel_.write(bytes); }
    void link(const Piece& piece) override { channel_.link(piece); }

  private:
    ClientH2(DataLoop& loop, ClientOrigin&& origin);

    enum class State : uint8_t { open, leaving, finishing, closed };

    Time due() const;
    Time write_due() const;
    void look_for_reset();
    void on_time(Time now);
    void say_last();
    void note_unsent(Time now);
    void finish(Time now);
    void leave_streams();
    void close();
    void count_bytes();

    DataLoop& loop_;
    Channel channel_;
    H2Session session_;
    List<ClientStream, StreamTag> streams_;
    ClientOrigin origin_;
    Deadline deadline_;
    uint64_t counted_in_ = 0, counted_out_ = 0;
    uint64_t looked_at_ = 0;     // bytes read when we last looked for a reset
    Time idle_since_;            // no stream since then
    Time head_began_{};          // the last one
    Time announced_{};           // that we go; never: and who was the last
    Time unsent_since_ = never;  // output waits for the client
    Time finish_by_ = never;     // the client is to have closed
    uint32_t new_streams_ = 0;   // since the last flush
    State state_ = State::open;
    bool served_ = false;   // a request has come
    bool crowded_ = false;  // it opens streams faster than one turn should: the rest waits for the next
    bool flushing_ = false;
    bool goodbye_ = false;  // the channel is to finish, behind what the session has to say
};

}  // namespace penstock
