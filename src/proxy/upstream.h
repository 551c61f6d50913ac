// A LiveUpstream is a named pool of backends, shared by all loops; it outlives every exchange that names it.
// A Backend is one address to which requests can go: a server, or the place of a worker, whose address
// changes with each generation. The queue, the slots and the states of both are the park's; here is what it
// does not know: names, settings, addresses.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "config/config.h"
#include "net/socket.h"
#include "policy/admission.h"
#include "proxy/stats.h"

namespace penstock {

// Where wakes go: each to its loop. Called after the park has unlocked.
class Post {
  public:
    virtual void wake(const Wake& wake) = 0;
    virtual void wake_main() = 0;  // the main thread should call Park::tick()

  protected:
    ~Post() = default;
};

// Posts what a park call left in `wakes`, and lets the park go on as long as it says that there is more.
void deliver(Park& park, Wakes& wakes, Time now, Post& post);

class Backend {
  public:
    Backend(std::string name, BackendId id, uint64_t identity, uint32_t first)
        : first_generation(first), name_(std::move(name)), id_(id), identity_(identity) {}

    const std::string& name() const { return name_; }  // an address, or ocr/0 for a worker
    BackendId id() const { return id_; }
    uint64_t identity() const { return identity_; }  // what sticky cookies call it
    const uint32_t first_generation;                 // beyond those of who had this id before
    uint32_t requests_per_connection = 0;            // 0: no limit
    bool leaving = false;                            // removed: it only ends what it has. Main thread
    bool spawned = false;                            // a worker of ours
    std::string host;                                // that its certificate must be for, where it speaks TLS

    // The address of this generation; nothing where that one is over. Taken for each dial, under a small lock
    // of its own: the main thread sets it before it tells the park that the generation starts.
    std::optional<SocketAddress> address(uint32_t generation) const {
        std::lock_guard lock(mutex_);
        if (generation != generation_) return std::nullopt;
        return address_;
    }
    void set_address(uint32_t generation, const SocketAddress& address) {
        std::lock_guard lock(mutex_);
        generation_ = generation;
        address_ = address;
        served_.store(0, std::memory_order_relaxed);
    }
    // Requests that this generation has answered: for workers.recycle.
    void count_served() { served_.fetch_add(1, std::memory_order_relaxed); }
    uint64_t served(uint32_t generation) const {
        std::lock_guard lock(mutex_);
        return generation == generation_ ? served_.load(std::memory_order_relaxed) : 0;
    }
    // A byte of an answer came, or was taken of a request: for health checks. To a millisecond, so that loops
    // that share a busy backend do not fight for this line of memory.
    void note_byte(Time now) {
        if (now - last_byte() >= 1ms)
            last_byte_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    }
    Time last_byte() const { return Time(Duration(last_byte_.load(std::memory_order_relaxed))); }
    void tunnel_begins() { tunnels_.fetch_add(1, std::memory_order_relaxed); }
    void tunnel_ends() { tunnels_.fetch_sub(1, std::memory_order_relaxed); }
    bool has_tunnels() const { return tunnels_.load(std::memory_order_relaxed) > 0; }
    uint32_t generation() const {
        std::lock_guard lock(mutex_);
        return generation_;
    }
    std::string address_text() const {
        std::lock_guard lock(mutex_);
        return generation_ ? address_.text() : std::string();
    }

  private:
    const std::string name_;
    const BackendId id_;
    const uint64_t identity_;
    mutable std::mutex mutex_;
    SocketAddress address_;
    uint32_t generation_ = 0;
    std::atomic<uint64_t> served_{0};
    std::atomic<Duration::rep> last_byte_{0};
    std::atomic<uint32_t> tunnels_{0};
};

class LiveUpstream {
  public:
    LiveUpstream(const Upstream& settings, UpstreamId id, UpstreamLabel label);

    const std::string& name() const { return settings.name; }
    UpstreamId id() const { return id_; }
    UpstreamLabel label() const { return label_; }
    const Upstream settings;
    bool is_limited() const;  // something may make a request wait or be refused: bodies are collected first

    // Main thread. The park gives an id again a minute after it was forgotten: whoever still looked at the
    // one that had it before has long gone on, so that one is freed when the next takes its place.
    Backend& add_backend(std::string name, BackendId id);
    Backend& backend(BackendId id) const { return *shown_[id.index].load(std::memory_order_acquire); }

  private:
    const UpstreamId id_;
    const UpstreamLabel label_;
    std::vector<std::unique_ptr<Backend>> backends_;        // by index
    const std::unique_ptr<std::atomic<Backend*>[]> shown_;  // the same, for all loops
};

// What the park needs to know of the settings.
UpstreamRules rules_of(const Upstream& settings);

}  // namespace penstock
