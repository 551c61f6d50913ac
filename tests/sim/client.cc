#include "client.h"

#include <algorithm>
#include <fmt/format.h>

#include "codec/h1_reader.h"
#include "proxy/reply.h"
#include "sim_loop.h"
#include "texts.h"
#include "wire.h"
#include "world.h"

namespace penstock::sim {

Client::Client(SimLoop& loop, uint32_t requests)
    : world_(loop.world()), loop_(loop), requests_left_(requests) {}

Client::~Client() {
    Task::unlink();
    Link<GraveTag>::unlink();
}

void Client::reap() { loop_.free(this); }

// --- its request

void Client::ask() { loop_.turn().mark(*this); }

void Client::begin() {
    Chance& chance = world_.chance();
    const Plan& plan = world_.plan();
    --requests_left_;
    const size_t pool = pool_ = plan.choose_pool(chance);
    number_ = world_.new_request();
    since_ = world_.now();
    seen = {};

    enum class Kind { get, post, put, upgrade };
    Kind kind = chance.in_thousand(plan.clients.upgrades) ? Kind::upgrade
                : chance.one_in(2)                        ? Kind::get
                : chance.one_in(5)                        ? Kind::put
                                                          : Kind::post;
    body_ = 0;
    if (kind == Kind::post || kind == Kind::put)
        body_ = chance.in_thousand(plan.clients.large) ? chance.between(20'000, 400'000)
                                                       : chance.between(0, 6'000);
    constexpr std::string_view methods[] = {"GET", "POST", "PUT", "GET"};
    char text[256];
    auto out = fmt::format_to(text, "{} /pool{}/{} HTTP/1.1\r\nhost: sim\r\n",
                              methods[static_cast<int>(kind)], pool, number_);
    if (kind == Kind::upgrade) out = fmt::format_to(out, "connection: upgrade\r\nupgrade: websocket\r\n");
    const bool chunked = chance.one_in(4);
    if (kind == Kind::post || kind == Kind::put)
        out = chunked ? fmt::format_to(out, "transfer-encoding: chunked\r\n")
                      : fmt::format_to(out, "content-length: {}\r\n", body_);
    const Balance& balance = plan.pools[pool].settings.balance;
    if (balance.hash && !chance.one_in(8))
        out = fmt::format_to(out, "x-key: {}\r\n", chance.below(1 + chance.below(12)));
    if (balance.sticky)
        if (const std::string_view cookie = world_.known_cookie(pool); !cookie.empty())
            out = fmt::format_to(out, "cookie: {}\r\n", cookie);
    const bool expects = body_ > 0 && chance.one_in(6);
    if (expects) out = fmt::format_to(out, "expect: 100-continue\r\n");
    out = fmt::format_to(out, "\r\n");

    const Retry& retry = plan.pools[pool].settings.retry;
    Facts& facts = world_.facts(number_);
    facts.repeatable = kind != Kind::post || retry.idempotent;
    facts.drops_answers = !retry.on_status.empty();
    // A stale connection is tried once more for nothing.
    facts.most_begun = static_cast<uint8_t>(facts.repeatable ? 2 + retry.attempts : 1);

    if (kind == Kind::upgrade) body_ = chance.between(0, 6'000);  // what it says in the tunnel
    choose_habits();
    exchange_ = loop_.data().make_exchange(*this, {"192.0.2.1", "80", false, false});
    if (chance.in_thousand(plan.clients.broken) && chance.one_in(2)) {
        exchange_->rule = Rule::name_invalid;
        exchange_->request.fail(Cause::bad_request);
    } else {
        ParsedRequest parsed = parse_request({text, static_cast<size_t>(out - text)});
        exchange_->request.framing = parsed.framing;
        exchange_->request.head = copy_head(parsed.head, exchange_->arena());
        exchange_->request.fill_to(Progress::head);
        if (parsed.framing.body == BodyKind::none && !parsed.framing.upgrade)
            exchange_->request.fill_to(Progress::complete);
    }
    paused_ = true;
    loop_.turn().mark(*exchange_);
    if (!expects && (kind == Kind::post || kind == Kind::put)) upload_soon(world_.latency());
    if (left_) exchange_->client_left = true;
}

void Client::choose_habits() {
    Chance& chance = world_.chance();
    const ClientsPlan& habits = world_.plan().clients;
    uploaded_ = taken_ = out_ = got_ = read_in_all_ = 0;
    upload_due_ = read_due_ = blocked_ = continued_ = is_workers_ = false;
    stops_at_ = breaks_at_ = reads_until_ = UINT64_MAX;
    up_piece_ = chance.one_in(3) ? chance.between(500, 20'000) : UINT64_MAX;
    up_pause_ = world_.latency();
    if (chance.in_thousand(habits.slow_up)) {
        up_piece_ = chance.between(100, 2'000);
        up_pause_ = chance.around(world_.plan().config.limits.client_body_timeout / 3);
        if (chance.one_in(2)) stops_at_ = chance.below(body_ + 1);
    }
    if (chance.in_thousand(habits.broken)) breaks_at_ = chance.below(body_ + 1);
    down_piece_ = UINT64_MAX;
    down_pause_ = world_.latency();
    if (chance.in_thousand(habits.slow_down)) {
        down_piece_ = chance.between(1'000, 20'000);
        down_pause_ = chance.around(world_.plan().config.limits.client_write_timeout / 3);
        if (chance.one_in(2)) reads_until_ = chance.below(100'000);
    }
    if (chance.in_thousand(habits.leave))
        world_.add(What::client_leaves, loop_.number(), chance.around(world_.plan().pools[0].work * 2),
                   loop_.handle(this), number_);
}

// The next piece is there, if the socket takes it.
void Client::upload(uint32_t number) {
    if (number != number_ || !exchange_) return;
    upload_due_ = false;
    const uint64_t most = std::min({body_, stops_at_, taken_ + window});
    uploaded_ += std::min(up_piece_, most - std::min(most, uploaded_));
    if (!paused_) fill_body();
    upload_on();
}

void Client::upload_on() {
    if (uploaded_ < std::min({body_, stops_at_, taken_ + window})) upload_soon(up_pause_);
}

void Client::upload_soon(Duration after) {
    if (upload_due_) return;
    upload_due_ = true;
    world_.add(What::client_uploads, loop_.number(), after, loop_.handle(this), number_);
}

void Client::fill_body() {
    Message& request = exchange_->request;
    if (request.failed() || request.is_complete() || (request.framing.upgrade && !request.tunnel)) return;
    bool moved = false;
    while (taken_ < uploaded_) {
        if (taken_ >= breaks_at_ && !request.tunnel) {
            exchange_->rule = Rule::chunk_size_invalid;
            request.fail(Cause::bad_request);
            moved = true;
            break;
        }
        if (!request.body.has_room()) {
            paused_ = moved = true;
            break;
        }
        const uint64_t run = std::min<uint64_t>(uploaded_ - taken_, large_chunk_bytes);
        loop_.append(request.body, {pattern(number_, taken_), run});
        if (request.filled() == Progress::head) request.fill_to(Progress::body);
        taken_ += run;
        moved = true;
        const uint64_t most = loop_.data().config().limits.body;
        if (most && taken_ > most && !request.tunnel) {  // only of one that did not say so
            exchange_->rule = Rule::body_too_long;
            request.fail(Cause::bad_request);
            break;
        }
    }
    if (taken_ == body_ && !request.failed()) {
        request.fill_to(Progress::complete);
        moved = true;
    }
    upload_on();
    if (moved) loop_.turn().mark(*exchange_);
}

// --- its response: in advance, called by the exchange

void Client::wake(Time now) {
    Message& request = exchange_->request;
    Message& response = exchange_->response;
    if (exchange_->send_continue && !continued_) {
        continued_ = true;
        if (uploaded_ == 0) upload_soon(world_.latency());
    }
    while (response.next_interim()) {
        response.interim_sent();
        world_.facts(number_).passed_on = true;
    }
    if (response.has_head() && response.sent() == Progress::nothing) write_head(now);
    if (response.sent() != Progress::nothing && !response.is_sent()) write_body();
    const bool wants = !request.failed() && !request.is_complete() && request.body.wants_more() &&
                       (!request.framing.upgrade || request.tunnel);
    if (paused_ && wants) {
        paused_ = false;
        fill_body();
    }
}

void Client::write_head(Time now) {
    Message& request = exchange_->request;
    Message& response = exchange_->response;
    if (out_ >= window) {
        blocked_ = true;
        return;
    }
    const HeadEdit edit = exchange_->response_edit(now);
    response.send_to(Progress::head);
    world_.facts(number_).passed_on = true;
    is_workers_ = response.head.value_of("x-penstock-reason").empty();
    if (!is_workers_) world_.expect_retry_after(response.head.value_of(FieldId::retry_after));
    for (const FieldLine& line : edit.add)
        if (line.name == "set-cookie") world_.take_cookie(pool_, number_, line.value);
    if (response.tunnel) {
        request.tunnel = true;
        paused_ = false;
        upload_soon(world_.latency());
    } else if (request.framing.upgrade && !request.is_complete() && !request.failed()) {
        request.fill_to(Progress::complete);
        loop_.turn().mark(*exchange_);
    }
    put_out(200);
}

void Client::write_body() {
    Message& response = exchange_->response;
    while (response.body.unsent() > 0) {
        if (out_ >= window) {
            blocked_ = true;
            return;
        }
        std::string_view run = response.body.next();
        if (is_workers_) world_.expect_pattern(number_, got_, run, "a response's body");
        response.body.sent(run.size());
        got_ += run.size();
        put_out(run.size());
        if (response.sent() == Progress::head) response.send_to(Progress::body);
    }
    if (!response.is_complete()) return;
    const Framing& framing = response.framing;
    if (framing.body == BodyKind::length && got_ != framing.length)
        world_.fail("a response of {} bytes was complete with {}", framing.length, got_);
    response.send_to(Progress::complete);
}

void Client::put_out(uint64_t bytes) {
    out_ += bytes;
    if (read_due_ || read_in_all_ >= reads_until_) return;
    read_due_ = true;
    world_.add(What::client_reads, loop_.number(), down_pause_, loop_.handle(this), number_);
}

void Client::read(uint32_t number) {
    if (number != number_ || closed_) return;
    read_due_ = false;
    const uint64_t piece = std::min(out_, down_piece_);
    out_ -= piece;
    read_in_all_ += piece;
    last_sent_ = world_.now();
    if (blocked_ && out_ <= window / 2) {
        blocked_ = false;
        loop_.turn().mark(*this);
    }
    if (out_ > 0) put_out(0);
}

// --- ends

void Client::leave(uint32_t number) {
    if (number != number_ || closed_ || left_) return;
    left_ = true;
    loop_.turn().mark(*this);
    if (!exchange_) return;
    exchange_->client_left = true;
    loop_.turn().mark(*exchange_);
}

void Client::drain() { loop_.turn().mark(*this); }

void Client::cancel(Cause cause, Time) {
    world_.ends(number_, fmt::format("cut: {}", answer_to(cause, Rule::ok, nullptr).reason));
    exchange_ = nullptr;
    close();
}

void Client::ended(Time) {
    const Exchange& exchange = *exchange_;
    const Message& response = exchange.response;
    if (exchange.client_left && !response.is_sent()) {
        world_.ends(number_, "left");
    } else if (!response.is_sent()) {
        world_.fail("request {} ended without an answer", number_);
    } else if (!is_workers_) {
        world_.ends(number_,
                    fmt::format("{} {}", response.head.status, response.head.value_of("x-penstock-reason")));
    } else {
        world_.ends(number_, response.tunnel ? "answered: 101" : "answered");
    }
    const bool keeps = !left_ && !exchange.close_after && exchange.request.is_complete() &&
                       !response.tunnel && !loop_.data().draining() && requests_left_ > 0;
    exchange_ = nullptr;
    if (!keeps) return close();
    if (is_workers_ && world_.chance().one_in(3))
        loop_.turn().mark(*this);  // the next one was already there
    else
        world_.add(What::client_asks, loop_.number(), world_.chance().around(world_.plan().pools[0].work * 5),
                   loop_.handle(this));
}

void Client::close() {
    if (closed_) return;
    closed_ = true;
    loop_.turn().bury(*this);
}

void Client::run(Time) {
    if (closed_) return;
    if (exchange_) return loop_.turn().mark(*exchange_);  // room to write, or an end
    if (left_ || requests_left_ == 0 || loop_.data().draining()) return close();
    begin();
}

}  // namespace penstock::sim
