// One park, many threads: loops with mailboxes of their own, some wakes lost and some doubled. At the end
// nothing is held and nobody was forgotten. Under TSan, this is the check of the lock.
#include <atomic>
#include <deque>
#include <doctest/doctest.h>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "policy/admission.h"

namespace penstock {
namespace {

constexpr unsigned loops = 3;
constexpr unsigned backends = 3;
constexpr uint32_t slots = 2;
constexpr int requests_per_loop = 4000;

struct Mailboxes {
    std::mutex mutex[loops];
    std::vector<Wake> letters[loops];

    void post(const Wakes& wakes, uint64_t& chance) {
        for (const Wake& w : wakes) {
            chance = chance * 6364136223846793005 + 1442695040888963407;
            const auto fate = chance >> 60;  // one in 16 is lost, one in 16 doubled
            const std::lock_guard lock(mutex[w.loop]);
            for (int n = fate == 0 ? 0 : fate == 1 ? 2 : 1; n > 0; --n) letters[w.loop].push_back(w);
        }
    }
    std::vector<Wake> take(unsigned loop) {
        const std::lock_guard lock(mutex[loop]);
        return std::exchange(letters[loop], {});
    }
};

// What the workers themselves would count.
struct Workers {
    std::atomic<uint32_t> running[backends]{};
    std::atomic<uint32_t> connections[backends]{};
    std::atomic<bool> too_many = false;

    void begin(size_t b) {
        if (++running[b] > slots) too_many = true;
    }
};

struct Exchange {
    Ticket ticket;
    Lease lease;
    bool waits = false;
    bool waits_for_permit = false;
};

class LoopThread {
  public:
    LoopThread(Park& park, Mailboxes& mail, Workers& workers, UpstreamId upstream, uint16_t index)
        : park_(park),
          mail_(mail),
          workers_(workers),
          upstream_(upstream),
          index_(index),
          chance_(index + 77) {}

    void run() {
        int begun = 0;
        while (begun < requests_per_loop || !live_.empty()) {
            now_ = monotonic_now();
            if (begun < requests_per_loop && live_.size() < 12) {
                ++begun;
                arrive(static_cast<uint32_t>(begun));
            }
            for (const Wake& w : mail_.take(index_))
                if (w.for_loop())
                    trim();
                else
                    wake(w.to.slot);
            for (auto& e : std::deque(live_)) turn(*e);
        }
        // The pools close.
        for (size_t b = 0; b < backends; ++b)
            for (; pool_[b] > 0; --pool_[b])
                call([&](Wakes& w) {
                    park_.idle_ended(id(b), 1, index_, now_, w);
                    --workers_.connections[b];
                    park_.connection_closed(id(b), 1, now_, w);
                });
    }
    int served = 0;

  private:
    template <class F>
    void call(F&& f) {
        Wakes wakes;
        f(wakes);
        mail_.post(wakes, chance_);
        while (wakes.more) {
            wakes.count = 0;
            wakes.more = false;
            park_.resume(now_, wakes);
            mail_.post(wakes, chance_);
        }
    }
    uint64_t random(uint64_t n) {
        chance_ = chance_ * 6364136223846793005 + 1442695040888963407;
        return (chance_ >> 33) % n;
    }
    BackendId id(size_t b) const { return {upstream_, static_cast<uint16_t>(b)}; }

