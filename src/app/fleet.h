// The Fleet is every upstream of the process with its backends, seen from the main thread: it makes them
// known to the park, does what the park asks for (tick), and finds out whether a suspect server is alive.
// The supervisor's workers are backends too; the fleet carries the news of one to the other.
//
// It outlives the data loops. The park and the main loop outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/discovery.h"
#include "app/health_checks.h"
#include "app/status.h"
#include "base/error.h"
#include "net/loop.h"
#include "proxy/credentials.h"
#include "proxy/upstream.h"
#include "workers/probe.h"
#include "workers/supervisor.h"

namespace penstock {

class ServerProbe;

class Fleet final : public Task, WorkerEvents {
  public:
    // `stopped` is marked when shut_down() is through.
    Fleet(Loop& loop, Park& park, Post& post, StatsBook& book, const ResolverSettings& resolver,
          Task& stopped);
    ~Fleet();

    Result<> add(const Upstream& settings);
    // Servers come and go while we run. A server that is `warm` needs no slow start.
    Result<BackendId> add_server(LiveUpstream&, const Server&, const SocketAddress&, bool warm);
    void remove_server(LiveUpstream&, BackendId);
    // Stands for one whose address is not known yet: its upstream is Coming until then, or until it gave up.
    Result<BackendId> expect_server(LiveUpstream&, const Server&, Time until);
    void gave_up(LiveUpstream&, BackendId);
    // From now on; before any backend is asked anything.
    void use(std::shared_ptr<const Credentials> credentials) { credentials_ = std::move(credentials); }
    // A probe of this backend speaks TLS where its requests do.
    void secure(Probe::Question& question, const LiveUpstream& upstream, BackendId backend) const;
    void start_workers() { supervisor_.start(); }
    void shut_down();  // of the workers
    bool is_stopped() const { return is_stopped_; }
    std::vector<LiveUpstream*> upstreams() const;

    // Any news of a backend goes through here.
    void tell(BackendId backend, const BackendNews& news);
    // For health checks: stop a worker that is at fault, and start the next; a slot that a check has used.
    void restart(BackendId backend, uint32_t generation, RestartWhy why);
    void give_back(Lease& slot, Time now);
    bool make_room_for_probe(BackendId, Time now);  // as the park's
    Park& park() { return park_; }
    void run(Time now) override;  // a tick
    void describe(Status& status, Time now);

  private:
    friend class ServerProbe;
    struct Place {  // of a worker
        LiveUpstream* upstream;
        BackendId backend;
    };

    void worker_news(WorkerId worker, const BackendNews& news, const Address& address) override;
    uint64_t requests_of(WorkerId worker, uint32_t generation) override;
    void workers_stopped() override;
    Result<Backend*> add_backend(LiveUpstream&, std::string name, BackendRules);
    void act(const Action& action, Time now);
    Worker* worker_at(BackendId backend);
    void forget(BackendId);
    void log_changes();
    void describe_workers(Status& status, Time now);
    void log(const CircuitChange& change);
    LiveUpstream* find(UpstreamId id) const;

    Loop& loop_;
    Park& park_;
    Post& post_;
    StatsBook& book_;
    Task& stopped_;
    std::shared_ptr<const Credentials> credentials_ = std::make_shared<Credentials>();
    Supervisor supervisor_;
    std::vector<std::unique_ptr<LiveUpstream>> upstreams_;
    std::vector<std::unique_ptr<ServerProbe>> probes_;
    std::vector<Place> places_;  // by WorkerId
    bool is_stopped_ = false;
    Deadline tick_;
    Discovery discovery_;
    HealthChecks health_;
};

}  // namespace penstock
