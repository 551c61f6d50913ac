#include "app/health_checks.h"

#include <algorithm>
#include <array>

#include "app/fleet.h"
#include "base/log.h"
#include "policy/health.h"
#include "workers/probe.h"

namespace penstock {

namespace {
HealthRules rules_of(const HealthCheck& from) {
    return {.healthy = from.healthy,
            .unhealthy = from.unhealthy,
            .interval = from.interval,
            .jitter = from.jitter};
}

// An idle connection that stands in the way is closed within a turn of its loop.
constexpr Duration ask_again = 10ms;
constexpr int most_asked_again = 5;
}  // namespace

// Of one backend: a question, its answer, a pause, the next question.
class HealthRound final : public Task {
  public:
    HealthRound(HealthChecks& checks, LiveUpstream& upstream, Backend& backend)
        : checks_(checks),
          upstream_(upstream),
          backend_(backend),
          settings_(*upstream.settings.health_check),
          rules_(rules_of(settings_)),
          probe_(checks.loop_, *this),
          timer_(*this) {
        checks_.loop_.turn().arm(timer_, checks_.loop_.now() + first_check(rules_, checks_.random()));
    }
    ~HealthRound() {
        probe_.cancel();
        unlink();
    }

    BackendId backend() const { return backend_.id(); }

    void run(Time now) override {
        if (asked_ && !probe_.is_asking()) hear(now);
        if (timer_.expired()) {
            timer_.disarm();
            ask(now);
        }
    }

    void describe(HealthStatus& status, Time now) const {
        status.healthy = health_.is_healthy();
        status.last = last_;
        if (heard_at_ != Time{}) status.ago = now - heard_at_;
        for (size_t i = 0; i < check_results; ++i)
            status.by_result.emplace_back(to_string(static_cast<CheckResult>(i)), counts_[i]);
    }

  private:
    void ask(Time now) {
        slot_ = checks_.fleet_.park().probe(backend_.id(), now);
        if (!slot_ && asked_again_ < most_asked_again &&
            checks_.fleet_.make_room_for_probe(backend_.id(), now)) {
            ++asked_again_;
            return checks_.loop_.turn().arm(timer_, now + ask_again);
        }
        asked_again_ = 0;
        if (slot_ && slot_.generation() != generation_) {  // another process: nothing is known of it
            health_ = {};
            generation_ = slot_.generation();
            heard_at_ = {};
        }
        auto at = slot_ ? backend_.address(slot_.generation()) : std::nullopt;
        auto address = at ? parse_address(at->text()) : failure("");
        if (!address) {
            give_back(now);
            return note(CheckResult::skipped, now);
        }
        asked_ = true;
        asked_at_ = now;
        Probe::Question question{.address = *address,
                                 .path = settings_.path,
                                 .expect = settings_.path.empty() ? uint16_t{0} : settings_.expect,
                                 .timeout = settings_.timeout,
                                 .grpc = settings_.grpc,
                                 .http2 = upstream_.settings.protocol == Protocol::http2};
        checks_.fleet_.secure(question, upstream_, backend_.id());
        probe_.ask(std::move(question));
    }

    // Real requests go on: a byte of an answer since the last check was asked.
    bool makes_progress() const {
        return backend_.last_byte() >= (previous_ == Time{} ? asked_at_ : previous_);
    }

    // Computing, and silent until it is done: for as long as a request may take. What runs through a tunnel
    // is no such work.
    bool computes(Time now) const {
        if (backend_.has_tunnels()) return false;
        const Duration hung_after =
            backend_.spawned ? upstream_.settings.workers->restart.hung_after : Duration::zero();
        const Duration may_take =
            hung_after > Duration::zero() ? hung_after : upstream_.settings.timeouts.first_byte;
        return is_at_work(checks_.fleet_.park().oldest_work(backend_.id(), generation_), may_take, now);
    }

    void hear(Time now) {
        asked_ = false;
        give_back(now);
        const Probe::Outcome& outcome = probe_.outcome();
        last_ = outcome.text;
        heard_at_ = now;
        const bool is_slow = outcome.is_busy || outcome.is_slow;
        // A machine that is gone has work on it too; but it accepts no connection.
        const bool is_busy = is_slow && (makes_progress() || (outcome.accepted && computes(now)));
        const CheckResult result = outcome.is_good ? CheckResult::passed
                                   : is_busy       ? CheckResult::busy
                                                   : CheckResult::failed;
        previous_ = asked_at_;
        note(result, now);
    }

