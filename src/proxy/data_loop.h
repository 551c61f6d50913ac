// A DataLoop is what the proxy adds to a Loop: listeners, client sessions, exchanges, backend sessions and
// the pool of idle connections of one thread. What all data loops share stands in Shared. It ends in three
// steps: drain() (finish what was accepted), stop_now() (cut what is left), and the destructor.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/slab.h"
#include "config/config.h"
#include "net/listener.h"
#include "net/loop.h"
#include "policy/admission.h"
#include "proxy/access_log.h"
#include "proxy/backend_h1.h"
#include "proxy/backend_h2_pool.h"
#include "proxy/backend_pool.h"
#include "proxy/client_h1.h"
#include "proxy/client_h2.h"
#include "proxy/credentials.h"
#include "proxy/exchange.h"
#include "proxy/greeting.h"
#include "proxy/snapshot.h"
#include "proxy/stats.h"

namespace penstock {

class LineWriter;

struct Shared {
    Park& park;
    Post& post;
    MemoryTotal& memory;
    StatsBook& book;
    LineWriter* access_writer;               // null: no access log
    RateLimiter* limiter = nullptr;          // null: there are no rate limits
    uint32_t most_connections = UINT32_MAX;  // of clients; set before the loops run
    std::atomic<uint32_t> connections{0};
};

class DataLoop final : public Listener::Taker, public Loop::WakeTaker, public Connector {
  public:
    // On the loop's thread, or before it runs.
    DataLoop(Loop& loop, Shared& shared, const Snapshot& snapshot, uint64_t seed);
    ~DataLoop();

    void listen(int fd, unsigned number);
    void accept(int fd, const SocketAddress& from, uint16_t port, uint16_t listener);
    // Connections of a unix socket all come to the first loop, which deals them out to these.
    void deal_to(std::vector<DataLoop*> all) { all_ = std::move(all); }
    // No new connections, no further requests on old ones.
    void drain();
    void stop_now();
    void leave();
    bool leaving() const { return leaving_; }
    bool finished() const { return finished_.load(std::memory_order_relaxed); }  // any thread: drained
    size_t abandoned() const { return backends_.live() - pool_.size(); }
    bool draining() const { return draining_.load(std::memory_order_relaxed); }  // any thread

    Loop& loop() { return loop_; }
    Turn& turn() { return loop_.turn(); }
    ChunkPool& chunks() { return loop_.chunks(); }
    Shared& shared() { return shared_; }
    Park& park() { return shared_.park; }
    MemoryAccount& memory() { return memory_; }
    Stats& stats() { return stats_; }
    const Snapshot& snapshot() const { return snapshot_; }
    const Config& config() const { return snapshot_.config(); }
    const H1Limits& h1_limits() const { return h1_limits_; }
    // The same, but for the body: limits.body is what clients may send, a response may stream for ever.
    const H1Limits& response_limits() const { return response_limits_; }
    const H2Limits& h2_limits() const { return h2_limits_; }
    H2Memory& h2_memory() { return h2_memory_; }
    BackendPool& pool() { return pool_; }
    const Credentials& credentials() const { return *credentials_; }
    void use(std::shared_ptr<const Credentials> credentials) { credentials_ = std::move(credentials); }
    // The last sessions with this backend. They stay where they are.
    TlsSessions& tls_sessions(BackendId backend) { return tls_sessions_[{backend.upstream, backend.index}]; }
    // Whether a failed handshake with a backend may be logged: each second one is.
    bool may_log_tls(Time now);
    uint64_t random() { return random_(); }
    AccessLines* access_log() { return access_.get(); }
    std::span<Field> field_room() { return field_room_; }
    Connector& connector() { return *connector_; }
    void connect_through(Connector& other) { connector_ = &other; }  // a simulation's

    void post(Wakes& wakes, Time now) { deliver(shared_.park, wakes, now, shared_.post); }

    Exchange* make_exchange(ClientSide& client, const ClientInfo& info) {
        return exchanges_.make(*this, client, info);
    }
    void free(Exchange* exchange);
    // What a connection speaks is known: goes on with it, in advance.
    ClientH1& go_on_with_http1(Channel& from, ClientOrigin&& origin);
    void go_on_with_http2(Channel& from, ClientOrigin&& origin) {
        h2_clients_.make(*this, from, std::move(origin));
    }
    bool speaks_http2(const ClientOrigin& origin) const { return config().listen[origin.listener].http2; }
    ClientStream* make_stream(ClientH2& connection) { return h2_streams_.make(connection); }
    void free(ClientH1* client);
    void free(ClientH2* client);
    void free(ClientStream* stream);
    void free(Greeting* greeting);
    void free(BackendH1* backend);
    void backend_is_gone() { check_whether_done(); }
    Handle handle(const Exchange* exchange) const { return exchanges_.handle(exchange); }
    Handle handle(const BackendH1* backend) const;
    Handle handle(const BackendStream* stream) const;

    BackendSide* open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) override;

    // Those that the park should know of: for its self-check.
    void collect_claims(std::vector<const Lease*>& leases, std::vector<const Ticket*>& waiting);

  private:
    bool has_room() override;
    void accepted(Listener& listener, int fd, const SocketAddress& from) override;
    void accept_paused(int error) override;
    void woken(Handle handle) override;
    void trim();
    void client_over(bool with_its_connection);
    void check_whether_done();

    Loop& loop_;
    Shared& shared_;
    const Snapshot& snapshot_;
    MemoryAccount memory_;
    Stats stats_;
    std::shared_ptr<const Credentials> credentials_ = std::make_shared<Credentials>();
    std::map<std::pair<UpstreamId, uint16_t>, TlsSessions> tls_sessions_;
    Time tls_logged_ = Time::min();
    H1Limits h1_limits_;
    H2Limits h2_limits_;
    H1Limits response_limits_;
    std::vector<Field> field_room_;
    std::mt19937_64 random_;
    H2Memory h2_memory_;
    BackendPool pool_;
    Connector* connector_ = this;
    Slab<Exchange> exchanges_;
    Slab<Greeting> greetings_;
    Slab<ClientH1> clients_;
    Slab<ClientH2> h2_clients_;
    Slab<ClientStream> h2_streams_;
    Slab<BackendH1> backends_;
    BackendH2Pool h2_pool_{*this};
    std::unique_ptr<AccessLines> access_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::vector<DataLoop*> all_;
    size_t next_dealt_ = 0;
    std::atomic<bool> draining_{false};
    bool leaving_ = false;
    std::atomic<bool> finished_{false};
};

}  // namespace penstock
