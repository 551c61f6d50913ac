#include "audit.h"

#include <algorithm>

#include "process.h"
#include "world.h"

namespace penstock::sim {

using Step = Exchange::Step;
using Place = Ticket::Place;

void Audit::after_step() {
    walk();
    check_park();
    check_order();
    check_memory();
    check_connections();
    check_homes();
    if (++steps_ % 64 != 0) return;
    compare_with_production();
    compare_with_park();
}

void Audit::walk() {
    leases_.clear();
    waiting_.clear();
    for (auto& loop : world_.loops()) {
        for (Client* client : loop->clients()) {
            const Exchange* exchange = client->exchange();
            if (!exchange) continue;
            if (exchange->lease()) leases_.push_back(&exchange->lease());
            const bool is_leased = static_cast<bool>(exchange->lease());
            if (is_leased && !client->seen.leased)
                world_.fleet().expect_in_service(exchange->lease().backend());
            client->seen.leased = is_leased;
            if (exchange->step() == Step::queued) waiting_.push_back(&exchange->ticket());
            check_exchange(*client, *loop);
        }
        for (const Connection* connection : loop->connections())
            if (connection->lease()) leases_.push_back(&connection->lease());
    }
    world_.fleet().collect(leases_);
}

void Audit::check_park() {
    if (!world_.park().check(leases_, waiting_, &why_)) world_.fail("the park: {}", why_);
}

// Whoever is not marked waits for one thing, and its deadline is armed and has not been missed.
void Audit::check_exchange(Client& client, SimLoop& loop) {
    Exchange& exchange = *client.exchange();
    // A pooled connection that was promised is taken in the same run; until then nobody may look at the pool.
    if (exchange.lease() && exchange.lease().how() == Connect::reuse)
        world_.fail("request {} was granted a pooled connection, and does not take it", client.number());
    if (exchange.Link<MarkTag>::is_linked()) return;
    if (exchange.client_left) world_.fail("request {} goes on without its client", client.number());
    check_time(client, loop.now());
    const Waiting what = exchange.waiting();
    const Limits& limits = world_.plan().config.limits;
    Duration timeout{};
    const Timeouts* timeouts = exchange.upstream() ? &exchange.upstream()->settings.timeouts : nullptr;
    switch (what) {
        case Waiting::nothing: break;
        case Waiting::client_bytes: timeout = limits.client_body_timeout; break;
        case Waiting::client_drain: timeout = limits.client_write_timeout; break;
        case Waiting::rate_limit:
        case Waiting::slot: timeout = 1s; break;  // limiter or park says for how long, but never for ever
        case Waiting::connect: timeout = timeouts->connect; break;
        case Waiting::backend_bytes:
            timeout = exchange.response.has_head() ? timeouts->idle : timeouts->first_byte;
            break;
        case Waiting::backoff: timeout = 1s; break;  // at most max_backoff, and then until a fate is known
        case Waiting::either_message:
        case Waiting::backend_drain:
        case Waiting::tunnel: timeout = timeouts->idle; break;
    }
    if (what == Waiting::nothing) world_.fail("request {} waits for nothing", client.number());
    if (timeout == Duration{}) return;
    if (!exchange.deadline().is_armed())
        world_.fail("request {} on loop {} waits for {} without a deadline", client.number(), loop.number(),
                    to_string(what));
    if (exchange.deadline().at() + 1ms < loop.now() && loop.next() > loop.now() + 1ms)
        world_.fail("request {} on loop {} has missed its deadline", client.number(), loop.number());
}

// Nothing but a client that reads slowly keeps a request longer than timeouts.request.
void Audit::check_time(Client& client, Time now) {
    const Exchange& exchange = *client.exchange();
    LiveUpstream* upstream = client.exchange()->upstream();
    if (client.seen.began == never) client.seen.began = now;
    if (!upstream || exchange.step() == Step::answered) return;
    if (exchange.response.is_complete() && (!exchange.response.tunnel || exchange.request.is_sent())) return;
    const Duration timeout = upstream->settings.timeouts.request;
    // Late by 1 ms and a turn: this one, if the deadline came in it.
    if (timeout > Duration{} && now > client.seen.began + timeout + 2ms)
        world_.fail("request {} takes longer than it may", client.number());
}

// Nobody is granted a slot in a step in which somebody who came before it, and takes any slot, waited before
// the step and waits after it.
void Audit::check_order() {
    granted_.clear();
    passed_over_.clear();
    homes_.clear();
    for (auto& loop : world_.loops())
        for (Client* client : loop->clients()) {
            Exchange* exchange = client->exchange();
            if (!exchange) continue;
            Client::Seen& seen = client->seen;
            const Step step = exchange->step();
            const Place place = step == Step::queued ? world_.park().place(exchange->ticket()) : Place::out;
            const bool holds = step == Step::connecting || step == Step::relaying;
            if (seen.arrival == 0 && (holds || step == Step::queued)) seen.arrival = ++arrivals_;
            const Asker asker{exchange->ticket().upstream, seen.arrival, exchange->ticket().excluded.empty()};
            const bool came_by = holds && seen.place != Place::granted && seen.step < Step::connecting;
            const bool patient = world_.park().is_patient(exchange->ticket());
            if (came_by || (place == Place::granted && seen.place != Place::granted))
                granted_.push_back(asker);
            else if (place == Place::waiting && seen.place == Place::waiting &&
                     exchange->ticket().excluded.empty() && !patient && !seen.patient)
                passed_over_.push_back(asker);
            const bool is_placed = holds && seen.step < Step::connecting;
            const bool may_be_home = place == Place::granted && (seen.patient || has_home(*client));
            if (is_placed || may_be_home || has_home(*client))
                homes_.push_back({client, is_placed, came_by, may_be_home, seen.patient});
            if (step == Step::queued && seen.step != Step::queued) seen.queued = world_.now();
            seen.step = step;
            seen.place = place;
            seen.patient = patient;
            if (patient) check_patience(*client);
        }
    for (const Asker& lucky : granted_)
        for (const Asker& other : passed_over_)
            if (lucky.upstream == other.upstream && lucky.arrival > other.arrival && !may_use_backup(lucky))
                world_.fail("arrival {} overtakes arrival {} in pool {}", lucky.arrival, other.arrival,
                            static_cast<int>(lucky.upstream));
    if (!granted_.empty()) check_return();
}

// Who has tried the primaries may take a backup, which nobody else is let to while one of them is Ready.
bool Audit::may_use_backup(const Asker& asker) const {
    const auto& backends = world_.plan().pools[static_cast<size_t>(asker.upstream)].backends;
    return !asker.goes_anywhere && std::ranges::any_of(backends, &BackendRules::backup);
}

// A backend that has rested, and only waits for its probing request, gets the next one of its pool, unless
// it is another one that returns. (A session may stay at home instead.)
void Audit::check_return() {
    world_.park().describe(view_, world_.now());
    resting_.clear();
    for (const UpstreamView& pool : view_.upstreams)
        for (const BackendView& b : pool.backends)
            if (b.state == BackendState::resting) resting_.push_back({b.id, b.generation, b.since, b.unfit});
    const auto was = [&](const Resting& one) { return std::ranges::find(rested_, one) != rested_.end(); };
    for (const Asker& asker : granted_) {
        const size_t pool = static_cast<size_t>(asker.upstream);
        if (!asker.goes_anywhere || world_.plan().pools[pool].rules.affinity == Affinity::by_name) continue;
        const Resting* left = nullptr;
        bool one_returns = false;
        for (const Resting& one : resting_) {
            if (one.backend.upstream != asker.upstream) continue;
            if (one.unfit == Unfit::fit && was(one)) left = &one;
            one_returns = one_returns || one.unfit == Unfit::probing;
        }
        if (left && !one_returns)
            world_.fail("arrival {} goes elsewhere, and backend {} of pool {} waits for a probing request",
                        asker.arrival, left->backend.index, pool);
    }
    rested_.swap(resting_);
}

// --- homes

bool Audit::has_home(const Client& client) { return client.seen.home.upstream != UpstreamId::none; }

// After all else: whoever looks at the park moves its clock, and slots may open with time.
void Audit::check_homes() {
    for (const Homecoming& one : homes_) {
        if (one.is_placed) check_home(*one.client, one.at_once);
        note_home(*one.client, one.may_be_home, one.was_patient);
    }
}

// It may wait for its home alone, but not longer than its pool says. From then on it is as anybody else.
void Audit::check_patience(Client& client) {
    const Exchange& exchange = *client.exchange();
    const Ticket& ticket = exchange.ticket();
    const Duration patience = client.exchange()->upstream()->settings.balance.patience;
    if (ticket.key == 0 || patience == Duration{} || !ticket.excluded.empty())
        world_.fail("request {} waits for a home, and has none to wait for", client.number());
    if (exchange.Link<MarkTag>::is_linked()) return;
    if (exchange.deadline().at() > client.seen.queued + patience)
        world_.fail("request {} waits for its home longer than it may", client.number());
}

// Granted its home, it keeps it while that is in service; else it may have been granted another since.
void Audit::note_home(Client& client, bool may_be_home, bool was_patient) {
    if (!may_be_home) return void(client.seen.home = {});
    const BackendView* home = home_of(client.exchange()->ticket());
    const bool is_same = home && (was_patient || home->id == client.seen.home);
    client.seen.home = is_same ? home->id : BackendId{};
}

// Whoever was placed at once went home if there was room; whoever waited for his home has got it.
void Audit::check_home(const Client& client, bool at_once) {
    const Ticket& ticket = client.exchange()->ticket();
    const Lease& lease = client.exchange()->lease();
    const UpstreamRules& rules = world_.plan().pools[static_cast<size_t>(ticket.upstream)].rules;
    if (ticket.key == 0 || rules.affinity == Affinity::none) return;
    const BackendId on = lease ? lease.backend() : client.seen.on;
    const BackendView* home = home_of(ticket);
    if (!home) return world_.tally().count("homes that are not there");
    const bool waited = home->id == client.seen.home;
    if (home->id == on) return world_.tally().count(waited ? "homes waited for" : "at home");
    world_.tally().count("away from home");
    // One that comes back from a rest: the request is its probing one.
    const BackendView* taker = world_.fleet().view_of(world_.number_of(on), view_);
    if (!taker || taker->state != BackendState::ready) return;
    // It may have got its home and not been able to connect to it, and then found that beyond its share.
    const bool is_bounded = rules.affinity == Affinity::by_hash && rules.balance_factor > 0;
    if (!ticket.excluded.empty() || is_bounded) return;
    if (waited) world_.fail("request {} waited for its home, and got another", client.number());
    // Its slow start may have opened a slot since.
    if (rules.slow_start > Duration{} && world_.now() < home->since + rules.slow_start + 5ms) return;
    if (at_once && home->unfit == Unfit::fit)
        world_.fail("request {} is away from its home, which has room", client.number());
}

// As the park should see it: of those in service the one whose name it is, or that its key likes best.
const BackendView* Audit::home_of(const Ticket& ticket) {
    const auto pool = static_cast<size_t>(ticket.upstream);
    const Affinity affinity = world_.plan().pools[pool].rules.affinity;
    if (ticket.key == 0 || affinity == Affinity::none) return nullptr;
    world_.park().describe(view_, world_.now());
    const auto& backends = view_.upstreams[pool].backends;
    auto process_of = [&](const BackendView& b) -> const Process& {
        return world_.processes()[world_.number_of(b.id)];
    };
    auto serves = [&](const BackendView& b) {
        return b.state == BackendState::ready && !b.restarting &&
               !world_.fleet().is_removed(world_.number_of(b.id));
    };
    const bool primary = std::ranges::any_of(
        backends, [&](const BackendView& b) { return serves(b) && !process_of(b).rules().backup; });
    candidates_.clear();
    for (const BackendView& b : backends) {
        const BackendRules& own = process_of(b).rules();
        const bool eligible = serves(b) && !(own.backup && primary) &&
                              (affinity == Affinity::by_hash || own.identity == ticket.key);
        candidates_.push_back({.weight = own.weight, .eligible = eligible, .identity = own.identity});
    }
    const int found =
        affinity == Affinity::by_hash ? by_hash(candidates_, ticket.key) : first_eligible(candidates_);
    return found == no_candidate ? nullptr : &backends[static_cast<size_t>(found)];
}

void Audit::check_memory() {
    const MemoryTotal& total = world_.memory();
    if (total.borrowed() > total.limit())
        world_.fail("{} bytes of memory are reserved, {} is the limit", total.borrowed(), total.limit());
    for (auto& loop : world_.loops()) {
        // A body may go one chunk beyond what it has reserved, where it could not move at all otherwise; and
        // each exchange has an arena for its heads.
        const auto used = static_cast<size_t>(loop->data().memory().used());
        const size_t most = used + loop->clients().size() * (2 * 16 * KiB + 8 * KiB);
        if (loop->chunks().bytes_in_use() > most)
            world_.fail("loop {} uses {} bytes of chunks, and has reserved {}", loop->number(),
                        loop->chunks().bytes_in_use(), used);
    }
}

void Audit::check_connections() {
    connections_.assign(world_.processes().size(), 0);
    for (auto& loop : world_.loops())
        for (const Connection* connection : loop->connections()) {
            const size_t process = connection->process();
            if (connection->generation() == world_.fleet().generation_of(process)) ++connections_[process];
        }
    for (size_t i = 0; i < connections_.size(); ++i) {
        const Process& process = world_.processes()[i];
        if (process.rules().slots && connections_[i] > process.allowed())
            world_.fail("{} connections are open to process {}, which has {} slots", connections_[i], i,
                        process.allowed());
    }
}

// What production would find by walking its loops, for its own self-check.
void Audit::compare_with_production() {
    std::vector<const Lease*> leases;
    std::vector<const Ticket*> waiting;
    for (auto& loop : world_.loops()) {
        loop->data().collect_claims(leases, waiting);
        for (const Connection* connection : loop->connections())
            if (connection->lease()) leases.push_back(&connection->lease());
    }
    world_.fleet().collect(leases);
    std::ranges::sort(leases);
    std::ranges::sort(leases_);
    if (leases != leases_ || waiting.size() != waiting_.size())
        world_.fail("the loops claim {} leases and {} tickets; {} and {} are there", leases.size(),
                    waiting.size(), leases_.size(), waiting_.size());
}

void Audit::compare_with_park() {
    idle_.assign(world_.processes().size(), 0);
    for (auto& loop : world_.loops())
        for (const Connection* connection : loop->connections()) {
            const size_t process = connection->process();
            if (connection->is_idle() && connection->generation() == world_.fleet().generation_of(process))
                ++idle_[process];
        }
    world_.park().describe(view_, world_.now());
    for (Process& process : world_.processes()) {
        const BackendView* known = world_.fleet().view_of(process.number(), view_);
        if (!known) continue;  // removed, and forgotten
        const BackendView& b = *known;
        const size_t number = process.number();
        if (b.idle != idle_[number])
            world_.fail("the park counts {} idle connections to process {}, the pools hold {}", b.idle,
                        number, idle_[number]);
        const uint32_t connections = b.dialing + b.busy + b.idle + b.closing;
        if (process.is_above_slots() && std::max(b.used, connections) <= process.rules().slots)
            process.came_down();
    }
}

bool Audit::is_at_rest() {
    for (auto& loop : world_.loops()) {
        if (!loop->is_empty()) return false;
        if (loop->data().memory().used() != 0 || loop->chunks().live() != 0)
            world_.fail("loop {} is empty and holds {} bytes and {} chunks", loop->number(),
                        loop->data().memory().used(), loop->chunks().live());
    }
    if (!world_.fleet().is_quiet()) return false;
    world_.park().describe(view_, world_.now());
    for (const UpstreamView& pool : view_.upstreams) {
        if (pool.depth > 0 || pool.bytes > 0) world_.fail("nobody is there, and {} wait", pool.depth);
        if (pool.used > 0 || pool.abandoned > 0)
            world_.fail("nobody is there, and {} slots are used", pool.used);
        for (const CircuitView& circuit : pool.circuits)
            if (circuit.limit == CircuitLimit::retries && circuit.now > 0)
                world_.fail("nobody is there, and {} are being tried again", circuit.now);
        if (pool.connections > 0) world_.fail("nobody is there, and {} connections count", pool.connections);
    }
    for (const DeviceView& device : view_.devices)
        if (device.used > 0) world_.fail("nobody is there, and a device is used");
    return true;
}

}  // namespace penstock::sim
