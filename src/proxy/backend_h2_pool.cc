#include "proxy/backend_h2_pool.h"

#include "proxy/data_loop.h"

namespace penstock {

BackendH2Pool::Connections& BackendH2Pool::of(BackendId backend) {
    auto upstream = static_cast<size_t>(backend.upstream);
    if (by_backend_.size() <= upstream) by_backend_.resize(upstream + 1);
    auto& connections = by_backend_[upstream];
    while (connections.size() <= backend.index) connections.emplace_back();
    return connections[backend.index];
}

BackendSide* BackendH2Pool::open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) {
    LiveUpstream& upstream = *exchange.upstream();
    auto& known = of(lease.backend()).list;
    BackendH2* connection = known.front();
    while (connection && (connection->generation() != lease.generation() || !connection->takes_more()))
        connection = known.next(*connection);
    if (!connection) {
        outcome = Outcome::connect_failed;
        auto address = upstream.backend(lease.backend()).address(lease.generation());
        if (!address) return nullptr;
        connection = connections_.make(loop_, *this, upstream, lease.backend(), lease.generation());
        if (connection->dial(*address, now) != 0) {
            connection->close();
            return nullptr;
        }
        known.push_back(*connection);
    }
    return streams_.make(loop_, *this, upstream, *connection, exchange, std::move(lease));
}

void BackendH2Pool::woken(Handle handle) {
    if (BackendStream* stream = streams_.find(handle)) loop_.turn().mark(*stream);
}

void BackendH2Pool::drain() {
    connections_.for_each([](BackendH2& connection) { connection.leave_if_idle(); });
}

void BackendH2Pool::stop_now() {
    streams_.for_each([](BackendStream& stream) { stream.stop_now(); });
    drain();
}

void BackendH2Pool::collect_leases(std::vector<const Lease*>& leases) {
    streams_.for_each([&](BackendStream& stream) {
        if (stream.lease()) leases.push_back(&stream.lease());
    });
}

void BackendH2Pool::free(BackendStream* stream) {
    streams_.free(stream);
    loop_.backend_is_gone();
}

void BackendH2Pool::free(BackendH2* connection) {
    connections_.free(connection);
    loop_.backend_is_gone();
}

}  // namespace penstock
