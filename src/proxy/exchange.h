// An Exchange is one request and its response, from the request's head to the log line.
//
//     arrived ─> collecting ─> queued ─> connecting ─> relaying ─> ended
//        │            │           │           │  ^         │
//        └────────────┴───────────┴───────────┴──┼─────────┴──> answered by ourselves (proxy/reply) ─> ended
//                                                └─ again, on another backend (exchange_retry), perhaps after
//                                                   a pause (pausing ─> queued)
//
// It lives in its loop's slab and outlives neither loop nor snapshot. Its two sides link to it and it to
// them; the links are cut together. The client's side makes it and may leave at any time (`client_left`); the
// backend's side exists from the moment it has a lease until it has given that back or keeps it for abandoned
// work, which then goes on without the exchange.
//
// run() decides everything, once a mark; events only fill messages and mark. Whoever is not marked waits for
// exactly one thing, and waiting() names it: that selects the deadline, whose fault its expiry is, and the
// step in the log.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/turn.h"
#include "codec/h1_writer.h"
#include "http/grpc.h"
#include "http/message.h"
#include "policy/admission.h"
#include "proxy/side.h"
#include "proxy/stats.h"

namespace penstock {

class Backend;
class DataLoop;
class LiveUpstream;
struct LimitTexts;
struct SnapshotRoute;

// What its client's connection says of a request.
struct ClientInfo {
    std::string_view address;  // without port; empty for a unix socket
    std::string_view port;     // of ours that it came to
    bool trusted = false;      // one of trusted_proxies
    bool secure = false;
};

enum class Waiting : uint8_t {
    nothing,
    rate_limit,
    client_bytes,
    slot,
    connect,
    backend_bytes,
    backend_drain,
    client_drain,
    tunnel,
    either_message,  // of a gRPC call that may be a stream: only its two ends know whose turn it is
    backoff
};
std::string_view to_string(Waiting);

class Exchange final : public Task, public Mortal {
  public:
    enum class Step : uint8_t { arrived, collecting, queued, connecting, relaying, pausing, answered, ended };

    Exchange(DataLoop& loop, ClientSide& client, const ClientInfo& info);
    ~Exchange();

    // --- for its sides
    Message request;
    Message response;
    ClientInfo client_info;
    Rule rule = Rule::ok;        // the rule broken, of a bad_request
    bool client_left = false;    // hung up or reset; the client's side is being closed
    bool send_continue = false;  // the client's side answers 100 Continue, once
    bool close_after = false;    // the client's connection must not be used for another request
    uint64_t wire_in = 0, wire_out = 0;

    DataLoop& loop() { return loop_; }
    Arena& arena() { return arena_; }
    LiveUpstream* upstream() { return upstream_; }
    const HeadEdit& request_edit(Time now);  // how the request's head is shaped for the backend
    HeadEdit response_edit(Time now);        // the same for the response's, but for framing and connection
    bool body_is_collected() const { return collected_; }
    Outcome outcome_so_far(Cause cause, Time now) const;  // of a try that is given up for that cause
    ModelLabel model() const { return model_; }
    Step step() const { return step_; }

    // --- for its loop
    void woken();  // a wake of the park
    void run(Time now) override;
    void reap() override;
    Waiting waiting() const;
    const Ticket& ticket() const { return ticket_; }
    const Lease& lease() const { return lease_; }
    const Deadline& deadline() const { return step_deadline_; }  // of what it waits for

