#include "process.h"

#include <algorithm>
#include <utility>

#include "world.h"

namespace penstock::sim {

using Phase = Work::Phase;
using Deed = Work::Deed;

Process::Process(World& world, const PoolPlan& plan, BackendId id, const BackendRules& rules, uint32_t number)
    : world_(world), plan_(plan), id_(id), number_(number), rules_(rules), allowed_(rules.slots) {
    Chance& chance = world.chance();
    if (chance.in_thousand(plan.slow_ones)) slowness_ = static_cast<uint32_t>(chance.between(2, 20));
}

uint32_t Process::wanted() const {
    if (rules_.spawned) return at_work_;
    auto counts = [&](const Wire* w) { return w->work.busy && w->given_up_at > world_.now(); };
    return static_cast<uint32_t>(std::ranges::count_if(wires_, counts));
}

void Process::set_rules(const BackendRules& rules) {
    rules_ = rules;
    allowed_ = rules.slots == 0 ? 0 : std::max(allowed_, rules.slots);
}

void Process::came_down() {
    allowed_ = rules_.slots;
    world_.say("process {} has come down to {} slots", number_, allowed_);
}

// --- its life

void Process::start() {
    ++life_;
    state_ = State::starting;
    hung_ = false;
    const bool fails = rules_.spawned && world_.chance().in_thousand(plan_.fails_to_start);
    world_.add(fails ? What::process_dies : What::process_is_up, outside, world_.chance().around(plan_.start),
               {number_, 0}, life_);
}

void Process::kill(Duration after) { world_.add(What::process_dies, outside, after, {number_, 0}, life_); }

void Process::hang(Duration how_long) {
    if (state_ != State::up || hung_) return;
    hung_ = true;
    world_.add(What::process_wakes_up, outside, how_long, {number_, 0}, life_);
}

void Process::fall_sick(Duration how_long) { sick_until_ = world_.now() + how_long; }

void Process::flap(uint32_t times) {
    flaps_ = times;
    kill({});
}

void Process::is_up(uint32_t life) {
    if (life != life_ || state_ != State::starting) return;
    state_ = State::up;
    if (flaps_ > 0) {
        --flaps_;
        kill(world_.chance().around(plan_.start));
    }
    if (rules_.spawned) world_.add(What::worker_is_up, main_thread, world_.latency(), {number_, 0}, life_);
}

void Process::dies(uint32_t life) {
    if (life != life_ || state_ == State::gone) return;
    world_.say("process {} dies with {} at work", number_, at_work_);
    world_.tally().count("processes died");
    state_ = State::gone;
    at_work_ = 0;
    for (Wire* wire : std::exchange(wires_, {})) {
        wire->work = {};
        wire->theirs_open = false;
        wire->end_made = Wire::End::reset;
        tell(*wire);
        world_.free_later(*wire);
    }
    if (rules_.spawned) {
        world_.add(What::worker_exited, main_thread, world_.latency(), {number_, 0}, life_);
    } else {
        start();  // whoever it belongs to looks after it
    }
}

void Process::wakes_up(uint32_t life) {
    if (life != life_ || !hung_) return;
    hung_ = false;
    for (Wire* wire : std::vector<Wire*>(wires_)) {
        look_at(*wire);
        if (wire->theirs_open && wire->work.phase != Phase::none) again(*wire, 1us);
        world_.free_later(*wire);
    }
}

// --- wires

void Process::dialed(Wire& wire) {
    if (!wire.ours_open) {
        wire.dial = Wire::Dial::refused;
        return;
    }
    const WirePlan& habits = world_.plan().wire;
    if (state_ == State::up && (hung_ || world_.chance().in_thousand(habits.dial_lost))) {
        wire.dial = Wire::Dial::lost;
        return;
    }
    if (state_ != State::up || world_.chance().in_thousand(habits.dial_refused)) {
        wire.dial = Wire::Dial::refused;
    } else {
        wire.dial = Wire::Dial::accepted;
        wire.life = life_;
        wire.theirs_open = true;
        wires_.push_back(&wire);
    }
    tell(wire);
}

// One that serves a connection at a time accepts the next one when the first is closed.
bool Process::is_served(const Wire& wire) const {
    if (!plan_.one_by_one || rules_.slots == 0) return true;
    auto at = std::ranges::find(wires_, &wire) - wires_.begin();
    return at < std::max<long>(rules_.slots, allowed_);
}

void Process::bytes_came(Wire& wire) {
    if (wire.theirs_open && !hung_) look_at(wire);
}

void Process::look_at(Wire& wire) {
    Work& work = wire.work;
    if (!wire.ours_open) {
        if (work.phase == Phase::none || work.phase == Phase::reading) return close(wire, Wire::End::fin);
        return shut_by_us(wire);
    }
    if (!is_served(wire)) return;
    const Wire::Request& sent = wire.written;
    Wire::Request& seen = wire.seen;
    const bool is_new = sent.head && !seen.head;
    seen.head = sent.head;
    seen.upgrade = sent.upgrade;
    if (is_new) begin(wire);
    const uint64_t before = seen.body;
    seen.body = work.slow_reader ? std::min(sent.body, seen.body + 4096) : sent.body;
    const bool all = seen.body == sent.body;
    seen.complete = sent.complete && all;
    seen.shut = sent.shut && all;
    if (!all) world_.add(What::bytes_for_worker, outside, work.pause, world_.handle(wire));
    if (wire.we_wait && seen.body > before) {
        wire.we_wait = false;
        tell(wire);
    }
    if (work.phase == Phase::reading && seen.complete) think(wire);
    if (seen.shut) return shut_by_us(wire);
    if (work.blocked && wire.made.body - wire.taken < window) {
        work.blocked = false;
        again(wire, 1us);
    }
}

void Process::begin(Wire& wire) {
    Chance& chance = world_.chance();
    const Deeds& deeds = plan_.deeds;
    Work& work = wire.work;
    work = {.step = work.step + 1};
    work.request = wire.request;
    work.busy = true;
    ++at_work_;
    world_.say("process {} begins {} ({} at work)", number_, wire.request, at_work_);
    world_.runs(wire.request);
    world_.expect_room(*this);

    uint64_t dice = chance.below(1000);
    auto falls = [&](uint32_t n) {
        const bool hit = dice < n;
        dice = hit ? UINT64_MAX : dice - n;
        return hit;
    };
    work.deed = falls(deeds.early)        ? Deed::early
                : falls(deeds.unanswered) ? Deed::unanswered
                : falls(deeds.cut)        ? Deed::cut
                : falls(deeds.rubbish)    ? Deed::rubbish
                : falls(deeds.hangs)      ? Deed::hangs
                : falls(deeds.dies)       ? Deed::dies
                                          : Deed::answers;
    work.obeys = chance.in_thousand(plan_.obeys);
    work.keeps = !chance.in_thousand(deeds.closes);
    work.interims = chance.in_thousand(deeds.interims) ? static_cast<uint8_t>(chance.between(1, 10)) : 0;
    work.slow_reader = chance.in_thousand(deeds.slow_reader);
    work.pause = chance.around(plan_.work / 10);

    Wire::Answer& answer = wire.made;
    answer.length = chance.one_in(8)    ? 0
                    : chance.one_in(12) ? chance.between(20'000, 300'000)
                                        : chance.between(1, 4000);
    work.piece = static_cast<uint32_t>(
        chance.one_in(4) ? std::max<uint64_t>(answer.length / chance.between(1, 10), 1) : UINT32_MAX);
    work.goes_wrong_at = chance.below(answer.length + 1);
    answer.kind = chance.one_in(3)    ? BodyKind::chunked
                  : chance.one_in(12) ? BodyKind::until_close
                                      : BodyKind::length;
    const bool fails = sick_until_ > world_.now() || chance.in_thousand(deeds.fails);
    answer.status = fails ? static_cast<uint16_t>(chance.between(500, 504)) : 200;
    answer.is_full = answer.status == 503 && chance.one_in(2);
    if (!fails && chance.one_in(30)) {
        answer.status = 204;
        answer.kind = BodyKind::none;
        answer.length = work.goes_wrong_at = 0;
    }
    answer.keeps = work.keeps && answer.kind != BodyKind::until_close;
    work.phase = Phase::reading;
    // It switches protocols at the head, if it does.
    if (work.deed == Deed::early || (wire.seen.upgrade && chance.one_in(2))) think(wire);
}

void Process::think(Wire& wire) {
    wire.work.phase = Phase::thinking;
    again(wire, world_.chance().around(plan_.work * slowness_));
}

void Process::shut_by_us(Wire& wire) {
    Work& work = wire.work;
    switch (work.phase) {
        case Phase::none:
        case Phase::reading: return close(wire, Wire::End::fin);
        case Phase::lingering: return;
        case Phase::thinking:
        case Phase::answering:
        case Phase::hanging: break;
    }
    work.keeps = false;
    if (!work.obeys || work.stops) return;
    work.stops = true;
    again(wire, world_.chance().around(plan_.work / 4));
}

void Process::go_on(Wire& wire, uint32_t step) {
    Work& work = wire.work;
    if (!wire.theirs_open || step != work.step || hung_) return;
    if (work.stops || work.phase == Phase::lingering) return close(wire, Wire::End::fin);
    if (work.phase == Phase::none) {  // nobody has asked for anything for a while
        if (!wire.seen.head || wire.made.complete) close(wire, Wire::End::fin);
        return;
    }
    if (work.phase == Phase::thinking && work.interims > 0) {
        --work.interims;
        ++wire.made.interims;
        tell(wire);
        return again(wire, work.pause);
    }
    if (work.phase == Phase::thinking) return answer_head(wire);
    if (work.phase == Phase::answering) return answer_body(wire);
}

void Process::answer_head(Wire& wire) {
    if (!wire.ours_open) return close(wire, Wire::End::fin);  // it writes into nothing
    Work& work = wire.work;
    const bool at_once = world_.chance().one_in(2);
    switch (work.deed) {
        case Deed::unanswered: return close(wire, at_once ? Wire::End::reset : Wire::End::fin);
        case Deed::hangs: work.phase = Phase::hanging; return;
        case Deed::dies: return dies(life_);
        case Deed::rubbish:
            if (!at_once) break;  // it comes in the body
            wire.made.rubbish = true;
            work.phase = Phase::lingering;
            tell(wire);
            return again(wire, world_.chance().around(plan_.work));
        case Deed::cut:
        case Deed::early:
        case Deed::answers: break;
    }
    Wire::Answer& answer = wire.made;
    if (wire.seen.upgrade && !wire.seen.complete) {
        answer.status = 101;
        answer.kind = BodyKind::none;
    }
    answer.head = true;
    work.phase = Phase::answering;
    tell(wire);
    if (work.piece == UINT32_MAX || answer.length == 0) return answer_body(wire);
    again(wire, work.pause);
}

void Process::answer_body(Wire& wire) {
    Work& work = wire.work;
    Wire::Answer& answer = wire.made;
    if (!wire.ours_open) return close(wire, Wire::End::fin);
    const bool goes_wrong = work.deed == Deed::cut || work.deed == Deed::rubbish;
    if (goes_wrong && answer.body >= work.goes_wrong_at && answer.status != 204) {
        if (work.deed == Deed::cut)
            return close(wire, world_.chance().one_in(2) ? Wire::End::reset : Wire::End::fin);
        answer.rubbish = true;
        work.phase = Phase::lingering;
        tell(wire);
        return again(wire, world_.chance().around(plan_.work));
    }
    const uint64_t room = window - std::min(window, answer.body - wire.taken);
    const uint64_t piece = std::min<uint64_t>({work.piece, answer.length - answer.body, room});
    answer.body += piece;
    if (answer.body < answer.length) {
        work.blocked = piece == room;
        tell(wire);
        return work.blocked ? void() : again(wire, work.pause);
    }
    if (answer.status == 101 || answer.kind == BodyKind::until_close) return close(wire, Wire::End::fin);
    answer.complete = true;
    end_work(wire);
    work.phase = Phase::none;
    if (!work.keeps) return close(wire, Wire::End::fin);
    tell(wire);
    if (world_.chance().one_in(4)) again(wire, world_.chance().around(plan_.settings.pool.idle));
}

// --- ends

void Process::end_work(Wire& wire) {
    if (!wire.work.busy) return;
    wire.work.busy = false;
    --at_work_;
    world_.say("process {} ends {} ({} at work)", number_, wire.request, at_work_);
}

void Process::close(Wire& wire, Wire::End how) {
    end_work(wire);
    wire.work.phase = Phase::none;
    wire.theirs_open = false;
    wire.end_made = how;
    std::erase(wires_, &wire);
    tell(wire);
    if (!plan_.one_by_one) return;
    for (Wire* next : wires_)  // one of them may be served now
        if (next->work.phase == Phase::none)
            world_.add(What::bytes_for_worker, outside, 1us, world_.handle(*next));
}

void Process::again(Wire& wire, Duration after) {
    world_.add(What::work_goes_on, outside, after, world_.handle(wire), ++wire.work.step);
}

void Process::tell(Wire& wire) {
    if (wire.ours_open) world_.after_latency(What::bytes_for_us, wire.loop, wire);
}

}  // namespace penstock::sim
