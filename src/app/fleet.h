// The Fleet is every upstream of the process with its backends, seen from the main thread: it makes them
// known to the park, does what the park asks for (tick), and finds out whether a suspect server is alive.
// Workers are the supervisor's; the fleet passes on what the park asks of them.
//
// It outlives the data loops. The park and the main loop outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/status.h"
#include "base/error.h"
#include "net/loop.h"
#include "proxy/upstream.h"
#include "workers/probe.h"

namespace penstock {

class ServerProbe;

// What the park asks about workers.
class WorkerOrders {
  public:
    virtual void probe(BackendId backend, uint32_t generation) = 0;    // is it alive?
    virtual void restart(BackendId backend, uint32_t generation) = 0;  // by force
    virtual void stop(BackendId backend, uint32_t generation) = 0;     // it is drained

  protected:
    ~WorkerOrders() = default;
};

class Fleet final : public Task {
  public:
    Fleet(Loop& loop, Park& park, Post& post, StatsBook& book);
    ~Fleet();

    Result<> add(const Upstream& settings);
    void take_orders(WorkerOrders* orders) { orders_ = orders; }
    std::vector<LiveUpstream*> upstreams() const;

    // Any news of a backend goes through here.
    void tell(BackendId backend, const BackendNews& news);
    void run(Time now) override;  // a tick
    void describe(Status& status, Time now);

  private:
    friend class ServerProbe;
    void act(const Action& action, Time now);

    Loop& loop_;
    Park& park_;
    Post& post_;
    StatsBook& book_;
    WorkerOrders* orders_ = nullptr;
    std::vector<std::unique_ptr<LiveUpstream>> upstreams_;
    std::vector<std::unique_ptr<ServerProbe>> probes_;
    Deadline tick_;
};

}  // namespace penstock
