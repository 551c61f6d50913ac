#include "connection.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "codec/h1_reader.h"
#include "http/forward.h"
#include "process.h"
#include "proxy/exchange.h"
#include "proxy/outlier.h"
#include "sim_loop.h"
#include "texts.h"
#include "world.h"

namespace penstock::sim {

Connection::Connection(SimLoop& loop, LiveUpstream& upstream, BackendId backend, uint32_t generation)
    : world_(loop.world()),
      loop_(loop),
      upstream_(upstream),
      backend_(backend),
      generation_(generation),
      process_(world_.number_of(backend)),
      wire_(world_.make_wire(backend, loop.number(), generation)),
      deadline_(*this) {}

Connection::~Connection() {
    Task::unlink();
    Link<GraveTag>::unlink();
}

std::string_view Connection::state() const {
    constexpr std::string_view names[] = {"dialing", "busy", "idle", "abandoned", "closed"};
    return names[static_cast<size_t>(state_)];
}

void Connection::reap() {
    world_.say("a connection to process {} is closed", process_);
    loop_.free(this);
}

void Connection::let_go_of_wire() {
    wire_->ours_open = false;
    world_.after_latency(What::bytes_for_worker, outside, *wire_);
    world_.free_later(*wire_);
}

void Connection::dial() {
    world_.say("a connection to process {} is dialed", process_);
    wire_->connection = loop_.handle(this);
    world_.after_latency(What::dialed, outside, *wire_);
}

void Connection::bind(Exchange& exchange, Lease&& lease) {
    world_.say("a connection to process {} of loop {} is taken", process_, loop_.number());
    exchange_ = &exchange;
    lease_ = std::move(lease);
    reused = state_ == State::idle;
    deadline_.disarm();
    state_ = State::busy;
    connected = !connecting();
    request_begun = answer_begun = false;
    reading_head_ = true;
    response_complete_ = request_complete_ = broken_ = paused_ = false;
    read_ = interims_read_ = 0;
    outcome_ = Outcome::answered;
    Client::Seen& seen = loop_.client_of(exchange).seen;
    if (!seen.leased) world_.fleet().expect_in_service(backend_);
    seen.on = backend_;
    asked_ = {exchange.request.head.method, exchange.request.framing.upgrade};
    wire_->written = wire_->seen = {};
    wire_->made = wire_->arrived = {};
    wire_->taken = 0;
    wire_->given_up_at = never;
    if (!connected) state_ = State::dialing;
}

bool Connection::is_usable() const { return !ended(); }

// --- reading: in poll, or from resume()

void Connection::fill() {
    wire_->arrived = wire_->made;
    wire_->end_arrived = wire_->end_made;
    wire_->dial_arrived = wire_->dial;
    switch (state_) {
        case State::dialing:
            if (wire_->dial_arrived == Wire::Dial::refused || is_dead()) return fail(Cause::connect_failure);
            if (wire_->dial_arrived == Wire::Dial::accepted) loop_.turn().mark(*this);
            return;
        case State::busy:
            loop_.turn().mark(*this);  // there may be room to write
            [[fallthrough]];
        case State::abandoned: return paused_ ? void() : read_response();
        case State::idle: return ended() ? loop_.turn().mark(*this) : void();
        case State::closed: return;
    }
}

void Connection::read_response() {
    const Wire::Answer& a = wire_->arrived;
    if (a.interims > 0 || a.head || a.rubbish) answer_begun = true;
    if (answer_begun && exchange_) world_.facts(wire_->request).answer_begun = true;
    if (!broken_ && reading_head_ && read_interims() && a.head && !read_head()) return;
    if (!reading_head_ && !response_complete_ && !broken_) read_body();
    // What cannot be understood comes behind all that can.
    if (a.rubbish && !broken_ && (reading_head_ ? !a.head : read_ == a.body)) fail(Cause::bad_response);
    if (response_complete_ || broken_) {
        if (exchange_) loop_.turn().mark(*exchange_);
        loop_.turn().mark(*this);
    }
    if (ended() && !response_complete_ && (is_dead() || reading_head_ || read_ == a.body)) judge_end();
}

bool Connection::read_interims() {
    static const Head early_hints = parse_response("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", {}).head;
    for (; interims_read_ < wire_->arrived.interims; ++interims_read_) {
        if (!exchange_) continue;
        if (!exchange_->response.add_interim(early_hints, exchange_->arena())) {
            fail(Cause::bad_response);
            return false;
        }
        loop_.turn().mark(*exchange_);
    }
    return true;
}

bool Connection::read_head() {
    const Wire::Answer& a = wire_->arrived;
    char text[160];
    auto out = fmt::format_to(text, "HTTP/1.1 {} Whatever\r\n", a.status);
    if (a.status == 101) out = fmt::format_to(out, "upgrade: websocket\r\nconnection: upgrade\r\n");
    if (a.kind == BodyKind::length) out = fmt::format_to(out, "content-length: {}\r\n", a.length);
    if (a.kind == BodyKind::chunked) out = fmt::format_to(out, "transfer-encoding: chunked\r\n");
    if (a.is_full) out = fmt::format_to(out, "retry-after: 1\r\n");
    if (!a.keeps && a.status != 101) out = fmt::format_to(out, "connection: close\r\n");
    out = fmt::format_to(out, "\r\n");
    ParsedResponse parsed = parse_response({text, static_cast<size_t>(out - text)}, asked_);
    framing_ = parsed.framing;
    outcome_ = outcome_of(parsed.head, {});
    reading_head_ = false;
    if (!exchange_) return true;
    Message& response = exchange_->response;
    if (response.has_head() || response.failed()) world_.fail("a head came for a response that has one");
    world_.facts(wire_->request).answered_by = process_;
    response.framing = framing_;
    response.head = copy_head(parsed.head, exchange_->arena());
    response.tunnel = framing_.tunnel;
    response.fill_to(Progress::head);
    loop_.turn().mark(*exchange_);
    return true;
}

void Connection::read_body() {
    Message* response = exchange_ ? &exchange_->response : nullptr;
    const Wire::Answer& a = wire_->arrived;
    const bool has_body = framing_.body != BodyKind::none || framing_.tunnel;
    bool moved = false;
    while (has_body && read_ < a.body) {
        if (response && !response->body.has_room()) {
            paused_ = moved = true;
            break;
        }
        auto run = std::min<uint64_t>(a.body - read_, large_chunk_bytes);
        if (response) {
            loop_.append(response->body, {pattern(wire_->request, read_), run});
            if (response->filled() == Progress::head) response->fill_to(Progress::body);
            moved = true;
        }
        read_ += run;
    }
    if (read_ != wire_->taken) {
        wire_->taken = read_;
        if (wire_->work.blocked) world_.after_latency(What::bytes_for_worker, outside, *wire_);
    }
    if (a.complete && (read_ == a.body || !has_body) && !framing_.tunnel) {
        response_complete_ = moved = true;
        if (response && !response->is_complete()) response->fill_to(Progress::complete);
    }
    if (moved && exchange_) loop_.turn().mark(*exchange_);
}

// Everything that it sent is read.
void Connection::judge_end() {
    const bool by_end = framing_.tunnel || framing_.body == BodyKind::until_close;
    if (!reading_head_ && !broken_ && !is_dead() && by_end && !wire_->arrived.rubbish) {
        response_complete_ = true;
        if (exchange_ && !exchange_->response.is_complete()) exchange_->response.fill_to(Progress::complete);
        if (exchange_) loop_.turn().mark(*exchange_);
    } else {
        fail(Cause::backend_reset);
    }
    loop_.turn().mark(*this);
}

void Connection::fail(Cause cause) {
    broken_ = true;
    if (!exchange_) return loop_.turn().mark(*this);
    exchange_->response.fail(cause);
    loop_.turn().mark(*exchange_);
}

void Connection::resume() {
    if (!paused_) return;
    paused_ = false;
    read_response();
}

// --- writing: in advance

void Connection::wake(Time) {
    if (state_ != State::busy) return;
    Message& request = exchange_->request;
    if (!is_dead()) {
        if (request.sent() == Progress::nothing) write_head();
        if (!request.is_sent()) write_body();
    }
    if (paused_ && exchange_->response.body.wants_more()) resume();
}

void Connection::write_head() {
    Message& request = exchange_->request;
    exchange_->request_edit(loop_.now());
    world_.park().run(lease_, loop_.now());
    request_begun = true;
    const uint32_t number = number_of(request.head);
    world_.begins(number);
    wire_->request = number;
    wire_->written.head = true;
    wire_->written.upgrade = request.framing.upgrade;
    request.send_to(Progress::head);
    send();
}

void Connection::write_body() {
    Message& request = exchange_->request;
    bool moved = false;
    while (request.body.unsent() > 0) {
        if (wire_->written.body - wire_->seen.body >= window) {
            wire_->we_wait = true;
            break;
        }
        std::string_view run = request.body.next();
        world_.expect_pattern(wire_->request, wire_->written.body, run, "a request's body");
        request.body.sent(run.size());
        wire_->written.body += run.size();
        moved = true;
        if (request.sent() == Progress::head && request.filled() > Progress::head)
            request.send_to(Progress::body);
    }
    if (request.body.unsent() == 0 && request.is_complete()) {
        wire_->written.complete = moved = true;
        if (request.tunnel) wire_->written.shut = true;
        request.send_to(Progress::complete);
        request_complete_ = true;
    }
    if (moved) send();
}

void Connection::send() {
    last_sent_ = loop_.now();
    world_.after_latency(What::bytes_for_worker, outside, *wire_);
}

void Connection::shut() {
    if (wire_->written.shut) return;
    wire_->written.shut = true;
    send();
}

// --- ends: in advance

void Connection::release(Time now) {
    exchange_ = nullptr;
    bool wanted = may_be_pooled();
    Wakes wakes;
    Ended ended = world_.park().finish(lease_, {outcome_, wanted ? Keep::idle : Keep::closing}, now, wakes);
    pool_or_close(ended, wanted, now);
    loop_.post(wakes, now);
}

bool Connection::may_be_pooled() const {
    const Backend& backend = upstream_.backend(backend_);
    return response_complete_ && request_complete_ && framing_.keep_alive && !framing_.tunnel && !broken_ &&
           framing_.body != BodyKind::until_close && !ended() && !wire_->written.shut &&
           !loop_.data().draining() && upstream_.settings.pool.idle > Duration::zero() &&
           (backend.requests_per_connection == 0 || served_ + 1 < backend.requests_per_connection);
}

void Connection::pool_or_close(const Ended& ended, bool wanted, Time now) {
    ++served_;
    world_.say("a connection to process {} of loop {} is {}", process_, loop_.number(),
               wanted && ended.keep ? "kept" : "not kept");
    if (!wanted || !ended.keep) return close();
    state_ = State::idle;
    idle_since_ = now;
    loop_.put_into_pool(*this);
    loop_.turn().arm(deadline_, now + upstream_.settings.pool.idle);
}

BackendSide::Remains Connection::take_remains(bool tries_fresh, Time) {
    Outcome outcome = Outcome::early_close;
    if (!request_begun)
        outcome = connected && reused ? Outcome::unused : Outcome::connect_failed;
    else if (answer_begun)
        outcome = Outcome::cut;
    else if (tries_fresh && !upstream_.backend(backend_).spawned)
        outcome = Outcome::stale;
    exchange_ = nullptr;
    Remains remains{std::move(lease_), {outcome, Keep::closing}};
    close();
    return remains;
}

void Connection::cancel(Cause cause, Time now) {
    request_complete_ = request_complete_ || exchange_->request.is_sent();
    const Outcome so_far = exchange_->outcome_so_far(cause, now);
    exchange_ = nullptr;
    if (!request_begun) {
        Outcome outcome = cause == Cause::connect_failure ? Outcome::connect_failed : Outcome::unused;
        Wakes wakes;
        world_.park().finish(lease_, {outcome, Keep::closing}, now, wakes);
        loop_.post(wakes, now);
        return close();
    }
    if (response_complete_ && !framing_.tunnel) return release(now);
    abandon(so_far, now);
}

void Connection::abandon(Outcome so_far, Time now) {
    state_ = State::abandoned;
    const Upstream& settings = upstream_.settings;
    bool close_it =
        settings.on_abandon == OnAbandon::close || !request_complete_ || broken_ || framing_.tunnel;
    Abandon kind = close_it                                    ? Abandon::close
                   : settings.on_abandon == OnAbandon::restart ? Abandon::restart
                                                               : Abandon::drain;
    Duration patience = kind == Abandon::drain ? settings.abandon_limit
                                               : std::min(settings.abandon_grace, settings.abandon_limit);
    wire_->given_up_at = now + patience;
    Wakes wakes;
    world_.park().abandon(lease_, kind, {loop_.number(), loop_.wake_handle(this)}, now, wakes, so_far);
    loop_.post(wakes, now);
    if (close_it) shut();
    resume();
    loop_.turn().mark(*this);
}

void Connection::abandoned_work_is_over(Outcome outcome, Time now) {
    bool wanted = outcome == Outcome::answered && may_be_pooled();
    Wakes wakes;
    Ended ended = world_.park().finish(lease_, {outcome, wanted ? Keep::idle : Keep::closing}, now, wakes);
    constexpr std::string_view names[] = {"over", "ended by an exit", "given up"};
    world_.tally().count(fmt::format("abandoned: {}", names[static_cast<size_t>(ended.by)]));
    pool_or_close(ended, wanted, now);
    loop_.post(wakes, now);
}

void Connection::close_idle(bool told) {
    world_.say("an idle connection to process {} of loop {} is to be closed", process_, loop_.number());
    loop_.take_out_of_pool(*this);
    if (!told) {
        Wakes wakes;
        world_.park().idle_ended(backend_, generation_, loop_.number(), loop_.now(), wakes);
        loop_.post(wakes, loop_.now());
    }
    close();
}

void Connection::close() {
    if (state_ == State::closed) return;
    state_ = State::closed;
    deadline_.disarm();
    loop_.turn().bury(*this);
}

void Connection::run(Time now) {
    switch (state_) {
        case State::closed: return;
        case State::dialing:
            if (connecting() || broken_) return;
            connected = true;
            state_ = State::busy;
            [[fallthrough]];
        case State::busy:
            if (!paused_ && !broken_ && !response_complete_) read_response();
            return loop_.turn().mark(*exchange_);
        case State::idle:
            if (deadline_.expired() || !is_usable()) close_idle(false);
            return;
        case State::abandoned:
            resume();
            if (world_.park().is_over(lease_)) return abandoned_work_is_over(Outcome::cut, now);
            if (response_complete_) return abandoned_work_is_over(Outcome::answered, now);
            if (ended()) return abandoned_work_is_over(Outcome::cut, now);
            if (broken_) shut();
            return;
    }
}

}  // namespace penstock::sim