    void note(CheckResult result, Time now) {
        ++counts_[static_cast<size_t>(result)];
        checks_.loop_.turn().arm(timer_, now + next_check(rules_, checks_.random()));
        if (health_.note(rules_, result)) turned(now);
        if (!health_.is_healthy()) give_up_if_unhealthy_too_long(now);
    }

    void turned(Time now) {
        const bool healthy = health_.is_healthy();
        unhealthy_since_ = now;
        log::at(healthy ? log::Level::info : log::Level::warn, "upstream {}: backend {} is {}: {}",
                upstream_.name(), backend_.name(), healthy ? "healthy again" : "unhealthy", last_);
        checks_.fleet_.tell(backend_.id(),
                            {.event = healthy ? BackendNews::Event::healthy : BackendNews::Event::unhealthy,
                             .generation = generation_});
    }

    // With work on it, only hung_after may end it.
    void give_up_if_unhealthy_too_long(Time now) {
        if (!backend_.spawned || !upstream_.settings.workers) return;
        const Duration after = upstream_.settings.workers->restart.unhealthy_after;
        if (deadline_after(unhealthy_since_, after) > now) return;
        if (checks_.fleet_.park().oldest_work(backend_.id(), generation_) == never)
            checks_.fleet_.restart(backend_.id(), generation_, RestartWhy::unhealthy);
    }

    void give_back(Time now) {
        if (slot_) checks_.fleet_.give_back(slot_, now);
    }

    HealthChecks& checks_;
    LiveUpstream& upstream_;
    Backend& backend_;
    const HealthCheck settings_;
    const HealthRules rules_;
    Probe probe_;
    Deadline timer_;
    Lease slot_;
    bool asked_ = false;   // an outcome is awaited
    int asked_again_ = 0;  // for a slot
    uint32_t generation_ = 0;
    Health health_;
    Time asked_at_{}, previous_{}, heard_at_{}, unhealthy_since_{};
    std::string last_;
    std::array<uint64_t, check_results> counts_{};
};

// Of one worker: is it at work, and silent for too long?
class HungWatch final : public Task {
  public:
    HungWatch(Loop& loop, Fleet& fleet, Backend& backend, Duration after)
        : loop_(loop), fleet_(fleet), backend_(backend), after_(after), timer_(*this) {
        loop_.turn().arm(timer_, loop_.now() + after_);
    }
    ~HungWatch() { unlink(); }

    BackendId backend() const { return backend_.id(); }

    // Whatever begins after now is due no earlier than in `after`.
    void run(Time now) override {
        timer_.disarm();
        const uint32_t generation = backend_.generation();
        Time due =
            hung_at(fleet_.park().oldest_work(backend_.id(), generation), backend_.last_byte(), after_);
        if (backend_.has_tunnels()) due = never;  // they may be silent for as long as their ends like
        if (due <= now) fleet_.restart(backend_.id(), generation, RestartWhy::hung);
        loop_.turn().arm(timer_, due <= now ? now + after_ : std::min(due, now + after_));
    }

  private:
    Loop& loop_;
    Fleet& fleet_;
    Backend& backend_;
    const Duration after_;
    Deadline timer_;
};

HealthChecks::HealthChecks(Loop& loop, Fleet& fleet) : loop_(loop), fleet_(fleet) {}
HealthChecks::~HealthChecks() = default;

void HealthChecks::add(LiveUpstream& upstream, Backend& backend) {
    if (upstream.settings.health_check)
        rounds_.push_back(std::make_unique<HealthRound>(*this, upstream, backend));
    if (!backend.spawned) return;
    const Duration after = upstream.settings.workers->restart.hung_after;
    if (after > Duration{}) watches_.push_back(std::make_unique<HungWatch>(loop_, fleet_, backend, after));
}

void HealthChecks::forget(BackendId backend) {
    std::erase_if(rounds_, [&](const auto& round) { return round->backend() == backend; });
}

void HealthChecks::describe(BackendId backend, BackendStatus& status, Time now) const {
    for (const auto& round : rounds_)
        if (round->backend() == backend) round->describe(status.health.emplace(), now);
}

}  // namespace penstock
