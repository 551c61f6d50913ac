// A SimLoop is one loop of penstock, turned by hand: the real Turn and the real DataLoop, with simulated
// clients and connections instead of sessions on sockets, and an inbox instead of poll and mailbox. One step
// takes what has come and sweeps, or runs one marked task, or flushes and reaps; between two steps other
// loops run, and the clock goes on while the turn keeps its own `now`.
#pragma once

#include <vector>

#include "base/slab.h"
#include "client.h"
#include "connection.h"
#include "proxy/data_loop.h"
#include "timeline.h"

namespace penstock::sim {

class World;

class SimLoop final : public Connector {
  public:
    SimLoop(World& world, Shared& shared, const Snapshot& snapshot, Where number, Time start);

    Where number() const { return static_cast<Where>(loop_.index()); }
    World& world() { return world_; }
    DataLoop& data() { return data_; }
    Turn& turn() { return loop_.turn(); }
    ChunkPool& chunks() { return loop_.chunks(); }
    Time now() const { return loop_.now(); }
    void post(Wakes& wakes, Time now) { data_.post(wakes, now); }

    // --- the world turns it
    void take(const Event& event) { inbox_.push_back(event); }
    bool has_mail() const { return !inbox_.empty(); }
    bool has_work(Time now) { return advancing_ || has_mail() || turn().next() <= now; }
    Time next() { return turn().next(); }
    void step(Time now);

    // --- what lives on it
    const std::vector<Client*>& clients() const { return clients_; }
    const std::vector<Connection*>& connections() const { return connections_; }
    Client& client_of(const Exchange& exchange) const;
    bool is_empty() const { return clients_.empty() && connections_.empty(); }
    void free(Client* client);
    void free(Connection* connection);
    Handle handle(const Client* client) const { return client_slab_.handle(client); }
    Handle handle(const Connection* connection) const { return connection_slab_.handle(connection); }
    Handle wake_handle(const Connection* connection) const;
    void append(Body& body, std::string_view run);

    // --- connecting
    BackendSide* open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) override;
    void put_into_pool(Connection& connection) { pool_.push_back(&connection); }
    void take_out_of_pool(Connection& connection) { std::erase(pool_, &connection); }

  private:
    void open_mail(const Event& event);
    void trim();
    Connection* take_from_pool(BackendId backend, uint32_t generation);
    Connection* oldest_in_pool(BackendId backend, uint32_t generation);

    World& world_;
    Loop loop_;
    DataLoop data_;
    std::vector<Event> inbox_, mail_;
    std::vector<Client*> clients_;
    Slab<Client> client_slab_;
    std::vector<Connection*> connections_;
    Slab<Connection> connection_slab_;
    std::vector<Connection*> pool_;  // the last used one comes last
    bool advancing_ = false;
};

}  // namespace penstock::sim
