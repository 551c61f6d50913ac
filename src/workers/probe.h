// A Probe asks one address one question: does it accept a connection, does a GET of a path answer as
// expected, does a gRPC service say that it serves? One at a time, used again and again: to see whether a
// starting worker is ready, whether a suspect one is alive, for health checks. The owner is marked when the
// outcome is there.
//
// Every connection it opens says something at once and is closed before the outcome is told: many GPU servers
// serve one connection at a time, and a silent one would block them. The answer is read to its end where
// it has one (64 KiB at most), so that no server finds its own answer cut off.
#pragma once

#include <event2/event_struct.h>
#include <memory>
#include <optional>
#include <string>

#include "base/address.h"
#include "base/time.h"
#include "codec/h1_reader.h"
#include "net/loop.h"
#include "net/tls_client.h"
#include "workers/descriptor.h"
#include "workers/h2_check.h"

namespace penstock {

class Probe final : Task {
  public:
    struct Question {
        Address address;
        std::string path = {};  // empty: only whether it accepts
        uint16_t expect = 0;    // the status; 0: any 2xx
        Duration timeout = 1s;
        std::shared_ptr<const TlsClient> tls = {};  // null: in clear
        std::string host = {};                      // that its certificate must be for
        std::optional<std::string> grpc = {};  // instead of a path: the service, empty for the whole server
        bool http2 = false;                    // the path is asked for over HTTP/2
    };
    struct Outcome {
        bool is_good = false;
        bool is_slow = false;   // nothing came in time, at whatever step
        bool accepted = false;  // the connection; also where the answer was no good
        // Somebody is there and has no time for us: no answer in time, or its backlog is full (which is good
        // enough where no answer was asked for).
        bool is_busy = false;
        std::string text;  // what happened: "connect: Connection refused", "GET /ready -> 503"
    };

    Probe(Loop& loop, Task& owner);
    ~Probe();
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;

    void ask(Question question);
    void cancel();  // the owner is not marked
    bool is_asking() const { return step_ != Step::idle; }
    // Once it is asking no more.
    const Outcome& outcome() const { return outcome_; }

  private:
    enum class Step : uint8_t { idle, connecting, handshake, sending, head, body, checking };

    void run(Time now) override;
    static void on_event(int, short, void* self);
    void wait_for(short what);
    void time_is_up();
    void connected();
    void shake_hands();
    void begin();
    ssize_t put(std::string_view bytes);
    ssize_t take(char* into, size_t room);
    bool send_sealed();
    void send();
    void receive();
    void read_head();
    void read_body(std::string_view bytes);
    void end_of_file();
    void check(std::string_view bytes);
    void checked() { finish(check_->is_good(), check_->text()); }
    void finish(bool is_good, std::string text);
    void let_go();
    bool only_connects() const { return question_.path.empty() && !question_.grpc; }
    std::string what() const;  // "GET /ready"

    Loop& loop_;
    Task& owner_;
    Question question_;
    Outcome outcome_;
    Step step_ = Step::idle;
    Descriptor socket_;
    std::unique_ptr<Tls> tls_;
    event event_{};
    Deadline deadline_{*this};
    std::string out_;                 // of the request: not sent yet
    std::string in_;                  // of the head: all that came
    size_t body_bytes_ = 0;           // read and thrown away
    std::unique_ptr<H2Check> check_;  // null: over HTTP/1
    H1ResponseReader head_reader_;
    H1BodyReader body_reader_;
    uint16_t status_ = 0;
};

}  // namespace penstock
