// ClientStream is one request of a client's HTTP/2 connection: a stream of its session, and the client's side
// of one exchange. Its connection outlives it. It is over when its exchange is; the stream, where it is still
// open then, is reset.
#pragma once

#include "codec/h2_session.h"
#include "proxy/exchange.h"
#include "proxy/side.h"

namespace penstock {

class ClientH2;
struct StreamTag;

class ClientStream final : public ClientSide, public H2Stream, public Mortal, public Link<StreamTag> {
  public:
    explicit ClientStream(ClientH2& connection) : connection_(connection) {}
    ~ClientStream();

    // --- for its connection
    void begin(const H2Head& request);  // in poll: makes the exchange, and marks it
    void note_moved(Time sent);         // `sent`: when something of it left; never where nothing did
    void note_closed(H2Error code, bool by_them);  // the stream is gone
    void leave();                                  // the connection is

    // ClientSide
    void wake(Time now) override;
    void cancel(Cause cause, Time now) override;
    void ended(Time now) override;
    Time last_sent() const override { return last_sent_; }

    void reap() override;

  private:
    void write_interims();
    void write_head(Time now);
    void answer_nobody();
    void mark();
    void let_go();

    ClientH2& connection_;
    Exchange* exchange_ = nullptr;
    Time last_sent_{};
    bool continued_ = false;  // 100 Continue went out
    bool omit_body_ = false;  // HEAD, 204, 304
    bool refused_ = false;    // nghttp2 has reset it: what it is answered is for the log alone
};

}  // namespace penstock
