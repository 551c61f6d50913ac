// What is looked at after every step, with the whole world in view: the park's own recount against the leases
// and tickets that are found by walking the loops, the order of grants, deadlines, memory and connections.
// What must be true of one request or one worker is checked where it happens (World, Process, Client).
#pragma once

#include <string>
#include <vector>

#include "policy/admission.h"
#include "policy/balancer.h"
#include "proxy/exchange.h"

namespace penstock::sim {

class Client;
class SimLoop;
class World;

class Audit {
  public:
    explicit Audit(World& world) : world_(world) {}

    void after_step();
    // All traffic is over, and everything has come back.
    bool is_at_rest();

  private:
    void walk();
    void check_park();
    void check_order();
    void check_patience(Client& client);
    void check_homes();
    static bool has_home(const Client& client);
    void note_home(Client& client, bool may_be_home, bool was_patient);
    void check_home(const Client& client, bool at_once);
    const BackendView* home_of(const Ticket& ticket);
    void check_return();
    void check_exchange(Client& client, SimLoop& loop);
    void check_time(Client& client, Time now);
    void check_memory();
    void check_connections();
    void compare_with_production();
    void compare_with_park();

    World& world_;
    std::vector<const Lease*> leases_;
    std::vector<const Ticket*> waiting_;
    struct Asker {
        UpstreamId upstream;
        uint64_t arrival;
        bool goes_anywhere;  // it has tried no backend yet
    };
    struct Resting {
        BackendId backend;
        uint32_t generation;
        Time since;
        Unfit unfit;
        bool operator==(const Resting&) const = default;
    };
    bool may_use_backup(const Asker& asker) const;
    std::vector<Asker> granted_, passed_over_;
    std::vector<Resting> resting_, rested_;     // now, and when a slot was granted last
    std::vector<uint32_t> connections_, idle_;  // by process
    std::vector<Candidate> candidates_;
    struct Homecoming {  // a client of which there is something to say
        Client* client;
        bool is_placed, at_once, may_be_home, was_patient;
    };
    std::vector<Homecoming> homes_;
    uint64_t arrivals_ = 0;
    uint64_t steps_ = 0;
    std::string why_;
    ParkView view_;
};

}  // namespace penstock::sim
