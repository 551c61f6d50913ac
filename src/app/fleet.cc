#include "app/fleet.h"

#include <algorithm>
#include <fmt/format.h>

#include "app/backend_log.h"
#include "base/log.h"
#include "net/socket.h"
#include "proxy/affinity.h"

namespace penstock {

// Asks a server of somebody else's whether it accepts connections again: at once, then every second. It takes
// a free slot, as any use of a backend. But whether a server is alive must not hang on how busy the others
// are, with which it may share a limit: where none was free for a second, it asks without one.
class ServerProbe final : public Task {
  public:
    ServerProbe(Fleet& fleet, const LiveUpstream& upstream, BackendId backend, Address address)
        : fleet_(fleet),
          upstream_(upstream),
          backend_(backend),
          address_(std::move(address)),
          probe_(fleet.loop_, *this),
          again_(*this) {}
    ~ServerProbe() { Task::unlink(); }

    BackendId backend() const { return backend_; }
    const LiveUpstream& upstream() const { return upstream_; }
    const Address& address() const { return address_; }

    void start(uint32_t generation, Time now) {
        generation_ = generation;
        if (probe_.is_asking() || again_.is_armed()) return;
        due_ = now;
        fleet_.loop_.turn().arm(again_, now);
    }

    void run(Time now) override {
        const bool is_leaving = upstream_.backend(backend_).leaving;
        if (again_.expired()) {
            again_.disarm();
            if (!is_leaving) ask(now);
            return;
        }
        if (probe_.is_asking()) return;
        if (slot_) fleet_.give_back(slot_, now);
        if (is_leaving) return;
        bool alive = probe_.outcome().is_good;
        if (told_ ? alive != told_alive_ : !alive)
            log::info("upstream {}: server {} is {}", upstream_.name(), address_.text,
                      alive ? "up again" : "down: " + probe_.outcome().text);
        told_ = true;
        told_alive_ = alive;
        fleet_.tell(
            backend_,
            {alive ? BackendNews::Event::alive : BackendNews::Event::probe_failed, generation_, never, {}});
        due_ = now + 1s;
        if (!alive)
            fleet_.loop_.turn().arm(again_, due_);
        else
            told_ = false;
    }

  private:
    static constexpr Duration for_a_slot = 1s;
    static constexpr Duration look_again = 50ms;

    void ask(Time now) {
        slot_ = fleet_.park_.probe(backend_, now);
        if (!slot_ && now < due_ + for_a_slot) return fleet_.loop_.turn().arm(again_, now + look_again);
        // Only whether it accepts: a request might wait in its queue for minutes.
        Probe::Question question{address_, "", 0, upstream_.settings.timeouts.connect};
        fleet_.secure(question, upstream_, backend_);
        probe_.ask(std::move(question));
    }