    void arrive(uint32_t number) {
        auto e = std::make_shared<Exchange>();
        e->ticket.upstream = upstream_;
        e->ticket.bytes = 100;
        e->ticket.set_wake({index_, {number, 1}});
        Admission a;
        call([&](Wakes& w) { a = park_.admit(e->ticket, now_, w); });
        live_.push_back(e);
        answer(*e, std::move(a));
    }
    void answer(Exchange& e, Admission a) {
        e.waits = a.kind == Admission::Kind::waiting;
        e.lease = std::move(a.lease);
        if (a.kind == Admission::Kind::refused) return forget(e);
        if (e.lease) connect(e, e.lease.how());
    }
    void connect(Exchange& e, Connect how) {
        const size_t b = e.lease.backend().index;
        e.waits_for_permit = how == Connect::wait;
        if (how == Connect::wait) return;
        if (how == Connect::lost) {
            call([&](Wakes& w) { park_.finish(e.lease, {Outcome::unused, Keep::closed}, now_, w); });
            return forget(e);
        }
        if (how == Connect::reuse) --pool_[b];
        if (how == Connect::dial && ++workers_.connections[b] > slots) workers_.too_many = true;
        workers_.begin(b);
        park_.run(e.lease, now_);
    }
    void wake(uint32_t slot) {
        for (auto& e : std::deque(live_))
            if (e->ticket.wake_handle().slot == slot) ask(*e);
    }
    void ask(Exchange& e) {
        if (e.waits) {
            Admission a;
            call([&](Wakes& w) { a = park_.collect(e.ticket, now_, w); });
            answer(e, std::move(a));
        } else if (e.waits_for_permit) {
            Connect how = Connect::wait;
            call([&](Wakes& w) { how = park_.connect(e.lease, now_, w); });
            connect(e, how);
        }
    }
    void turn(Exchange& e) {
        if (e.waits) {
            if (random(3000) > 0) return;
            call([&](Wakes& w) { park_.cancel(e.ticket, now_, w); });
            return forget(e);
        }
        if (e.waits_for_permit || !e.lease || random(3) > 0) return;
        const size_t b = e.lease.backend().index;
        if (random(10) == 0)
            call([&](Wakes& w) { park_.abandon(e.lease, Abandon::drain, {index_, {1U << 30, 1}}, now_, w); });
        --workers_.running[b];
        Ended ended;
        call([&](Wakes& w) { ended = park_.finish(e.lease, {Outcome::answered, Keep::idle}, now_, w); });
        ++served;
        if (ended.keep) {
            ++pool_[b];
        } else {
            --workers_.connections[b];
            call([&](Wakes& w) { park_.connection_closed(id(b), 1, now_, w); });
        }
        forget(e);
    }
    void trim() {
        const Trims trims = park_.idle_to_close(index_, now_);
        for (const Trims::Item& item : trims)
            for (uint32_t n = item.connections; n > 0; --n) {
                --pool_[item.backend.index];
                --workers_.connections[item.backend.index];
                call([&](Wakes& w) { park_.connection_closed(item.backend, item.generation, now_, w); });
            }
    }
    void forget(Exchange& e) {
        std::erase_if(live_, [&](const auto& other) { return other.get() == &e; });
    }

    Park& park_;
    Mailboxes& mail_;
    Workers& workers_;
    const UpstreamId upstream_;
    const uint16_t index_;
    uint64_t chance_;
    Time now_{};
    std::deque<std::shared_ptr<Exchange>> live_;
    uint32_t pool_[backends]{};
};

TEST_CASE("with many loops at once no worker has more than its slots, and no slot is lost") {
    Park park(loops, 5, true);
    Mailboxes mail;
    Workers workers;
    UpstreamRules rules;
    rules.queue_timeout = 0s;
    const UpstreamId upstream = park.add_upstream(rules);
    Wakes wakes;
    for (unsigned i = 0; i < backends; ++i) {
        const BackendId id = park.add_backend(upstream, {.slots = slots}, monotonic_now(), wakes);
        park.backend_event(id, {.event = BackendNews::Event::ready, .generation = 1}, monotonic_now(), wakes);
    }

    std::atomic<bool> done = false;
    std::string why;
    bool all_true = true;
    std::thread main_loop([&] {
        uint64_t chance = 1;
        while (!done) {
            Wakes w;
            Actions actions;
            park.tick(monotonic_now(), w, actions);
            mail.post(w, chance);
            all_true = all_true && park.check(&why);
            std::this_thread::yield();
        }
    });
    std::vector<std::unique_ptr<LoopThread>> parts;
    std::vector<std::thread> threads;
    for (uint16_t i = 0; i < loops; ++i)
        parts.push_back(std::make_unique<LoopThread>(park, mail, workers, upstream, i));
    for (auto& part : parts) threads.emplace_back([&part] { part->run(); });
    for (auto& t : threads) t.join();
    done = true;
    main_loop.join();

    INFO(why);
    CHECK(all_true);
    CHECK_FALSE(workers.too_many);
    int served = 0;
    for (auto& part : parts) served += part->served;
    CHECK(served > 0);
    ParkView view;
    park.describe(view, monotonic_now());
    CHECK(view.upstreams[0].used == 0);
    CHECK(view.upstreams[0].depth == 0);
    CHECK(view.upstreams[0].connections == 0);
    for (size_t b = 0; b < backends; ++b) {
        CHECK(workers.running[b] == 0);
        CHECK(workers.connections[b] == 0);
    }
}

}  // namespace
}  // namespace penstock
