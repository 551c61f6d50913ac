#include "proxy/data_loop.h"

#include <algorithm>
#include <unistd.h>
#include <utility>

namespace penstock {

// What `penstock check` counts with: per connection at most 600 bytes while it idles; a waiting exchange at
// most 2 KiB without its body.
static_assert(sizeof(ClientH1) <= 600);
static_assert(sizeof(Exchange) <= 2048);

namespace {

// Wakes for backend sessions (abandoned work) and for exchanges go through one number space.
constexpr uint32_t backend_bit = 1U << 31;
constexpr uint32_t stream_bit = 1U << 30;
// A request that is not safe to repeat uses only a connection that was busy a moment ago: one that idled
// longer may be closed by the backend just as we use it.
constexpr Duration fresh_enough = 1s;

// A connection that another loop has accepted for this one.
class Dealt final : public Letter {
  public:
    Dealt(DataLoop& to, int fd, const SocketAddress& from, uint16_t port, uint16_t listener)
        : to_(to), fd_(fd), from_(from), port_(port), listener_(listener) {}
    ~Dealt() override {
        if (fd_ >= 0) ::close(fd_);  // never opened: its loop has stopped
    }
    void open(Loop&) override { to_.accept(std::exchange(fd_, -1), from_, port_, listener_); }

  private:
    DataLoop& to_;
    int fd_;
    const SocketAddress from_;
    const uint16_t port_;
    const uint16_t listener_;
};

H1Limits limits_of(const Config& config) {
    H1Limits out;
    out.head_bytes = config.limits.header_bytes;
    out.line_bytes = std::min<uint32_t>(out.line_bytes, config.limits.header_bytes);
    out.fields = config.limits.headers;
    if (config.limits.body) out.body_bytes = config.limits.body;
    return out;
}

H2Limits h2_limits_of(const Limits& limits) {
    H2Limits out;
    out.head_bytes = limits.header_bytes;
    out.fields = limits.headers;
    out.streams = limits.max_concurrent_streams;
    out.connect_protocol = true;
    return out;
}

}  // namespace

DataLoop::DataLoop(Loop& loop, Shared& shared, const Snapshot& snapshot, uint64_t seed)
    : loop_(loop),
      shared_(shared),
      snapshot_(snapshot),
      memory_(shared.memory),
      stats_(shared.book),
      h1_limits_(limits_of(snapshot.config())),
      h2_limits_(h2_limits_of(snapshot.config().limits)),
      response_limits_(h1_limits_),
      field_room_(h1_limits_.fields),
      random_(seed) {
    if (shared.access_writer)
        access_ =
            std::make_unique<AccessLines>(loop.turn(), *shared.access_writer, config().access_log.format);
    response_limits_.body_bytes = UINT64_MAX;
    loop_.take_wakes(this);
}

DataLoop::~DataLoop() { loop_.take_wakes(nullptr); }

void DataLoop::listen(int fd, unsigned number) {
    listeners_.push_back(std::make_unique<Listener>(loop_, *this, fd, number));
}

bool DataLoop::has_room() {
    return shared_.connections.load(std::memory_order_relaxed) < shared_.most_connections;
}

void DataLoop::accepted(Listener& listener, int fd, const SocketAddress& from) {
    shared_.connections.fetch_add(1, std::memory_order_relaxed);
    uint16_t port = listener.address().port();
    DataLoop* to = listener.address().is_unix() && all_.size() > 1 ? all_[next_dealt_++ % all_.size()] : this;
    auto number = static_cast<uint16_t>(listener.number());
    if (to == this) return accept(fd, from, port, number);
    to->loop_.post(std::make_unique<Dealt>(*to, fd, from, port, number));
}

void DataLoop::accept(int fd, const SocketAddress& from, uint16_t port, uint16_t listener) {
    bool is_unix = from.is_unix();
    stats_.connection_opened(Wire::client);
    ClientOrigin origin;
    if (!is_unix) origin.address = from.ip_text();
    origin.set_port(is_unix ? uint16_t{0} : port);
    origin.listener = listener;
    // A unix socket's other end is on this machine, and its permissions say who may come.
    origin.trusted = is_unix || snapshot_.trusts(from.ip());
    const Listen& listen = config().listen[origin.listener];
    if (listen.tls || listen.proxy_protocol)
        greetings_.make(*this, fd, is_unix, std::move(origin));
    else if (!listen.http1)
        h2_clients_.make(*this, fd, is_unix, std::move(origin));
    else
        clients_.make(*this, fd, is_unix, std::move(origin));
}

ClientH1& DataLoop::go_on_with_http1(Channel& from, ClientOrigin&& origin) {
    return *clients_.make(*this, from, std::move(origin));
}

void DataLoop::accept_paused(int) { stats_.accept_paused(); }

bool DataLoop::may_log_tls(Time now) {
    if (tls_logged_ != Time::min() && now - tls_logged_ < 1s) return false;
    tls_logged_ = now;
    return true;
}

void DataLoop::free(Exchange* exchange) {
    exchanges_.free(exchange);
    check_whether_done();
}

void DataLoop::free(ClientH1* client) {
    bool with_its_connection = client->has_connection();
    clients_.free(client);
    client_over(with_its_connection);
}

void DataLoop::free(ClientH2* client) {
    bool with_its_connection = client->has_connection();
    h2_clients_.free(client);
    client_over(with_its_connection);
}

void DataLoop::free(ClientStream* stream) { h2_streams_.free(stream); }

void DataLoop::free(Greeting* greeting) {
    bool with_its_connection = greeting->has_connection();
    greetings_.free(greeting);
    client_over(with_its_connection);
}

// A client's session is freed; its connection ends with it, unless another session has taken it over.
void DataLoop::client_over(bool with_its_connection) {
    if (with_its_connection) {
        stats_.connection_closed(Wire::client);
        shared_.connections.fetch_sub(1, std::memory_order_relaxed);
        for (auto& listener : listeners_) listener->resume();
    }
    check_whether_done();
}

void DataLoop::free(BackendH1* backend) {
    BackendId id = backend->backend();
    uint32_t generation = backend->generation();
    bool counted = backend->is_counted();
    backends_.free(backend);  // closes its descriptor
    check_whether_done();
    if (!counted) return;
    Wakes wakes;
    shared_.park.connection_closed(id, generation, loop_.now(), wakes);
    post(wakes, loop_.now());
}

Handle DataLoop::handle(const BackendH1* backend) const {
    Handle h = backends_.handle(backend);
    return {h.slot | backend_bit, h.generation};
}

Handle DataLoop::handle(const BackendStream* stream) const {
    Handle h = h2_pool_.handle(stream);
    return {h.slot | stream_bit, h.generation};
}

void DataLoop::woken(Handle handle) {
    if (handle.slot == Handle{}.slot) return trim();
    if (handle.slot & backend_bit) {
        if (BackendH1* backend = backends_.find({handle.slot & ~backend_bit, handle.generation}))
            turn().mark(*backend);
    } else if (handle.slot & stream_bit) {
        h2_pool_.woken({handle.slot & ~stream_bit, handle.generation});
    } else if (Exchange* exchange = exchanges_.find(handle)) {
        exchange->woken();
    }
}

// The park wants idle connections closed: another loop waits for their permits.
void DataLoop::trim() {
    while (true) {
        Trims trims = shared_.park.idle_to_close(static_cast<uint16_t>(loop_.index()), loop_.now());
        for (const Trims::Item& item : trims)
            for (uint32_t i = 0; i < item.connections; ++i)
                if (BackendH1* oldest = pool_.oldest(item.backend, item.generation)) oldest->close_idle(true);
        if (!trims.more) return;
    }
}

BackendSide* DataLoop::open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) {
    LiveUpstream& upstream = *exchange.upstream();
    if (upstream.settings.protocol == Protocol::http2) return h2_pool_.open(exchange, lease, outcome, now);
    Wakes wakes;
    if (lease.how() == Connect::reuse || lease.how() == Connect::free) {
        const Retry& retry = upstream.settings.retry;
        bool repeatable = is_idempotent(exchange.request.head.method) || retry.idempotent;
        BackendH1* pooled = pool_.take(lease.backend(), lease.generation());
        if (pooled && pooled->is_usable() && (repeatable || now - pooled->idle_since() < fresh_enough)) {
            pooled->bind(exchange, std::move(lease));
            return pooled;
        }
        if (pooled) pooled->close_taken();
        if (lease.how() == Connect::reuse) {
            Connect how = shared_.park.redial(lease, now, wakes);
            post(wakes, now);
            if (how == Connect::wait || how == Connect::lost) {
                outcome = Outcome::unused;
                return nullptr;
            }
        }
    }
    auto address = upstream.backend(lease.backend()).address(lease.generation());
    outcome = Outcome::connect_failed;
    if (!address) return nullptr;
    BackendH1* fresh = backends_.make(*this, upstream, lease.backend(), lease.generation());
    int error = fresh->dial(*address, now);
    if (error != 0) {
        fresh->close_uncounted();
        return nullptr;
    }
    fresh->bind(exchange, std::move(lease));
    return fresh;
}