    Fleet& fleet_;
    const LiveUpstream& upstream_;
    const BackendId backend_;
    const Address address_;
    Probe probe_;
    Deadline again_;
    Lease slot_;
    Time due_{};  // the question
    uint32_t generation_ = 0;
    bool told_ = false;
    bool told_alive_ = false;
};

Fleet::Fleet(Loop& loop, Park& park, Post& post, StatsBook& book, const ResolverSettings& resolver,
             Task& stopped)
    : loop_(loop),
      park_(park),
      post_(post),
      book_(book),
      stopped_(stopped),
      supervisor_(loop, *this),
      tick_(*this),
      discovery_(loop, *this, resolver),
      health_(loop, *this) {
    loop_.turn().mark(*this);
}

Fleet::~Fleet() { unlink(); }

void Fleet::secure(Probe::Question& question, const LiveUpstream& upstream, BackendId backend) const {
    const Backend& asked = upstream.backend(backend);
    if (asked.spawned) return;
    question.tls = credentials_->upstream(upstream.name());
    question.host = asked.host;
}

Result<> Fleet::add(const Upstream& settings) {
    UpstreamId id = park_.add_upstream(rules_of(settings));
    auto& upstream =
        *upstreams_.emplace_back(std::make_unique<LiveUpstream>(settings, id, book_.upstream(settings.name)));
    if (settings.workers) {
        auto first = supervisor_.add(settings.name, *settings.workers, settings.protocol);
        if (!first)
            return failure(fmt::format("upstreams.{}.workers: {}", settings.name, first.error().message));
        for (uint32_t i = 0; i < settings.workers->count; ++i) {
            BackendRules rules;
            rules.slots = settings.concurrency;
            rules.spawned = true;
            auto backend = add_backend(upstream, fmt::format("{}/{}", settings.name, i), rules);
            if (!backend) return failure(backend.error().message);
            places_.push_back({&upstream, (*backend)->id()});
            health_.add(upstream, **backend);
        }
    }
    for (const Server& server : settings.servers) {
        if (server.address.kind == Address::Kind::name) {
            if (auto added = discovery_.add(upstream, server); !added) return added;
            continue;
        }
        auto address = socket_address(server.address);
        if (!address) return failure(fmt::format("upstreams.{}: {}", settings.name, address.error().message));
        if (auto added = add_server(upstream, server, *address, true); !added)
            return failure(added.error().message);
    }
    return {};
}

Result<Backend*> Fleet::add_backend(LiveUpstream& upstream, std::string name, BackendRules rules) {
    const Time now = loop_.now();
    if (!park_.has_place(upstream.id(), now))
        return failure(
            fmt::format("upstream {} has no place for {}: at most {} backends, and one that is gone "
                        "keeps its place for a minute",
                        upstream.name(), name, max_backends));
    Wakes wakes;
    rules.identity = backend_identity(upstream.settings.balance, name);
    const BackendId id = park_.add_backend(upstream.id(), rules, now, wakes);
    Backend& added = upstream.add_backend(std::move(name), id);
    added.spawned = rules.spawned;
    added.requests_per_connection = upstream.settings.circuit_breaker.max_requests_per_connection;
    deliver(park_, wakes, now, post_);
    return &added;
}

Result<BackendId> Fleet::add_server(LiveUpstream& upstream, const Server& server,
                                    const SocketAddress& address, bool warm) {
    const Result<Address> place = parse_address(address.text());
    if (!place) return failure(place.error().message);
    for (auto& probe : probes_)
        if (&probe->upstream() == &upstream && probe->address() == *place &&
            !upstream.backend(probe->backend()).leaving)
            return failure(fmt::format("{} is a backend already", place->text));
    BackendRules rules;
    rules.slots = server.concurrency;
    rules.weight = server.weight;
    rules.max_connections = server.max_connections;
    rules.backup = server.backup;
    auto added = add_backend(upstream, place->text, rules);
    if (!added) return failure(added.error().message);
    Backend& backend = **added;
    const uint32_t generation = backend.first_generation;
    const auto& tls = upstream.settings.tls;
    backend.host = tls && !tls->server_name.empty() ? tls->server_name : server.address.host;
    backend.set_address(generation, address);
    probes_.push_back(std::make_unique<ServerProbe>(*this, upstream, backend.id(), *place));
    health_.add(upstream, backend);
    tell(backend.id(),
         {.event = BackendNews::Event::starting, .generation = generation, .until = loop_.now()});
    tell(backend.id(), {.event = BackendNews::Event::ready, .generation = generation, .warm = warm});
    return backend.id();
}

Result<BackendId> Fleet::expect_server(LiveUpstream& upstream, const Server& server, Time until) {
    auto added = add_backend(upstream, server.address.text, {.slots = 1, .backup = server.backup});
    if (!added) return failure(added.error().message);
    const uint32_t generation = (*added)->first_generation;
    tell((*added)->id(), {.event = BackendNews::Event::starting, .generation = generation, .until = until});
    return (*added)->id();
}

void Fleet::gave_up(LiveUpstream& upstream, BackendId id) {
    tell(id, {.event = BackendNews::Event::gave_up, .generation = upstream.backend(id).first_generation});
}

void Fleet::remove_server(LiveUpstream& upstream, BackendId id) {
    upstream.backend(id).leaving = true;
    Wakes wakes;
    park_.remove_backend(id, loop_.now(), wakes);
    deliver(park_, wakes, loop_.now(), post_);
}

void Fleet::forget(BackendId id) {
    if (!park_.forget(id)) return;
    std::erase_if(probes_, [&](const auto& probe) { return probe->backend() == id; });
    health_.forget(id);
}

std::vector<LiveUpstream*> Fleet::upstreams() const {
    std::vector<LiveUpstream*> out;
    for (auto& upstream : upstreams_) out.push_back(upstream.get());
    return out;
}

void Fleet::tell(BackendId backend, const BackendNews& news) {
    Wakes wakes;
    park_.backend_event(backend, news, loop_.now(), wakes);
    deliver(park_, wakes, loop_.now(), post_);
}

void Fleet::run(Time now) {
    while (true) {
        Wakes wakes;
        Actions actions;
        Time next = park_.tick(now, wakes, actions);
        deliver(park_, wakes, now, post_);
        log_changes();  // before a backend is forgotten
        for (const Action& action : actions) act(action, now);
        for (size_t i = 0; i < actions.circuit_count; ++i) log(actions.circuits[i]);
        if (actions.more) continue;
        loop_.turn().arm(tick_, std::max(next, now + 1ms));
        return;
    }
}

Worker* Fleet::worker_at(BackendId backend) {
    auto place = std::ranges::find_if(places_, [&](const Place& p) { return p.backend == backend; });
    if (place == places_.end()) return nullptr;
    return &supervisor_.worker(WorkerId{static_cast<uint32_t>(place - places_.begin())});
}

// It is told to end at once, so it must get nothing more.
void Fleet::restart(BackendId backend, uint32_t generation, RestartWhy why) {
    Worker* worker = worker_at(backend);
    if (!worker || (worker->state() != WorkerState::ready && worker->state() != WorkerState::draining))
        return;
    tell(backend, {.event = BackendNews::Event::drain, .generation = generation, .until = loop_.now()});
    worker->restart_by_force(generation, why);
}

void Fleet::give_back(Lease& slot, Time now) {
    Wakes wakes;
    park_.finish(slot, {Outcome::unused, Keep::closed}, now, wakes);
    deliver(park_, wakes, now, post_);
}

bool Fleet::make_room_for_probe(BackendId backend, Time now) {
    Wakes wakes;
    const bool has_made = park_.make_room_for_probe(backend, now, wakes);
    deliver(park_, wakes, now, post_);
    return has_made;
}

void Fleet::log_changes() {
    const BackendChanges changes = park_.changes();
    for (const BackendChange& change : changes) {
        auto at =
            std::ranges::find_if(upstreams_, [&](auto& u) { return u->id() == change.backend.upstream; });
        if (at == upstreams_.end()) continue;
        const BackendLine line = line_of(change, (*at)->name(), (*at)->backend(change.backend).name());
        log::at(line.level, "{}", line.text);
    }
    if (changes.lost > 0) log::warn("{} more changes of backends than could be noted", changes.lost);
}

void Fleet::act(const Action& action, Time now) {
    if (action.kind == Action::Kind::forget) return forget(action.backend);
    for (auto& probe : probes_)
        if (probe->backend() == action.backend) {
            if (action.kind == Action::Kind::probe) probe->start(action.generation, now);
            return;
        }
    Worker* found = worker_at(action.backend);
    if (!found) return;
    Worker& worker = *found;
    switch (action.kind) {
        case Action::Kind::probe: {
            // A Suspect one gets no new work, so a slot that is free now stays free for the question.
            Lease slot = park_.probe(action.backend, now);
            worker.check(action.generation, !slot);
            if (slot) give_back(slot, now);
            return;
        }
        case Action::Kind::restart: return worker.restart_by_force(action.generation, action.why);
        case Action::Kind::stop: return worker.drained(action.generation);
        case Action::Kind::forget: return;
    }
}

LiveUpstream* Fleet::find(UpstreamId id) const {
    auto at = std::ranges::find_if(upstreams_, [&](auto& u) { return u->id() == id; });
    return at == upstreams_.end() ? nullptr : at->get();
}

// Once a change, and a limit closes only after a second without a refusal: no overload floods the log.
void Fleet::log(const CircuitChange& change) {
    const LiveUpstream* upstream = find(change.upstream);
    if (!upstream) return;
    std::string limit = fmt::format("circuit breaker ({}", to_string(change.limit));
    limit += change.bound ? fmt::format(", at most {})", change.bound) : ")";
    if (change.is_open)
        log::warn("upstream {}: {} is open: what is over it is refused", upstream->name(), limit);
    else
        log::info("upstream {}: {} is closed again after {}; {} refused", upstream->name(), limit,
                  format_duration(std::chrono::round<std::chrono::milliseconds>(change.lasted)),
                  change.refused);
}

void Fleet::worker_news(WorkerId worker, const BackendNews& news, const Address& address) {
    const Place& place = places_[static_cast<size_t>(worker)];
    if (news.event == BackendNews::Event::starting)
        if (auto at = socket_address(address))
            place.upstream->backend(place.backend).set_address(news.generation, *at);
    tell(place.backend, news);
}

uint64_t Fleet::requests_of(WorkerId worker, uint32_t generation) {
    const Place& place = places_[static_cast<size_t>(worker)];
    return place.upstream->backend(place.backend).served(generation);
}

void Fleet::shut_down() {
    if (places_.empty()) return workers_stopped();
    supervisor_.shut_down();
}

void Fleet::workers_stopped() {
    is_stopped_ = true;
    loop_.turn().mark(stopped_);
}

}  // namespace penstock
