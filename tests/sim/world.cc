#include "world.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

#include "proxy/affinity.h"

namespace penstock::sim {

namespace {

// Far from zero, which stands for "not yet" in some places, and not at a full millisecond.
constexpr Time first_moment = Time(1000s + 123456ns);
constexpr size_t most_cookies = 8;

}  // namespace

World::World(uint64_t seed, bool tells)
    : seed_(seed),
      tells_(tells),
      plan_(seed),
      now_(first_moment),
      park_(plan_.loops, plan_.chance.draw(), true),
      memory_(plan_.config.limits.memory, plan_.loops),
      shared_{park_, *this, memory_, book_, nullptr, {}},
      fleet_(*this),
      audit_(*this) {
    build();
}

World::~World() {
    loops_.clear();
    wires_.for_each([&](Wire& wire) { wires_.free(&wire); });
}

void World::build() {
    if (plan_.device_slots) {
        park_.add_device(plan_.device_slots);
        device_slots_ = device_allowed_ = plan_.device_slots;
    }
    Wakes wakes;
    for (const PoolPlan& pool : plan_.pools) {
        UpstreamId id = park_.add_upstream(pool.rules);
        upstreams_.push_back(
            std::make_unique<LiveUpstream>(pool.settings, id, book_.upstream(pool.settings.name)));
        const Upstream& s = pool.settings;
        say("{}: {} {} of {} slots, queue {} for {:.3f} s, max_connections {} max_requests {}", s.name,
            pool.backends.size(), pool.spawned ? "workers" : "servers", s.concurrency, s.queue.size,
            seconds(s.queue.timeout), s.circuit_breaker.max_connections, s.circuit_breaker.max_requests);
        numbers_.emplace_back();
        cookies_.emplace_back();
        for (const BackendRules& rules : pool.backends) add_backend(id, rules, wakes);
    }
    std::vector<LiveUpstream*> upstreams;
    for (auto& upstream : upstreams_) upstreams.push_back(upstream.get());
    snapshot_ = std::make_unique<Snapshot>(plan_.config, std::span<LiveUpstream* const>(upstreams), book_);
    for (unsigned i = 0; i < plan_.loops; ++i)
        loops_.push_back(std::make_unique<SimLoop>(*this, shared_, *snapshot_, static_cast<Where>(i), now_));
    deliver(park_, wakes, now_, *this);
    fleet_.start_all();
    invite(chance().around(plan_.clients.patience));
}

void World::add_backend(UpstreamId id, const BackendRules& rules, Wakes& wakes) {
    const auto at = static_cast<size_t>(id);
    const PoolPlan& pool = plan_.pools[at];
    const auto number = static_cast<uint32_t>(processes_.size());
    const std::string name = fmt::format("{}/{}", pool.settings.name, number);
    BackendRules own = rules;
    own.identity = backend_identity(pool.settings.balance, name);
    const BackendId backend = park_.add_backend(id, own, now_, wakes);
    numbers_[at].resize(std::max<size_t>(numbers_[at].size(), backend.index + 1U));
    numbers_[at][backend.index] = number;
    Backend& added = upstreams_[at]->add_backend(name, backend);
    added.requests_per_connection = pool.settings.circuit_breaker.max_requests_per_connection;
    fleet_.add(processes_.emplace_back(*this, pool, backend, own, number), added);
}

void World::add_backend(UpstreamId pool) {
    Wakes wakes;
    const auto& like = plan_.pools[static_cast<size_t>(pool)].backends;
    add_backend(pool, like[chance().below(like.size())], wakes);
    deliver(park_, wakes, now_, *this);
}

// --- time

void World::run() {
    const uint64_t most = 1'000'000 + plan_.requests * 5'000ULL;
    while (!is_traffic_over() || !audit_.is_at_rest()) {
        step();
        audit_.after_step();
        if (steps_ > most) fail("it does not come to rest");
    }
    if (ended_ != facts_.size()) fail("{} requests came, and {} ended", facts_.size(), ended_);
    for (const SeriesBook::FamilyReading& family : book_.series().read()) {
        double counted = 0;
        for (const auto& series : family.series) counted += series.value;
        if (family.family->name == "penstock_requests_total" && counted != ended_)
            fail("{} requests ended, and {} were counted", ended_, counted);
    }
    for (auto& loop : loops_)
        if (loop->data().draining() && !loop->data().finished())
            fail("loop {} has drained, and does not say so", loop->number());
    settle();
    // A device may stay at work for what we gave up at another's server; all else is over.
    for (const Process& process : processes_)
        if (process.rules().spawned && process.wanted() > 0) fail("a worker is still at work");
}

// Nobody comes any more and nobody breaks anything: whatever was ejected, suspected, drained or restarted
// comes back, and what was removed is forgotten.
void World::settle() {
    const Time latest = now_ + 400s;  // no rest is longer than five minutes
    std::string why;
    while (!fleet_.is_settled(why)) {
        if (now_ > latest) fail("all is quiet, and {}", why);
        fleet_.bring_back();
        step();
        audit_.after_step();
    }
}

bool World::is_traffic_over() const {
    if ((invited_ < plan_.requests && !draining_) || coming_ > 0) return false;
    // Who has come may still be in the mail.
    return std::ranges::all_of(loops_,
                               [](auto& loop) { return loop->clients().empty() && !loop->has_mail(); });
}

void World::step() {
    ++steps_;
    while (timeline_.next() <= now_) {
        Event event = timeline_.pop();
        if (event.where == outside)
            happen(event);
        else if (event.where == main_thread)
            fleet_.take(event);
        else
            loops_[event.where]->take(event);
        if (event.what == What::client_comes) {
            --coming_;
            invite(chance().around(plan_.clients.gap));
        }
    }
    const size_t n = loops_.size();
    const size_t first = chance().below(n + 1);
    for (size_t i = 0; i <= n; ++i) {
        const size_t who = (first + i) % (n + 1);
        if (who == n ? !fleet_.has_work(now_) : !loops_[who]->has_work(now_)) continue;
        digest_ = (digest_ ^ who ^ static_cast<uint64_t>(now_.time_since_epoch().count())) * 0x100000001b3;
        who == n ? fleet_.step() : loops_[who]->step(now_);
        now_ += chance().between(Duration{}, plan_.tempo);
        return;
    }
    let_time_pass();
}

void World::let_time_pass() {
    Time next = std::min(timeline_.next(), fleet_.next());
    for (auto& loop : loops_) next = std::min(next, loop->next());
    if (next == never) fail("nothing will ever happen again");
    now_ = std::max(now_, next) + chance().between(Duration{}, plan_.tempo);
}

void World::add(What what, Where where, Duration after, Handle who, uint32_t value) {
    timeline_.add({.at = now_ + after, .who = who, .value = value, .where = where, .what = what});
}

// The next connection, and now and then its friends.
void World::invite(Duration gap) {
    Chance& random = chance();
    uint32_t friends = random.in_thousand(plan_.clients.bursts)
                           ? static_cast<uint32_t>(random.below(random.one_in(4) ? 150 : 20))
                           : 0;
    for (uint32_t i = 0; i <= friends && invited_ < plan_.requests && !draining_; ++i) {
        auto requests = static_cast<uint32_t>(random.between(1, 3));
        invited_ += requests;
        ++coming_;
        add(What::client_comes, static_cast<Where>(random.below(plan_.loops)), gap, {}, requests);
        if (coming_ > 1 + friends) return;  // they invite the next ones
    }
    if (!draining_ && plan_.drains_at && invited_ >= plan_.drains_at) start_drain();
}

void World::start_drain() {
    draining_ = true;
    tally_.count("drained seeds");
    add(What::drain_all, main_thread, latency());
    for (auto& loop : loops_) add(What::drain, loop->number(), latency());
}

// --- outside

void World::happen(const Event& event) {
    switch (event.what) {
        case What::process_is_up: return processes_[event.who.slot].is_up(event.value);
        case What::process_dies: return processes_[event.who.slot].dies(event.value);
        case What::process_wakes_up: return processes_[event.who.slot].wakes_up(event.value);
        default: break;
    }
    Wire* wire = find_wire(event.who);
    if (!wire) return;
    switch (event.what) {
        case What::dialed: wire->process->dialed(*wire); break;
        case What::bytes_for_worker: wire->process->bytes_came(*wire); break;
        case What::work_goes_on: wire->process->go_on(*wire, event.value); break;
        default: fail("an event that happens nowhere");
    }
    if (wire->is_unused()) wires_.free(wire);
}

Wire* World::make_wire(BackendId backend, Where loop, uint32_t generation) {
    return wires_.make(processes_[number_of(backend)], loop, generation);
}

void World::free_later(const Wire& wire) {
    if (wire.is_unused()) add(What::bytes_for_worker, outside, {}, handle(wire));
}

size_t World::number_of(BackendId id) const { return numbers_[static_cast<size_t>(id.upstream)][id.index]; }

void World::wake(const Wake& wake) {
    const WakePlan& habits = plan_.wakes;
    if (chance().in_thousand(habits.lost)) return;
    for (int i = chance().in_thousand(habits.doubled) ? 2 : 1; i > 0; --i)
        add(What::wake, wake.loop, chance().around(habits.delay), wake.to);
}

void World::wake_main() {
    if (chance().in_thousand(plan_.wakes.lost)) return;
    add(What::wake_main, main_thread, chance().around(plan_.wakes.delay));
}

void World::change_device() {
    if (!device_slots_) return;
    device_slots_ = static_cast<uint32_t>(chance().between(1, 5));
    device_allowed_ = std::max(device_allowed_, device_slots_);
    Wakes wakes;
    park_.set_device(DeviceId{0}, device_slots_, now_, wakes);
    deliver(park_, wakes, now_, *this);
}

// --- what must be true

uint32_t World::new_request() {
    facts_.emplace_back();
    return static_cast<uint32_t>(facts_.size());
}

void World::begins(uint32_t request) {
    Facts& of = facts(request);
    if (of.answer_begun && !of.drops_answers)
        fail("request {} is sent again after its answer has begun", request);
    if (of.passed_on) fail("request {} is sent again, and its client has a part of an answer", request);
    if (++of.begun > of.most_begun)
        fail("request {} may be begun {} times, and this is one more", request, of.most_begun);
    if (of.begun > 1) tally_.count("sent again");
    if (of.begun > 1 && of.answer_begun) tally_.count("sent again: after its answer's status");
}

void World::runs(uint32_t request) {
    Facts& of = facts(request);
    ++of.ran;
    served_ += of.ran == 1;
    if (of.ran > of.begun || (!of.repeatable && of.ran > 1)) fail("request {} runs once more", request);
}

void World::ends(uint32_t request, std::string_view how) {
    say("request {} ends: {}", request, how);
    if (++facts(request).ends > 1) fail("request {} ends a second time", request);
    tally_.count(how);
    ++ended_;
}

// 1 to 3600, and a fifth more by chance.
void World::expect_retry_after(std::string_view text) {
    unsigned value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    if (value < 1 || value > 3600 * 6 / 5) fail("retry-after: {}", text);
}

void World::take_cookie(size_t pool, uint32_t request, std::string_view text) {
    const Balance& balance = plan_.pools[pool].settings.balance;
    const std::string_view value = text.substr(0, text.find(';'));
    const size_t process = facts(request).answered_by;
    const uint64_t identity = processes_[process].rules().identity;
    if (!balance.sticky || value != fmt::format("{}={:016x}", balance.sticky->cookie, identity))
        fail("request {} was answered by process {}, and set-cookie says {}", request, process, text);
    tally_.count("cookies set");
    auto& known = cookies_[pool];
    if (known.size() < most_cookies)
        known.emplace_back(value);
    else
        known[chance().below(most_cookies)] = value;
}

std::string_view World::known_cookie(size_t pool) {
    const auto& known = cookies_[pool];
    return known.empty() || chance().one_in(4) ? std::string_view() : known[chance().below(known.size())];
}

void World::expect_room(const Process& process) {
    if (process.rules().slots && process.wanted() > process.allowed())
        fail("{} requests are at work in a process of {} slots", process.wanted(), process.allowed());
    if (process.rules().device == DeviceId::none) return;
    uint32_t on_device = 0;
    for (const Process& each : processes_)
        if (each.rules().device != DeviceId::none) on_device += each.wanted();
    if (on_device > device_allowed_)
        fail("{} requests are at work on a device of {} slots", on_device, device_allowed_);
}

void World::expect_pattern(uint32_t request, uint64_t at, std::string_view run, std::string_view what) {
    if (run.size() <= longest_run && std::memcmp(run.data(), pattern(request, at), run.size()) == 0) return;
    fail("{} of request {} is not what was sent, in {} bytes from {}", what, request, run.size(), at);
}

// --- words

void World::said(const std::string& what) const {
    std::printf("%10.6f step %llu: %s\n", seconds(now_ - first_moment),
                static_cast<unsigned long long>(steps_), what.c_str());
}

void World::describe() const {
    for (auto& loop : loops_) {
        for (const Client* client : loop->clients())
            if (const Exchange* e = client->exchange())
                std::fprintf(stderr, "  loop %u: request %u since %.3f s waits for %s\n", loop->number(),
                             client->number(), seconds(now_ - client->since()),
                             std::string(to_string(e->waiting())).c_str());
            else
                std::fprintf(stderr, "  loop %u: a client that asks for nothing\n", loop->number());
        for (const Connection* connection : loop->connections())
            std::fprintf(stderr, "  loop %u: a connection to %u.%u, generation %u, %s\n", loop->number(),
                         static_cast<unsigned>(connection->backend().upstream), connection->backend().index,
                         connection->generation(), std::string(connection->state()).c_str());
    }
}

void World::failed(const std::string& why) const {
    std::fflush(stdout);
    std::fprintf(stderr, "sim: seed %llu, step %llu, %.6f s: %s\n", static_cast<unsigned long long>(seed_),
                 static_cast<unsigned long long>(steps_), seconds(now_ - first_moment), why.c_str());
    describe();
    std::fprintf(stderr, "again: sim --seed %llu\n", static_cast<unsigned long long>(seed_));
    std::_Exit(1);
}

}  // namespace penstock::sim
