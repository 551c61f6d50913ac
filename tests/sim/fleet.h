// The Fleet is the main thread of a simulated penstock: it starts workers and starts them again, tells the
// park what it learns of them, ticks, and does what the park asks for. It is also where an operator's hand,
// health checks, recycling and discovery come from: something changes now and then. It learns everything
// late.
#pragma once

#include <string>
#include <vector>

#include "policy/admission.h"
#include "timeline.h"

namespace penstock {
class Backend;
}

namespace penstock::sim {

class Process;
class World;

class Fleet {
  public:
    explicit Fleet(World& world) : world_(world) {}

    void add(Process& process, Backend& backend);
    void start_all();

    void take(const Event& event) { inbox_.push_back(event); }
    bool has_work(Time now) const { return !inbox_.empty() || tick_at_ <= now; }
    Time next() const { return tick_at_; }
    void step();  // takes one event, or ticks

    // A lease on this backend was granted, and collected in this step.
    void expect_in_service(BackendId backend);
    // Nothing happens any more. Is every backend back that can be? Says which one is not.
    bool is_settled(std::string& why);
    // Whoever only waits for a request gets one: the first one must go to it, and bring it back.
    void bring_back();
    // What the park shows of a process; nothing of one that was removed and forgotten.
    const BackendView* view_of(size_t process, const ParkView& view) const;
    // As far as the park knows; 0: none, the last one has ended.
    uint32_t generation_of(size_t process) const {
        return places_[process].is_over ? 0 : places_[process].generation;
    }
    bool is_removed(size_t process) const { return places_[process].removed_at != never; }
    bool is_quiet() const { return held_.empty() && inbox_.empty(); }
    void collect(std::vector<const Lease*>& leases) const;

  private:
    struct Place {
        Process* process;
        Backend* backend;
        uint32_t generation = 0;
        bool is_over = false;  // its generation
        bool gave_up = false;
        Time removed_at = never;
        bool forgotten = false;
        bool probes = false;
        bool restarts = false;  // for stuck work; until it is ready again
    };
    struct Held {  // a slot, for a probe
        size_t process;
        Lease lease;
    };

    void open(const Event& event);
    void tick();
    void act(const Action& action);
    void expect_one_restart(const Place& wanted);
    void start(size_t i);
    void probe(size_t i, Duration after);
    void probe_answered(size_t i, uint32_t generation);
    void exited(size_t i, uint32_t generation);
    void something_changes();
    void change_slots(size_t i);
    void change_rules();
    void launch(size_t i);
    void change_the_set();
    void remove(size_t i);
    void forget(size_t i);
    uint32_t generation(const Place& place, uint32_t life) const;
    size_t place_of(BackendId backend) const;
    size_t size_of(UpstreamId pool) const;  // backends that were not removed
    void count_changes();
    void bring_one_back(const UpstreamView& pool);
    void tell(size_t i, BackendNews::Event event, Time until = never, Duration restart_cost = {});

    World& world_;
    std::vector<Place> places_;  // by the number of their process
    std::vector<Held> held_;
    std::vector<Event> inbox_;
    Time tick_at_{};
    ParkView view_;
};

}  // namespace penstock::sim