void DataLoop::drain() {
    draining_ = true;
    for (auto& listener : listeners_) listener->close();
    greetings_.for_each([](Greeting& greeting) { greeting.drain(); });
    clients_.for_each([](ClientH1& client) { client.drain(); });
    h2_clients_.for_each([](ClientH2& client) { client.drain(); });
    pool_.for_each([](BackendH1& idle) { idle.close_idle(false); });
    h2_pool_.drain();
    check_whether_done();
}

void DataLoop::leave() {
    leaving_ = true;
    drain();
    stop_now();
}

void DataLoop::check_whether_done() {
    if (!draining() || clients_.live() > 0 || h2_clients_.live() > 0 || greetings_.live() > 0 ||
        exchanges_.live() > 0)
        return;
    // Each time: a connection that another loop has accepted may still have been on its way to this one.
    finished_.store(true, std::memory_order_relaxed);
    shared_.post.wake_main();
    if (leaving_ && backends_.live() == 0 && h2_pool_.live() == 0) loop_.stop();
}

void DataLoop::stop_now() {
    greetings_.for_each([](Greeting& greeting) { greeting.stop_now(); });
    clients_.for_each([](ClientH1& client) { client.stop_now(); });
    h2_clients_.for_each([](ClientH2& client) { client.stop_now(); });
    backends_.for_each([](BackendH1& backend) { backend.stop_now(); });
    h2_pool_.stop_now();
}

void DataLoop::collect_claims(std::vector<const Lease*>& leases, std::vector<const Ticket*>& waiting) {
    exchanges_.for_each([&](Exchange& exchange) {
        if (exchange.lease()) leases.push_back(&exchange.lease());
        if (exchange.step() == Exchange::Step::queued) waiting.push_back(&exchange.ticket());
    });
    backends_.for_each([&](BackendH1& backend) {
        if (backend.lease()) leases.push_back(&backend.lease());
    });
    h2_pool_.collect_leases(leases);
}

}  // namespace penstock
