// A Process is one simulated worker, or one server of somebody else's: what happens at a backend's address,
// unseen by penstock but for what comes back on wires. It counts what is at work in it, wanted or abandoned,
// and that count is what the whole simulation is about: it must never be more than the backend has slots.
//
// It lives as long as the world; its `life` changes with each start.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"
#include "policy/ticket.h"
#include "wire.h"

namespace penstock::sim {

class World;

class Process {
  public:
    Process(World& world, const PoolPlan& plan, BackendId id, const BackendRules& rules, uint32_t number);

    BackendId id() const { return id_; }
    uint32_t number() const { return number_; }
    const PoolPlan& plan() const { return plan_; }
    const BackendRules& rules() const { return rules_; }
    bool is_up() const { return state_ == State::up; }
    bool is_gone() const { return state_ == State::gone; }
    bool hangs() const { return hung_; }
    uint32_t life() const { return life_; }
    uint32_t wanted() const;  // at work, without what we gave up at another's server

    // --- the fleet and the operator
    void start();  // or tries to
    void kill(Duration after);
    void hang(Duration how_long);
    void fall_sick(Duration how_long);  // answers everything with a 5xx
    void flap(uint32_t times);          // dies soon after each of the next starts
    void set_rules(const BackendRules& rules);
    // Fewer slots evict nobody: until the park has come down to them, what there was before is allowed.
    bool is_above_slots() const { return rules_.slots && allowed_ > rules_.slots; }
    void came_down();
    uint32_t allowed() const { return allowed_; }

    // --- events outside of penstock
    void is_up(uint32_t life);
    void dies(uint32_t life);
    void wakes_up(uint32_t life);
    void dialed(Wire& wire);
    void bytes_came(Wire& wire);
    void go_on(Wire& wire, uint32_t step);

  private:
    enum class State : uint8_t { gone, starting, up };

    void look_at(Wire& wire);
    void begin(Wire& wire);
    void think(Wire& wire);
    void answer_head(Wire& wire);
    void answer_body(Wire& wire);
    void shut_by_us(Wire& wire);
    void end_work(Wire& wire);
    void close(Wire& wire, Wire::End how);
    void again(Wire& wire, Duration after);
    void tell(Wire& wire);
    bool is_served(const Wire& wire) const;

    World& world_;
    const PoolPlan& plan_;
    const BackendId id_;
    const uint32_t number_;  // among all processes
    BackendRules rules_;
    State state_ = State::gone;
    bool hung_ = false;
    Time sick_until_{};
    uint32_t flaps_ = 0;
    uint32_t slowness_ = 1;  // times what others take
    uint32_t life_ = 0;
    uint32_t at_work_ = 0;
    uint32_t allowed_;
    std::vector<Wire*> wires_;  // accepted, and not closed by us here
};

}  // namespace penstock::sim
