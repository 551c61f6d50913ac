// What the park costs: a request that finds a free slot (admit, run, finish), one that queues and is granted
// by another's finish, and a refusal; from 1 to 4 threads.
#include <benchmark/benchmark.h>
#include <memory>
#include <vector>

#include "policy/admission.h"

namespace penstock {
namespace {

std::unique_ptr<Park> park;
UpstreamId upstream;

void open_park(uint32_t backends, uint32_t slots, uint32_t queue_size) {
    park = std::make_unique<Park>(4, 1);
    UpstreamRules rules;
    rules.queue_size = queue_size;
    rules.queue_timeout = 1h;
    upstream = park->add_upstream(rules);
    Wakes wakes;
    for (uint32_t i = 0; i < backends; ++i) {
        const BackendId id = park->add_backend(upstream, {.slots = slots}, monotonic_now(), wakes);
        park->backend_event(id, {.event = BackendNews::Event::ready, .generation = 1}, monotonic_now(),
                            wakes);
    }
    Actions actions;
    park->tick(monotonic_now(), wakes, actions);
}

struct Visitor {
    Ticket ticket;
    Lease lease;
    explicit Visitor(uint16_t loop) {
        ticket.upstream = upstream;
        ticket.set_wake({loop, {1, 1}});
    }
};

// A warm request: three holds, an idle connection of its own loop.
void served_at_once(benchmark::State& state) {
    if (state.thread_index() == 0) open_park(static_cast<uint32_t>(state.range(0)), 16, 100);
    const auto loop = static_cast<uint16_t>(state.thread_index());
    const Time now = Time(1h);
    for (auto _ : state) {
        Wakes wakes;
        Visitor v(loop);
        Admission a = park->admit(v.ticket, now, wakes);
        park->run(a.lease, now);
        const Ended ended = park->finish(a.lease, {Outcome::answered, Keep::idle}, now, wakes);
        benchmark::DoNotOptimize(ended);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(served_at_once)->Arg(1)->Arg(8)->ThreadRange(1, 4)->UseRealTime();

// One slot, a queue of `range` tickets: each finish grants the head, each round admits one at the tail.
void served_from_the_queue(benchmark::State& state) {
    open_park(1, 1, static_cast<uint32_t>(state.range(0)) + 2);
    const Time now = Time(1h);
    std::vector<std::unique_ptr<Visitor>> ring;
    for (int64_t i = 0; i <= state.range(0); ++i) ring.push_back(std::make_unique<Visitor>(uint16_t{0}));
    Wakes wakes;
    Admission running = park->admit(ring[0]->ticket, now, wakes);
    park->run(running.lease, now);
    for (size_t i = 1; i < ring.size(); ++i) park->admit(ring[i]->ticket, now, wakes);
    size_t head = 0;
    for (auto _ : state) {
        Wakes w;
        park->finish(running.lease, {Outcome::answered, Keep::idle}, now, w);
        ring[head] = std::make_unique<Visitor>(uint16_t{0});
        Visitor& last = *ring[head];
        head = (head + 1) % ring.size();
        running = park->collect(ring[head]->ticket, now, w);
        park->run(running.lease, now);
        park->admit(last.ticket, now, w);
    }
    Wakes w;
    for (auto& v : ring) park->cancel(v->ticket, now, w);
    park->finish(running.lease, {Outcome::answered, Keep::closed}, now, w);
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(served_from_the_queue)->Arg(10)->Arg(10000);

// Overload: the queue is full. From all threads at once.
void refused(benchmark::State& state) {
    static std::unique_ptr<Visitor> holder;
    static Lease held;
    const Time now = Time(1h);
    Wakes wakes;
    if (state.thread_index() == 0) {
        open_park(1, 1, 0);
        holder = std::make_unique<Visitor>(uint16_t{0});
        held = park->admit(holder->ticket, now, wakes).lease;
    }
    for (auto _ : state) {
        Visitor v(0);
        const Admission a = park->admit(v.ticket, now, wakes);
        benchmark::DoNotOptimize(a.retry_after);
    }
    if (state.thread_index() == 0) park->finish(held, {Outcome::unused, Keep::closed}, now, wakes);
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(refused)->ThreadRange(1, 4)->UseRealTime();

}  // namespace
}  // namespace penstock
