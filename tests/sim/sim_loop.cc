#include "sim_loop.h"

#include <algorithm>
#include <cstring>

#include "process.h"
#include "world.h"

namespace penstock::sim {

namespace {

constexpr uint32_t connection_bit = 1U << 31;  // of a wake's slot, as in proxy/data_loop.cc
constexpr Duration fresh_enough = 1s;

template <class T>
T* add_to(std::vector<T*>& list, T* one) {
    one->index = list.size();
    list.push_back(one);
    return one;
}

template <class T>
void take_out(std::vector<T*>& list, T* one) {
    list[one->index] = list.back();
    list[one->index]->index = one->index;
    list.pop_back();
}

}  // namespace

SimLoop::SimLoop(World& world, Shared& shared, const Snapshot& snapshot, Where number, Time start)
    : world_(world), loop_(number, start), data_(loop_, shared, snapshot, world.chance().draw()) {
    data_.connect_through(*this);
}

void SimLoop::step(Time now) {
    if (!advancing_) {
        std::swap(inbox_, mail_);
        for (const Event& event : mail_) open_mail(event);
        mail_.clear();
        turn().sweep(now);
        advancing_ = true;
        return;
    }
    // A turn that has run too many rounds lets the sockets speak first.
    if (!world_.chance().one_in(100) && turn().advance_one()) return;
    turn().flush();
    turn().reap();
    advancing_ = false;
}

void SimLoop::open_mail(const Event& event) {
    Client* client = nullptr;
    switch (event.what) {
        case What::client_comes:
            if (data_.draining()) return;  // nobody listens any more
            client = add_to(clients_, client_slab_.make(*this, event.value));
            return client->ask();
        case What::client_asks:
        case What::client_uploads:
        case What::client_reads:
        case What::client_leaves: client = client_slab_.find(event.who); break;
        case What::bytes_for_us:
            if (Wire* wire = world_.find_wire(event.who))
                if (Connection* connection =
                        wire->ours_open ? connection_slab_.find(wire->connection) : nullptr)
                    connection->fill();
            return;
        case What::wake:
            if (event.who.slot == Handle{}.slot) return trim();
            if (event.who.slot & connection_bit) {
                Connection* to =
                    connection_slab_.find({event.who.slot & ~connection_bit, event.who.generation});
                return to ? turn().mark(*to) : void();
            }
            return static_cast<Loop::WakeTaker&>(data_).woken(event.who);
        case What::drain:
            data_.drain();
            for (Client* each : clients_) each->drain();
            for (Connection* idle : std::vector<Connection*>(pool_)) idle->close_idle(false);
            return;
        default: world_.fail("an event that is none of a loop's");
    }
    if (!client) return;
    switch (event.what) {
        case What::client_asks: return client->ask();
        case What::client_uploads: return client->upload(event.value);
        case What::client_reads: return client->read(event.value);
        default: return client->leave(event.value);
    }
}

void SimLoop::trim() {
    while (true) {
        Trims trims = world_.park().idle_to_close(number(), now());
        for (const Trims::Item& item : trims)
            for (uint32_t i = 0; i < item.connections; ++i)
                if (Connection* oldest = oldest_in_pool(item.backend, item.generation))
                    oldest->close_idle(true);
        if (!trims.more) return;
    }
}

Client& SimLoop::client_of(const Exchange& exchange) const {
    return **std::ranges::find_if(clients_, [&](const Client* c) { return c->exchange() == &exchange; });
}

void SimLoop::free(Client* client) {
    take_out(clients_, client);
    client_slab_.free(client);
}

void SimLoop::free(Connection* connection) {
    BackendId id = connection->backend();
    uint32_t generation = connection->generation();
    connection->let_go_of_wire();
    take_out(connections_, connection);
    connection_slab_.free(connection);
    Wakes wakes;
    world_.park().connection_closed(id, generation, now(), wakes);
    post(wakes, now());
}

Handle SimLoop::wake_handle(const Connection* connection) const {
    Handle h = handle(connection);
    return {h.slot | connection_bit, h.generation};
}

// As it comes from a socket: in a chunk, which a body may link instead of copying it.
void SimLoop::append(Body& body, std::string_view run) {
    if (run.size() < Bytes::least_linked) return body.copy(run);
    ChunkRef chunk = chunks().take_large();
    std::memcpy(chunk->data(), run.data(), run.size());
    body.append(chunk, {chunk->data(), run.size()});
}

// --- connecting: as DataLoop::open, over wires

Connection* SimLoop::take_from_pool(BackendId backend, uint32_t generation) {
    for (size_t i = pool_.size(); i-- > 0;) {
        Connection* at = pool_[i];
        if (at->backend() != backend) continue;
        if (at->generation() != generation) return nullptr;
        pool_.erase(pool_.begin() + static_cast<long>(i));
        return at;
    }
    return nullptr;
}

Connection* SimLoop::oldest_in_pool(BackendId backend, uint32_t generation) {
    auto at = std::ranges::find_if(
        pool_, [&](const Connection* c) { return c->backend() == backend && c->generation() == generation; });
    return at == pool_.end() ? nullptr : *at;
}

BackendSide* SimLoop::open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) {
    LiveUpstream& upstream = *exchange.upstream();
    if (lease.how() == Connect::reuse || lease.how() == Connect::free) {
        bool repeatable = is_idempotent(exchange.request.head.method) || upstream.settings.retry.idempotent;
        Connection* pooled = take_from_pool(lease.backend(), lease.generation());
        if (pooled && pooled->is_usable() && (repeatable || now - pooled->idle_since() < fresh_enough)) {
            pooled->bind(exchange, std::move(lease));
            return pooled;
        }
        if (pooled) pooled->close_taken();
        if (lease.how() == Connect::reuse) {
            Wakes wakes;
            Connect how = world_.park().redial(lease, now, wakes);
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
    if (world_.chance().in_thousand(world_.plan().wire.no_socket)) {
        if (world_.chance().one_in(2)) outcome = Outcome::unused;
        return nullptr;
    }
    Connection* fresh =
        add_to(connections_, connection_slab_.make(*this, upstream, lease.backend(), lease.generation()));
    fresh->dial();
    fresh->bind(exchange, std::move(lease));
    return fresh;
}

}  // namespace penstock::sim
