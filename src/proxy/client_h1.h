// ClientH1 is one connection of a client that speaks HTTP/1: it reads requests, one exchange at a time, and
// writes their responses in order. It outlives its exchange's use of it; it frees itself in reap.
//
//     head ──> exchange ──> (rest of the body thrown away) ──> head ... ──> finishing ──> closed
//
// While an exchange runs, further requests stay in the socket and at most one chunk; after a head that asks
// for an upgrade nothing is read until the final head has decided.
#pragma once

#include "base/turn.h"
#include "codec/h1_reader.h"
#include "net/channel.h"
#include "proxy/client_origin.h"
#include "proxy/exchange.h"
#include "proxy/side.h"

namespace penstock {

class DataLoop;

class ClientH1 final : public ChannelUser, public Mortal, public ClientSide {
  public:
    ClientH1(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin);
    ClientH1(DataLoop& loop, Channel& from,
             ClientOrigin&& origin);  // goes on with another session's connection
    ~ClientH1();

    // Idle ones go now, others after their exchange.
    void drain();
    void stop_now();
    // The connection itself breaks a rule: it is answered once, and closed. In advance, instead of any
    // request.
    void refuse_connection(Rule rule) { refuse(Cause::bad_request, rule); }
    bool has_connection() const { return channel_.is_open(); }  // false: another session has taken it over

    // Channel and task
    void fill() override;
    void run(Time now) override;
    void reap() override;

    // ClientSide
    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    void ended(Time now) override;
    Time last_sent() const override { return channel_.last_sent(); }

  private:
    ClientH1(DataLoop& loop, ClientOrigin&& origin);

    enum class State : uint8_t {
        head,       // of a request
        exchange,   // one runs
        skipping,   // the rest of a refused request's body
        finishing,  // the last response is on its way out
        cutting,    // what there is of a broken one is, then a reset
        closed,     // buried
    };
    enum class Framed : uint8_t { by_length, chunked, by_close };  // the response, as we write it

    void fill_head();
    bool is_http2() const;
    void fill_body();
    void begin_exchange(const Head& head);
    void refuse(Cause cause, Rule rule);
    void note_end();
    bool is_gone() const;
    void write_interims();
    bool write_head(Time now);
    void write_body();
    void write_end();
    bool keeps_connection() const;
    void next_request(Time now);
    void finish(Time now, bool more_may_come = true);
    void close();
    void count_bytes();

    DataLoop& loop_;
    Channel channel_;
    Deadline deadline_;  // idle, header, finishing: while no exchange runs
    H1RequestReader reader_;
    H1BodyReader body_reader_;
    Exchange* exchange_ = nullptr;
    uint64_t counted_in_ = 0, counted_out_ = 0;
    State state_ = State::head;
    Framed framed_ = Framed::by_length;
    bool first_ : 1 = true;       // no request was served yet
    bool keep_ : 1 = false;       // the connection goes on after this response
    bool omit_body_ : 1 = false;  // HEAD, 204, 304
    bool http10_ : 1 = false;
    bool continued_ : 1 = false;     // 100 Continue went out
    bool looked_ : 1 = false;        // for a reset, when the exchange began to wait
    bool header_clock_ : 1 = false;  // a head has begun
    ClientOrigin origin_;
};

}  // namespace penstock
