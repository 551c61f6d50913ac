// Everything at once, at random, with the self-check after every call. The seed is printed when it fails.
#include <array>
#include <cstdlib>
#include <doctest/doctest.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "policy/admission.h"

namespace penstock {
namespace {

constexpr uint16_t loops = 3;

struct Chance {
    uint64_t state;
    uint64_t below(uint64_t n) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return state % n;
    }
    bool one_in(uint64_t n) { return below(n) == 0; }
};

// The part of an exchange and its backend session that talks to the park.
struct Caller {
    enum class Step { out, waiting, holds, running, abandoned };
    Step step = Step::out;
    uint16_t loop = 0;
    Ticket ticket;
    Lease lease;
    Time timer = never;
    unsigned tries = 0;
};

// A backend and its connections, as the loops know them.
struct Server {
    BackendId id;
    BackendRules rules;
    bool counts = true;
    uint32_t generation = 0;
    BackendState state = BackendState::down;  // as the supervisor believes
    bool removed = false;
    std::array<uint32_t, loops> idle{};
    uint32_t closing = 0;
};

class Stress {
  public:
    explicit Stress(uint64_t seed)
        : seed_(seed), chance_{seed * 0x9e3779b97f4a7c15 + 1}, park_(loops, seed, true) {
        device_ = park_.add_device(1 + static_cast<uint32_t>(chance_.below(3)));
        for (uint64_t n = 1 + chance_.below(3); n > 0; --n) add_upstream();
        for (int i = 0; i < 24; ++i) callers_.push_back(std::make_unique<Caller>());
    }
    ~Stress() { wind_down(); }

    void run(size_t steps) {
        for (size_t i = 0; i < steps && why_.empty(); ++i) step();
        INFO("seed " << seed_ << ": " << why_);
        CHECK(why_.empty());
        wind_down();
        CHECK(why_.empty());
    }
    size_t granted = 0;

  private:
    // --- One call to the park, with all that must be true after it.
    template <class F>
    auto call(F&& f) {
        Wakes wakes;
        if constexpr (std::is_void_v<decltype(f(wakes))>) {
            f(wakes);
            after(wakes);
        } else {
            auto result = f(wakes);
            after(wakes);
            return result;
        }
    }
    void after(const Wakes& wakes) {
        if (wakes.count > Wakes::capacity) fail("too many wakes");
        for (const Wake& w : wakes)
            if (w.for_loop() && !chance_.one_in(4)) trims_due_[w.loop] = true;
        more_ = wakes.more;
    }
    void check() {
        std::vector<const Lease*> leases;
        std::vector<const Ticket*> waiting;
        for (auto& c : callers_) {
            if (c->lease) leases.push_back(&c->lease);
            if (c->step == Caller::Step::waiting) waiting.push_back(&c->ticket);
        }
        for (Lease& p : probes_)
            if (p) leases.push_back(&p);
        std::string why;
        if (!park_.check(leases, waiting, &why)) fail(why);
    }
    void fail(const std::string& what) {
        if (why_.empty()) why_ = what + " at step " + std::to_string(steps_);
    }

