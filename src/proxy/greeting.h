// A Greeting is what comes on a client's connection before HTTP: the header of a proxy that passes it on, and
// the TLS handshake, each where its listener asks for it. Then it hands the connection over to the session
// that speaks the client's protocol, and frees itself in reap.
//
//     header ──> hello ──> handshake ──> handed over
//        └─────────┴───────────┴──> finishing (an alert is on its way out) ──> closed
//
// All of it has to come within limits.client_header_timeout. Nothing in here answers a request: who speaks
// plain HTTP to a TLS port is handed over to a session that refuses it in clear.
#pragma once

#include "base/turn.h"
#include "net/channel.h"
#include "net/tls.h"
#include "proxy/client_origin.h"

namespace penstock {

class DataLoop;

// What was wrong with a PROXY header.
enum class HeaderFailure : uint8_t { malformed, closed, timeout };
std::string_view to_string(HeaderFailure failure);

class Greeting final : public ChannelUser, public Mortal {
  public:
    Greeting(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin);
    ~Greeting();

    void drain();  // nothing has come: it goes
    void stop_now();
    bool has_connection() const { return channel_.is_open(); }

    void fill() override;
    void run(Time now) override;
    void reap() override;

  private:
    enum class State : uint8_t { header, hello, handshake, finishing, closed };

    bool wait_for_more();  // false: none will come
    void read_header();
    void read_hello();
    void look_at_handshake(Time now);
    void hand_over();
    void fail_header(HeaderFailure failure);
    void fail_tls(TlsFailure failure, std::string_view text);
    void close();

    DataLoop& loop_;
    Channel channel_;
    Deadline deadline_;
    ClientOrigin origin_;
    State state_;
};

}  // namespace penstock
