// Steady state allocates nothing: counted by the operator new of this program.
#include <atomic>
#include <cstdlib>
#include <doctest/doctest.h>
#include <new>

#include "park_world.h"

namespace {
std::atomic<size_t> allocations = 0;
}

void* operator new(size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace penstock {
namespace {

TEST_CASE("once the ledger has had its size, no call of the data path allocates") {
    Park park(2, 1, true);
    Time now{1000s};
    Wakes wakes;
    const UpstreamId upstream = park.add_upstream({.queue_size = 8});
    const BackendId id = park.add_backend(upstream, {.slots = 2}, now, wakes);
    park.backend_event(id, ParkWorld::news(BackendNews::Event::ready, 1), now, wakes);
    size_t before = 0;
    for (int round = 0; round < 100; ++round) {
        if (round == 1) before = allocations;
        Ticket tickets[12];
        Lease leases[12];
        size_t waiting = 0, refused = 0;
        for (uint32_t i = 0; i < 12; ++i) {
            tickets[i].upstream = upstream;
            tickets[i].set_wake({static_cast<uint16_t>(i % 2), {i, 1}});
            wakes.count = 0;
            park.peek(upstream, 0, never, now);
            Admission a = park.admit(tickets[i], now, wakes);
            waiting += a.kind == Admission::Kind::waiting;
            refused += a.kind == Admission::Kind::refused;
            leases[i] = std::move(a.lease);
            if (leases[i]) park.run(leases[i], now);
        }
        const bool as_meant = waiting == 8 && refused == 2;
        for (uint32_t i = 0; i < 10; ++i) {
            wakes.count = 0;
            if (!leases[i]) leases[i] = park.collect(tickets[i], now, wakes).lease;
            if (leases[i].how() == Connect::wait) {
                const uint16_t other = static_cast<uint16_t>(1 - i % 2);
                if (park.idle_to_close(other, now).count) park.connection_closed(id, 1, now, wakes);
                park.connect(leases[i], now, wakes);
            }
            park.run(leases[i], now);
            now += 1ms;
            if (i == 5) park.abandon(leases[i], Abandon::drain, {0, {99, 1}}, now, wakes);
            park.finish(leases[i], {Outcome::answered, Keep::idle}, now, wakes);
        }
        Actions actions;
        park.tick(now, wakes, actions);
        if (!as_meant) FAIL("not the load that was meant");
    }
    CHECK(allocations == before);
}

}  // namespace
}  // namespace penstock