  private:
    void arrive(Time now);
    bool find_route(Time now);
    bool passes_limits(Time now);
    void enter(Time now);
    void collect(Time now);
    void ask(Time now);
    void look_again(Time now);
    void take(Admission&& admission, Time now);
    void connect(Time now);
    void meet(const Backend& backend);
    bool is_connecting(Time now);
    void not_connected(Outcome outcome, Time now);
    void relay(Time now);
    void queue_begins(Time now) { asked_ = now; }
    void queue_ends(Time now) { queued_ = std::max(queued_, Duration::zero()) + (now - asked_); }
    bool is_retry() const { return attempts_ + stale_retries_ > 0; }
    void backend_failed(Time now);
    RetryAnswer may_retry(FailedTry::Why why, Time now);
    bool drops_answer(Time now);
    void try_timed_out(Time now);
    Time try_ends() const;
    bool may_stream();
    Duration most_stall() const;
    bool waits_for_client() const;
    void drop_try(Cause cause, Time now);
    bool start_over();
    void try_again(bool backs_off, BackendSide::Remains* remains, Time now);
    void after_pause(Time now);
    bool may_go_on(Time now);
    void on_deadline(Time now);
    void answer(Cause cause, Time now, uint32_t retry_after = 0);
    void fail(Cause cause, Time now, uint32_t retry_after = 0);
    void cut(Cause cause, Time now);
    void leave_backend(Cause cause, Time now);
    void hang_up(Time now);
    void end(Time now);
    void log(Time now);
    void watch(Time now);
    Duration timeout_of(Waiting what) const;
    bool backend_is_done() const {  // of a tunnel: both directions have been shut
        return response.is_complete() && (!response.tunnel || request.is_sent());
    }
    std::string_view request_id();
    GrpcStatus grpc_status() const;
    Time deadline_asked_for() const;
    void write_time_left(Time now);
    void park_wakes(Wakes& wakes, Time now);

    // Reserved with the request, so that a response can always be taken from its backend.
    static constexpr uint64_t response_certain_bytes = 32 * 1024;

    DataLoop& loop_;
    ClientSide* client_;
    BackendSide* backend_ = nullptr;
    LiveUpstream* upstream_ = nullptr;
    const SnapshotRoute* route_ = nullptr;
    BackendId on_;  // of the last try
    uint32_t on_generation_ = 0;
    struct Fallen {
        BackendId backend;
        uint32_t generation;
    };
    std::array<Fallen, 2> fallen_{};  // workers whose connection broke while the request ran there
    Ticket ticket_;
    Lease lease_;  // granted, and no backend side has it yet
    Deadline absolute_;
    Deadline step_deadline_;

    Time began_{}, asked_{};
    Time granted_{}, first_byte_{}, backend_done_{};  // of the last try
    Duration queued_ = RequestEnd::not_measured;
    Duration stalled_{};  // time that a lease has waited for its client alone
    Time waiting_since_{};
    uint64_t waiting_since_turn_ = 0;
    Time moved_at_{};
    uint64_t moved_ = 0;
    uint64_t offered_ = 0;  // of the response to its client, at the last look
    Waiting waiting_ = Waiting::nothing;
    Step step_ = Step::arrived;
    Cause tried_ = Cause::none;  // why the last try failed
    Cause cause_ = Cause::none;  // why it did not end well
    uint16_t logged_status_ = 0;
    uint8_t attempts_ = 0;
    uint8_t stale_retries_ = 0;
    uint8_t fallen_count_ = 0;
    bool woken_ = false;
    bool collected_ = false;
    bool held_ = false;     // by a rate limit, for a while
    bool counted_ = false;  // as in flight, by a rate limit
    ModelLabel model_ = ModelLabel::none;
    std::string_view model_name_, request_id_, backend_name_, host_, path_, client_address_;
    std::string_view sticky_cookie_;  // to be set: its client has none that names a backend
    const LimitTexts* limit_texts_ = nullptr;
    HeadEdit request_edit_;
    FieldLine* time_left_ = nullptr;  // grpc-timeout, of request_edit_
    bool has_request_edit_ = false;
    bool is_grpc_ = false;
    bool streams_ = false;  // a gRPC call whose first message has come, and the end of its request has not

    alignas(8) char inline_[584];  // with it an exchange is just under 2 KiB
    Arena arena_;
};

}  // namespace penstock
