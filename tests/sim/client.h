// A Client is one simulated client connection, with its session's part of an exchange, as proxy/client_h1 is
// over a socket: it makes exchanges, one at a time, fills their requests at the pace of whoever uploads, and
// drains their responses at the pace of whoever reads. It has bad habits, and may leave at any time.
//
// It lives in its loop's slab; it is buried when it has no exchange any more and wants none.
#pragma once

#include "base/turn.h"
#include "facts.h"
#include "proxy/exchange.h"
#include "proxy/side.h"

namespace penstock::sim {

class SimLoop;
class World;

class Client final : public Task, public Mortal, public ClientSide {
  public:
    Client(SimLoop& loop, uint32_t requests);
    ~Client();

    Exchange* exchange() const { return exchange_; }
    uint32_t number() const { return number_; }  // of its request
    Time since() const { return since_; }        // its request began

    // What the audit remembers of the exchange from one step to the next.
    struct Seen {
        Exchange::Step step = Exchange::Step::arrived;
        Ticket::Place place = Ticket::Place::out;
        Time began = never;
        uint64_t arrival = 0;  // in the order of arrival in the park; 0: has not been there
        bool leased = false;   // it has a lease that it does not use yet
        bool patient = false;  // it waits for its home alone
        Time queued = never;   // since then
        BackendId on;          // where its latest lease is used
        BackendId home;        // that it was granted while it waited for it; of no upstream: none
    };
    Seen seen;
    size_t index = 0;  // in its loop's list

    // --- events, in poll; `number` says for which request
    void ask();
    void upload(uint32_t number);
    void read(uint32_t number);
    void leave(uint32_t number);
    void drain();

    void run(Time now) override;
    void reap() override;
    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    void ended(Time now) override;
    Time last_sent() const override { return last_sent_; }

  private:
    void begin();
    void choose_habits();
    void upload_on();
    void upload_soon(Duration after);
    void fill_body();
    void write_head(Time now);
    void write_body();
    void put_out(uint64_t bytes);
    void next_or_close();
    void close();

    World& world_;
    SimLoop& loop_;
    Exchange* exchange_ = nullptr;
    uint32_t requests_left_;
    uint32_t number_ = 0;
    size_t pool_ = 0;  // of its request
    Time since_{};
    Time last_sent_{};
    bool left_ = false;
    bool closed_ = false;

    // Its request, and how it comes.
    uint64_t body_ = 0;       // bytes in all
    uint64_t uploaded_ = 0;   // so far, into the socket
    uint64_t taken_ = 0;      // out of it, into the exchange
    uint64_t stops_at_ = 0;   // uploads no further
    uint64_t breaks_at_ = 0;  // what comes there is rubbish
    uint64_t up_piece_ = 0;
    Duration up_pause_{};
    bool upload_due_ = false;
    bool paused_ = false;
    bool continued_ = false;

    // The response, and how it goes.
    uint64_t out_ = 0;          // handed to the socket, not read yet
    uint64_t got_ = 0;          // of the body
    uint64_t reads_until_ = 0;  // and no further
    uint64_t down_piece_ = 0;
    Duration down_pause_{};
    uint64_t read_in_all_ = 0;
    bool read_due_ = false;
    bool blocked_ = false;
    bool is_workers_ = false;  // the response, not an answer of penstock's own
};

}  // namespace penstock::sim
