// The World of one seed: penstock (park, loops, main thread) and everything around it (clients, wires,
// worker processes), with one clock that only it moves. Each step lets one loop or the main thread do one
// thing, chosen at random; in between, what is due outside happens. After every step the audit looks at it
// all. Whatever is wrong ends the program with the seed and the step.
#pragma once

#include <deque>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <vector>

#include "audit.h"
#include "facts.h"
#include "fleet.h"
#include "plan.h"
#include "process.h"
#include "proxy/snapshot.h"
#include "proxy/stats.h"
#include "sim_loop.h"
#include "timeline.h"
#include "wire.h"

namespace penstock::sim {

class World final : public Post {
  public:
    explicit World(uint64_t seed, bool tells = false);
    ~World();

    void run();  // to the end: nobody is there, and all is given back
    uint64_t steps() const { return steps_; }
    uint64_t requests() const { return facts_.size(); }
    uint64_t served() const { return served_; }  // reached a worker
    uint64_t digest() const { return digest_; }  // the same seed gives the same
    const Tally& tally() const { return tally_; }
    Tally& tally() { return tally_; }
    void describe() const;  // to stderr

    // --- for what lives in it
    Time now() const { return now_; }
    Chance& chance() { return plan_.chance; }
    const Plan& plan() const { return plan_; }
    Park& park() { return park_; }
    const MemoryTotal& memory() const { return memory_; }
    Fleet& fleet() { return fleet_; }
    std::deque<Process>& processes() { return processes_; }
    std::vector<std::unique_ptr<SimLoop>>& loops() { return loops_; }
    size_t number_of(BackendId id) const;  // of its process, the latest to have it
    void add_backend(UpstreamId pool);     // another one, at run time

    Duration latency() { return chance().around(plan_.wire.latency); }
    void add(What what, Where where, Duration after, Handle who = {}, uint32_t value = 0);
    void after_latency(What what, Where where, const Wire& wire) {
        add(what, where, latency(), handle(wire));
    }

    Wire* make_wire(BackendId backend, Where loop, uint32_t generation);
    Wire* find_wire(Handle handle) const { return wires_.find(handle); }
    Handle handle(const Wire& wire) const { return wires_.handle(&wire); }
    void free_later(const Wire& wire);  // if it is unused

    // --- what must be true of requests and workers
    uint32_t new_request();
    Facts& facts(uint32_t request) { return facts_[request - 1]; }
    void begins(uint32_t request);                      // on a connection
    void runs(uint32_t request);                        // in a process
    void ends(uint32_t request, std::string_view how);  // exactly once
    void expect_retry_after(std::string_view seconds);
    // Of a pool whose cookies bring clients back: it names who answered, and somebody may come with it.
    void take_cookie(size_t pool, uint32_t request, std::string_view text);
    std::string_view known_cookie(size_t pool);  // empty: none
    void expect_room(const Process& process);
    void expect_pattern(uint32_t request, uint64_t at, std::string_view run, std::string_view what);
    void change_device();
    bool is_traffic_over() const;

    void wake(const Wake& wake) override;
    void wake_main() override;

    template <class... A>
    [[noreturn]] void fail(fmt::format_string<A...> text, A&&... a) const {
        failed(fmt::format(text, std::forward<A>(a)...));
    }
    template <class... A>
    void say(fmt::format_string<A...> text, A&&... a) const {
        if (tells_) said(fmt::format(text, std::forward<A>(a)...));
    }

  private:
    void build();
    void add_backend(UpstreamId pool, const BackendRules& rules, Wakes& wakes);
    void settle();
    void step();
    void happen(const Event& event);
    void invite(Duration gap);
    void let_time_pass();
    void start_drain();
    [[noreturn]] void failed(const std::string& why) const;
    void said(const std::string& what) const;

    const uint64_t seed_;
    const bool tells_;
    Plan plan_;
    Time now_;
    Timeline timeline_;
    Park park_;
    MemoryTotal memory_;
    StatsBook book_;
    std::vector<std::unique_ptr<LiveUpstream>> upstreams_;
    std::unique_ptr<Snapshot> snapshot_;
    Shared shared_;
    Slab<Wire> wires_;
    std::deque<Process> processes_;
    std::vector<std::vector<size_t>> numbers_;  // of processes, by upstream and index
    Fleet fleet_;
    std::vector<std::unique_ptr<SimLoop>> loops_;
    Audit audit_;

    std::vector<std::vector<std::string>> cookies_;  // by pool: those that clients still have
    std::deque<Facts> facts_;                        // by the number of their request, less one
    Tally tally_;
    uint32_t invited_ = 0, coming_ = 0, served_ = 0, ended_ = 0;
    uint32_t device_slots_ = 0, device_allowed_ = 0;
    bool draining_ = false;
    uint64_t steps_ = 0;
    uint64_t digest_ = 0;
};

}  // namespace penstock::sim
