// The Supervisor owns the workers: it spawns them, sees when they are ready, and starts them anew. It lives
// on the main loop and outlives nothing but its workers; what it learns goes to one WorkerEvents, what it is
// to do comes from there too, so that it knows nothing of parks and backends and can be tested alone.
//
//     supervisor.add("ocr", config);  supervisor.start();
//     events: starting, ready ... exited, starting, ready           each with generation and address
//     park's tick() says probe, stop, restart:  check(), drained(), restart_by_force()
//     supervisor.shut_down() ... events: workers_stopped
//
// It makes penstock the subreaper of its descendants: should somebody kill a guard, what its worker left
// becomes our child and is killed from here. So every child of this process that is no guard is taken for
// such a remainder then: nothing else in penstock may fork.
#pragma once

#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "policy/park_rules.h"
#include "workers/runtime_directory.h"
#include "workers/worker.h"

namespace penstock {

class WorkerEvents {
  public:
    // For the park. `address` is where this generation listens.
    virtual void worker_news(WorkerId worker, const BackendNews& news, const Address& address) = 0;
    // How many requests this generation has finished; asked once a second where recycle.requests is set.
    virtual uint64_t requests_of(WorkerId worker, uint32_t generation) = 0;
    // After shut_down(): nothing is left (or what is left cannot be killed, and that was logged).
    virtual void workers_stopped() = 0;

  protected:
    ~WorkerEvents() = default;
};

class Supervisor final : Task {
  public:
    Supervisor(Loop& loop, WorkerEvents& events, uint64_t seed = std::random_device{}());
    ~Supervisor();
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;

    // config.count workers with ids in a row; returns the first. An error: no place for their sockets.
    // `protocol`: that a path of theirs is asked for in.
    Result<WorkerId> add(const std::string& upstream, const Workers& config,
                         Protocol protocol = Protocol::http1);
    void start();  // all that were added

    Worker& worker(WorkerId id) { return *workers_[static_cast<size_t>(id)]; }
    size_t size() const { return workers_.size(); }
    std::vector<WorkerView> view() const;  // its texts are good until the next turn

    void shut_down();  // all at once: signal, grace, kill; then workers_stopped()
    void kill();       // does not wait for a grace any more

  private:
    friend class Worker;  // which asks for what is below

    void run(Time now) override;
    bool may_recycle(const Worker& worker) const;
    bool all_over() const;
    void worker_over();  // may be one of all
    // Kills what killed guards left to us; how many there are still.
    size_t kill_strays();
    double random_fraction() { return std::generate_canonical<double, 53>(random_); }

    Loop& loop_;
    WorkerEvents& events_;
    std::mt19937_64 random_;
    std::vector<std::string> environment_;  // our own
    RuntimeDirectory directory_;
    std::set<uint16_t> ports_;  // of workers that live
    std::vector<std::unique_ptr<Worker>> workers_;
    Deadline sample_{*this};
    unsigned samples_ = 0;
    bool shutting_down_ = false;
    bool told_ = false;
};

}  // namespace penstock