    void step() {
        ++steps_;
        if (chance_.one_in(3))
            now_ += Duration(chance_.below(chance_.one_in(40) ? 2'000'000'000 : 5'000'000));
        const uint64_t what = chance_.below(100);
        if (what < 70)
            turn(*callers_[chance_.below(callers_.size())]);
        else if (what < 77)
            news(servers_[chance_.below(servers_.size())]);
        else if (what < 88)
            connections(servers_[chance_.below(servers_.size())]);
        else if (what < 93)
            tick();
        else if (what < 95)
            probe(servers_[chance_.below(servers_.size())]);
        else if (what < 97)
            call([&](Wakes& w) { park_.resume(now_, w); });
        else if (chance_.one_in(4))
            change();
        check();
        if (chance_.one_in(16)) compare_connections();
    }

    // --- Requests
    void turn(Caller& c) {
        switch (c.step) {
            case Caller::Step::out: return arrive(c);
            case Caller::Step::waiting:
                if (chance_.one_in(8)) {
                    call([&](Wakes& w) { park_.cancel(c.ticket, now_, w); });
                    c.step = Caller::Step::out;
                } else if (now_ >= c.timer || chance_.one_in(2)) {
                    answer(c, call([&](Wakes& w) { return park_.collect(c.ticket, now_, w); }));
                }
                return;
            case Caller::Step::holds: return hold(c);
            case Caller::Step::running: return running(c);
            case Caller::Step::abandoned:
                if (park_.is_over(c.lease) || chance_.one_in(12)) finish(c, Outcome::answered);
                return;
        }
    }
    void arrive(Caller& c) {
        const auto loop = static_cast<uint16_t>(chance_.below(loops));
        c.~Caller();
        new (&c) Caller;
        c.loop = loop;
        c.ticket.upstream = upstreams_[chance_.below(upstreams_.size())];
        c.ticket.bytes = chance_.below(800);
        if (chance_.one_in(5)) c.ticket.deadline = now_ + 1s;
        if (chance_.one_in(8)) c.ticket.excluded.add(chance_.below(4));
        if (chance_.one_in(2)) c.ticket.key = 1 + chance_.below(5);
        c.ticket.fresh = chance_.one_in(4);
        c.ticket.set_wake({loop, {++last_slot_, 1}});
        if (chance_.one_in(4)) {
            // With nothing left over from a call before, peek says what admit will.
            const Admission p = park_.peek(c.ticket.upstream, c.ticket.bytes, c.ticket.deadline, now_);
            if (c.ticket.excluded.empty() && c.ticket.key == 0 && !more_) {
                Admission a = call([&](Wakes& w) { return park_.admit(c.ticket, now_, w); });
                if (p.kind != a.kind || p.refusal != a.refusal) fail("peek and admit differ");
                return answer(c, std::move(a));
            }
        }
        answer(c, call([&](Wakes& w) { return park_.admit(c.ticket, now_, w); }));
    }
    void answer(Caller& c, Admission a) {
        c.lease = std::move(a.lease);
        switch (a.kind) {
            case Admission::Kind::granted:
                ++granted;
                c.step = Caller::Step::holds;
                if (c.lease.how() == Connect::reuse) take_from_pool(c);
                break;
            case Admission::Kind::waiting:
                c.step = Caller::Step::waiting;
                c.timer = a.wait_until;
                if (a.wait_until <= now_) fail("waits until a time that has passed");
                break;
            case Admission::Kind::refused:
                c.step = Caller::Step::out;
                if (a.refusal == Refusal::none || a.retry_after < 1 || a.retry_after > 3600)
                    fail("an odd refusal");
                break;
        }
    }
    void hold(Caller& c) {
        Connect how = c.lease.how();
        if (how == Connect::wait) how = call([&](Wakes& w) { return park_.connect(c.lease, now_, w); });
        if (how == Connect::wait && !chance_.one_in(30)) return;
        if (how == Connect::lost || how == Connect::wait || chance_.one_in(6))
            return finish(c, Outcome::unused);
        if (how == Connect::reuse && chance_.one_in(4)) {
            Server& s = server_of(c);
            const bool alive = is_current(s, c);
            call([&](Wakes& w) { park_.redial(c.lease, now_, w); });
            if (alive) ++s.closing;
            return;
        }
        if (how != Connect::reuse && chance_.one_in(8)) {
            if (chance_.one_in(2) && c.tries++ < 3) return retry(c, Outcome::connect_failed);
            return finish(c, Outcome::connect_failed);
        }
        park_.run(c.lease, now_);
        c.step = Caller::Step::running;
    }
    void running(Caller& c) {
        if (chance_.one_in(5)) {
            const auto how = static_cast<Abandon>(chance_.below(3));
            constexpr std::array so_fars{Outcome::unused, Outcome::cut, Outcome::full, Outcome::bad_answer};
            const Outcome so_far = so_fars[chance_.below(so_fars.size())];
            call([&](Wakes& w) {
                park_.abandon(c.lease, how, {c.loop, {++last_slot_, 1}}, now_, w, so_far);
            });
            c.step = Caller::Step::abandoned;
        } else if (chance_.one_in(3)) {
            constexpr std::array outcomes{Outcome::answered,      Outcome::answered, Outcome::bad_answer,
                                          Outcome::gateway_error, Outcome::full,     Outcome::cut,
                                          Outcome::early_close,   Outcome::stale};
            const Outcome outcome = outcomes[chance_.below(outcomes.size())];
            if (outcome == Outcome::stale && c.tries++ < 3) return retry(c, outcome);
            finish(c, outcome);
        }
    }
    void finish(Caller& c, Outcome outcome) {
        auto keep = static_cast<Keep>(chance_.below(3));
        if (keep == Keep::idle && outcome != Outcome::answered) keep = Keep::closing;
        const Before b = before(c);
        const Ended ended = call([&](Wakes& w) { return park_.finish(c.lease, {outcome, keep}, now_, w); });
        settled(b, keep, ended);
        c.step = Caller::Step::out;
    }
    void retry(Caller& c, Outcome outcome) {
        const Before b = before(c);
        c.ticket.excluded.add(c.lease.backend().index);
        Ended ended;
        Admission a = call([&](Wakes& w) {
            return park_.retry(c.lease, {outcome, Keep::closed}, c.ticket, now_, w, &ended);
        });
        settled(b, Keep::closed, ended);
        answer(c, std::move(a));
    }

    // --- Connections
    struct Before {
        Server* server;
        uint16_t loop;
        bool is_current;
        Connect how;
    };
    Server& server_of(const Caller& c) {
        for (Server& s : servers_)
            if (s.id == c.lease.backend() && !s.removed) return s;
        for (Server& s : servers_)
            if (s.id == c.lease.backend()) return s;
        std::abort();
    }
    static bool is_current(const Server& s, const Caller& c) {
        return s.generation == c.lease.generation() && s.state != BackendState::down;
    }
    Before before(const Caller& c) {
        Server& s = server_of(c);
        return {&s, c.loop, is_current(s, c), c.lease.how()};
    }
    void settled(const Before& b, Keep keep, const Ended& ended) {
        Server& s = *b.server;
        if (!s.counts || !b.is_current) return;
        if (ended.by == Ended::By::given_up) return void(++s.closing);
        if (ended.by == Ended::By::worker_exit) fail("a work of this generation ended by exit");
        if (b.how == Connect::wait || b.how == Connect::lost) return;
        if (ended.keep)
            ++s.idle[b.loop];
        else if (keep != Keep::closed)
            ++s.closing;
    }
    void take_from_pool(Caller& c) {
        Server& s = server_of(c);
        if (s.idle[c.loop] == 0) return fail("told to use an idle connection that is not there");
        --s.idle[c.loop];
    }
    void connections(Server& s) {
        const auto loop = static_cast<uint16_t>(chance_.below(loops));
        if (trims_due_[loop]) {
            trims_due_[loop] = false;
            for (const Trims::Item& item : park_.idle_to_close(loop, now_))
                for (Server& of : servers_)
                    if (of.id == item.backend && of.generation == item.generation) {
                        if (of.idle[loop] < item.connections) fail("told to close what is not there");
                        of.idle[loop] -= item.connections;
                        of.closing += item.connections;
                    }
        } else if (s.idle[loop] > 0 && chance_.one_in(4)) {
            --s.idle[loop], ++s.closing;
            call([&](Wakes& w) { park_.idle_ended(s.id, s.generation, loop, now_, w); });
        } else if (s.closing > 0) {
            --s.closing;
            call([&](Wakes& w) { park_.connection_closed(s.id, s.generation, now_, w); });
        } else if (s.generation > 1 && chance_.one_in(4)) {  // late, of a generation that has ended
            call([&](Wakes& w) { park_.connection_closed(s.id, s.generation - 1, now_, w); });
        }
    }
    void compare_connections() {
        ParkView view;
        park_.describe(view, now_);
        for (const UpstreamView& u : view.upstreams)
            for (const BackendView& b : u.backends)
                for (const Server& s : servers_)
                    if (s.id == b.id && !s.removed && s.counts) {
                        uint32_t idle = 0;
                        for (uint32_t n : s.idle) idle += n;
                        // What was given up closes when its owner has heard of it.
                        uint32_t unheard = 0;
                        for (auto& c : callers_)
                            unheard += c->lease && c->lease.backend() == s.id && is_current(s, *c) &&
                                       c->step == Caller::Step::abandoned && park_.is_over(c->lease);
                        if (idle != b.idle) fail("idle connections differ");
                        if (s.closing + unheard != b.closing) fail("closing connections differ");
                    }
    }

    // --- Backends
    void say(Server& s, BackendNews::Event event, uint32_t generation, Time until = never) {
        const BackendNews news{.event = event, .generation = generation, .until = until, .restart_cost = {}};
        call([&](Wakes& w) { park_.backend_event(s.id, news, now_, w); });
    }
    void end_generation(Server& s) {
        s.state = BackendState::down;
        s.idle = {};
        s.closing = 0;
    }
    void news(Server& s) {
        using Event = BackendNews::Event;
        if (s.removed) return;
        const Time later = now_ + Duration(chance_.below(1'000'000'000));
        if (s.state == BackendState::down) {
            if (removing_[key(s.id)]) return;
            ++s.generation;
            s.state = s.rules.spawned ? BackendState::starting : BackendState::ready;
            const Time expected = chance_.one_in(3) ? never : later;
            return say(s, s.rules.spawned ? Event::starting : Event::ready, s.generation, expected);
        }
        if (s.state == BackendState::starting && !chance_.one_in(5)) {
            s.state = BackendState::ready;
            return say(s, Event::ready, s.generation);
        }
        if (chance_.one_in(2)) {  // good news, so that there is something to lose
            constexpr std::array good{Event::undrain, Event::alive, Event::ready, Event::healthy};
            return say(s, good[chance_.below(good.size())], s.generation);
        }
        switch (chance_.below(11)) {
            case 0: return say(s, Event::suspect, s.generation);
            case 1:
            case 2: return say(s, Event::alive, s.generation);
            case 3: return say(s, Event::probe_failed, s.generation);
            case 4: return say(s, Event::eject, s.generation, chance_.one_in(4) ? never : later);
            case 5: return say(s, Event::ready, s.generation);
            case 6: return say(s, Event::undrain, s.generation);
            case 8: return say(s, Event::unhealthy, s.generation);
            case 9: return say(s, Event::healthy, s.generation);
            case 7:
                return say(s, chance_.one_in(2) ? Event::idle_stop : Event::drain, s.generation,
                           chance_.one_in(2) ? never : later);
            default:
                if (!s.rules.spawned) return;
                end_generation(s);
                return say(s, chance_.one_in(5) ? Event::gave_up : Event::exited, s.generation, later);
        }
    }
    void probe(Server& s) {
        if (!s.removed && probes_.size() < 3) {
            Lease lease = park_.probe(s.id, now_);
            if (lease) probes_.push_back(std::move(lease));
        } else if (!probes_.empty()) {
            call([&](Wakes& w) { park_.finish(probes_.back(), {Outcome::answered, Keep::closed}, now_, w); });
            probes_.pop_back();
        }
    }
    void tick() {
        Actions actions;
        const Time next = call([&](Wakes& w) { return park_.tick(now_, w, actions); });
        if (next > now_ + 1s) fail("tick sleeps too long");
        for (const Action& a : actions)
            for (Server& s : servers_)
                if (s.id == a.backend && !s.removed) act(s, a);
    }
    void act(Server& s, const Action& a) {
        using Kind = Action::Kind;
        if (a.generation != s.generation) return fail("an action for a dead generation");
        if (a.kind == Kind::probe && chance_.one_in(2)) say(s, BackendNews::Event::alive, s.generation);
        if (a.kind == Kind::restart || a.kind == Kind::stop) {
            if (a.kind == Kind::restart) ++restarts;
            end_generation(s);
            say(s, BackendNews::Event::exited, s.generation, now_ + 100ms);
        }
        if (a.kind == Kind::forget && park_.forget(s.id)) s.removed = true;
    }

    // --- Changes
    void change() {
        const size_t u = chance_.below(upstreams_.size());
        switch (chance_.below(4)) {
            case 0: {
                Server& s = servers_[chance_.below(servers_.size())];
                if (s.removed || removing_[key(s.id)]) return;
                s.rules.slots = 1 + static_cast<uint32_t>(chance_.below(4));
                s.rules.max_connections = static_cast<uint32_t>(chance_.below(4));
                call([&](Wakes& w) { park_.set_rules(s.id, s.rules, now_, w); });
                return;
            }
            case 1:
                rules_[u].queue_size = static_cast<uint32_t>(chance_.below(12));
                if (rules_[u].max_requests)
                    rules_[u].max_requests = 1 + static_cast<uint32_t>(chance_.below(5));
                call([&](Wakes& w) { park_.set_rules(upstreams_[u], rules_[u], now_, w); });
                return;
            case 2:
                call([&](Wakes& w) {
                    park_.set_device(device_, 1 + static_cast<uint32_t>(chance_.below(4)), now_, w);
                });
                return;
            default: {
                Server& s = servers_[chance_.below(servers_.size())];
                if (s.removed || removing_[key(s.id)] || servers_.size() > 40) return;
                removing_[key(s.id)] = true;
                call([&](Wakes& w) { park_.remove_backend(s.id, now_, w); });
                add_backend(static_cast<size_t>(s.id.upstream));
            }
        }
    }
    static uint32_t key(BackendId id) { return static_cast<uint32_t>(id.upstream) << 16 | id.index; }
    void add_upstream() {
        UpstreamRules rules;
        rules.queue_size = static_cast<uint32_t>(chance_.below(12));
        rules.queue_bytes = chance_.one_in(2) ? 0 : 2000;
        rules.queue_timeout = chance_.one_in(2) ? 3s : 300ms;
        rules.start_timeout = chance_.one_in(2) ? 5s : 500ms;
        rules.refuse_hopeless = chance_.one_in(4);
        rules.max_requests = chance_.one_in(4) ? 3 : 0;
        rules.max_connections = chance_.one_in(3) ? 3 : 0;
        rules.counts_connections = !chance_.one_in(4);
        rules.abandon_grace = 200ms;
        if (chance_.one_in(2)) {
            rules.outlier = {.consecutive_5xx = 2,
                             .consecutive_gateway_errors = 1,
                             .consecutive_local_errors = 2,
                             .interval = 500ms,
                             .base_ejection_time = 300ms,
                             .max_ejection_time = 1s,
                             .ejection_jitter = 50ms,
                             .max_ejection_percent = 70,
                             .min_healthy = static_cast<uint32_t>(chance_.below(3)),
                             .success_rate = OutlierRules::SuccessRate{1, 2, 2},
                             .failure_percentage = OutlierRules::FailurePercentage{50, 1, 2},
                             .restart_after = static_cast<uint32_t>(chance_.below(3))};
        }
        rules.abandon_limit = 1s;
        rules.slow_start = chance_.one_in(4) ? 2s : 0s;
        rules.balancing = static_cast<Balancing>(chance_.below(4));
        rules.affinity = static_cast<Affinity>(chance_.below(3));
        rules.patience = chance_.one_in(2) ? 100ms : 0s;
        rules.balance_factor = chance_.one_in(2) ? 125 : 0;
        upstreams_.push_back(park_.add_upstream(rules));
        rules_.push_back(rules);
        for (uint64_t n = 1 + chance_.below(4); n > 0; --n) add_backend(upstreams_.size() - 1);
    }
    void add_backend(size_t upstream) {
        Server s;
        s.rules = {.slots = static_cast<uint32_t>(chance_.below(4)),
                   .weight = 1 + static_cast<uint32_t>(chance_.below(3)),
                   .max_connections = chance_.one_in(3) ? 1 + static_cast<uint32_t>(chance_.below(3)) : 0,
                   .identity = chance_.one_in(2) ? 1 + chance_.below(5) : 0,
                   .backup = chance_.one_in(6),
                   .spawned = chance_.one_in(2),
                   .device = chance_.one_in(3) ? device_ : DeviceId::none};
        s.counts = rules_[upstream].counts_connections;
        s.id = call([&](Wakes& w) { return park_.add_backend(upstreams_[upstream], s.rules, now_, w); });
        removing_[key(s.id)] = false;
        servers_.push_back(s);
    }

    // Everything ends; nothing may be left.
    void wind_down() {
        if (wound_down_) return;
        wound_down_ = true;
        for (auto& c : callers_) {
            if (c->step == Caller::Step::waiting) call([&](Wakes& w) { park_.cancel(c->ticket, now_, w); });
            if (c->lease) finish(*c, c->step == Caller::Step::holds ? Outcome::unused : Outcome::answered);
        }
        while (!probes_.empty()) {
            call([&](Wakes& w) { park_.finish(probes_.back(), {Outcome::unused, Keep::closed}, now_, w); });
            probes_.pop_back();
        }
        ParkView view;
        park_.describe(view, now_);
        for (const UpstreamView& u : view.upstreams)
            if (u.used || u.depth || u.bytes) fail("something is left at the end");
        for (const DeviceView& d : view.devices)
            if (d.used) fail("a device slot is left at the end");
        check();
    }

    const uint64_t seed_;
    Chance chance_;
    Time now_{1000s};
    Park park_;
    DeviceId device_{};
    std::vector<UpstreamId> upstreams_;
    std::vector<UpstreamRules> rules_;
    std::vector<Server> servers_;
    std::map<uint32_t, bool> removing_;
    std::vector<std::unique_ptr<Caller>> callers_;
    std::vector<Lease> probes_;
    std::array<bool, loops> trims_due_{};
    uint32_t last_slot_ = 0;
    size_t steps_ = 0;
    bool more_ = false;
    bool wound_down_ = false;
    std::string why_;

  public:
    size_t restarts = 0;
};

TEST_CASE("whatever happens in whatever order, the park's numbers are right after every call") {
    size_t granted = 0, restarts = 0;
    // PENSTOCK_SEED=n plays that one again, PENSTOCK_SEEDS=n plays so many.
    const char* one = std::getenv("PENSTOCK_SEED");
    const char* many = std::getenv("PENSTOCK_SEEDS");
    const uint64_t first = one ? std::strtoull(one, nullptr, 10) : 1;
    const uint64_t last = one ? first : many ? std::strtoull(many, nullptr, 10) : 200;
    for (uint64_t seed = first; seed <= last; ++seed) {
        Stress stress(seed);
        stress.run(5000);
        granted += stress.granted;
        restarts += stress.restarts;
    }
    if (last - first < 199) return;
    CHECK(granted > 20'000);  // it did something
    CHECK(restarts > 50);
}

}  // namespace
}  // namespace penstock
