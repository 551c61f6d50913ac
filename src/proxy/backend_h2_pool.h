// The HTTP/2 connections of one loop and the streams on them, by backend. A lease gets a stream on the oldest
// connection that takes another one, else on a new connection: so there are as few as the streams need, and
// the newest run empty first and are closed. Nothing here is counted by the park: a connection is not a
// request.
#pragma once

#include <vector>

#include "base/slab.h"
#include "codec/h2_memory.h"
#include "proxy/backend_h2.h"

namespace penstock {

class BackendH2Pool {
  public:
    explicit BackendH2Pool(DataLoop& loop) : loop_(loop) {}

    // As Connector::open.
    BackendSide* open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now);

    Handle handle(const BackendStream* stream) const { return streams_.handle(stream); }
    void woken(Handle handle);
    void drain();     // what is idle goes
    void stop_now();  // and so does what is abandoned
    size_t live() const { return connections_.live() + streams_.live(); }
    void collect_leases(std::vector<const Lease*>& leases);

    // How many streams a backend takes on a connection, as its last SETTINGS said.
    uint32_t streams_allowed(BackendId backend) { return of(backend).streams_allowed; }
    void learn_streams(BackendId backend, uint32_t allowed) { of(backend).streams_allowed = allowed; }

    void free(BackendStream* stream);
    void free(BackendH2* connection);

  private:
    struct Connections {
        Connections() = default;
        Connections(Connections&& other) noexcept : streams_allowed(other.streams_allowed) {
            list.splice_back(other.list);
        }
        List<BackendH2, ConnectionsTag> list;
        uint32_t streams_allowed = 100;  // what most servers allow at least
    };
    Connections& of(BackendId backend);

    DataLoop& loop_;
    Slab<BackendH2> connections_;
    Slab<BackendStream> streams_;
    std::vector<std::vector<Connections>> by_backend_;
};

}  // namespace penstock
