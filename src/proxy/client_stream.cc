#include "proxy/client_stream.h"

#include "http/upgrade.h"
#include "proxy/client_h2.h"
#include "proxy/data_loop.h"

namespace penstock {

namespace {

Head continue_head_of_h2() {
    Head head;
    head.status = 100;
    return head;
}

// The answer to an extended CONNECT is out: what has come since is the tunnel's, or nobody's.
void begin_tunnel(Message& request, const Message& response) {
    if (response.tunnel) {
        request.tunnel = true;
        return;
    }
    request.framing.upgrade = false;
    request.body.discard();
    if (!request.is_complete() && !request.failed()) request.fill_to(Progress::complete);
}

}  // namespace

ClientStream::~ClientStream() {
    Link<GraveTag>::unlink();
    Link<StreamTag>::unlink();
}

void ClientStream::reap() { connection_.loop().free(this); }

void ClientStream::mark() { connection_.loop().turn().mark(*exchange_); }

void ClientStream::begin(const H2Head& asked) {
    DataLoop& loop = connection_.loop();
    exchange_ = loop.make_exchange(*this, connection_.client());
    Message& request = exchange_->request;
    incoming = &request;
    outgoing = &exchange_->response;
    arena = &exchange_->arena();
    request.head = copy_head(asked.head, exchange_->arena());
    rule = asked.rule == Rule::ok ? frame_h2_request(asked, request.framing) : asked.rule;
    if (rule == Rule::ok && !asked.protocol.empty())
        rule = upgrade_of_connect(asked.head, asked.protocol, {loop.random(), loop.random()},
                                  exchange_->arena(), request.head, request.framing);
    refused_ = asked.is_refused;
    request.fill_to(Progress::head);
    if (!request.framing.tunnel) most_body = loop.h1_limits().body_bytes;
    if (rule != Rule::ok) {
        exchange_->rule = rule;
        request.fail(Cause::bad_request);
    }
    mark();
}

void ClientStream::note_moved(Time sent) {
    if (sent != never) last_sent_ = sent;
    if (!exchange_) return;
    if (exchange_->request.failed() && rule != Rule::ok) exchange_->rule = rule;
    mark();
}

void ClientStream::note_closed(H2Error code, bool by_them) {
    if (!exchange_) return;
    Message& request = exchange_->request;
    if (!by_them && is_provoked(code) && !request.is_complete()) {
        // What followed the head was no part of a request.
        refused_ = true;
        if (rule == Rule::ok)
            rule = request.framing.body == BodyKind::length ? Rule::h2_body_differs : Rule::h2_malformed;
        exchange_->rule = rule;
        request.fail(Cause::bad_request);
    } else if (!refused_ && (!request.is_complete() || !(exchange_->response.is_sent() || all_sent()))) {
        exchange_->client_left = true;
    }
    mark();
}

void ClientStream::leave() {
    if (!exchange_) return;
    exchange_->client_left = true;
    mark();
}

// --- called by the exchange, in advance

void ClientStream::wake(Time now) {
    Message& request = exchange_->request;
    Message& response = exchange_->response;
    H2Session& session = connection_.session();
    if (refused_) return answer_nobody();
    if (exchange_->send_continue && !continued_) {
        // Nobody waits for it any more once the body has begun to come by itself.
        if (request.body.total() == 0 && !request.is_complete())
            session.interim(*this, continue_head_of_h2());
        continued_ = true;
    }
    write_interims();
    if (response.has_head() && response.sent() == Progress::nothing && is_open()) write_head(now);
    if (request.framing.upgrade && !request.tunnel && response.sent() != Progress::nothing)
        begin_tunnel(request, response);
    if (omit_body_)
        while (response.body.unsent() > 0) response.body.sent(response.body.next().size());
    session.pump(*this);
    session.refill(*this);
    connection_.flush_later();
}

void ClientStream::answer_nobody() {
    Message& response = exchange_->response;
    if (!response.is_complete()) return;
    while (response.body.unsent() > 0) response.body.sent(response.body.next().size());
    if (response.sent() == Progress::nothing) response.send_to(Progress::head);
    if (!response.is_sent()) response.send_to(Progress::complete);
    mark();
}

void ClientStream::write_interims() {
    Message& response = exchange_->response;
    while (const Head* interim = response.next_interim()) {
        connection_.session().interim(*this, *interim);
        response.interim_sent();
    }
}

void ClientStream::write_head(Time now) {
    Message& response = exchange_->response;
    HeadEdit edit = exchange_->response_edit(now);
    if (response.tunnel) {
        response.head.status = 200;  // 101 is HTTP/1's
        edit.drop.add(FieldId::sec_websocket_accept);
    }
    omit_body_ = has_no_body(response.head.status) || exchange_->request.head.method == Method::head;
    if (response.framing.declared == BodyKind::length && response.head.status != 204) {
        edit.declare = BodyKind::length;
        edit.length = response.framing.length;
    }
    connection_.session().respond(*this, edit, omit_body_);
}

// The response cannot be completed: what we have is out, and the reset says that there would have been more.
void ClientStream::cancel(Cause cause, Time) {
    bool its_fault = cause == Cause::write_timeout || cause == Cause::client_stall;
    connection_.session().reset(*this, its_fault ? H2Error::cancel : H2Error::internal_error);
    let_go();
}

void ClientStream::ended(Time) {
    // Nobody reads the rest of a request that has its answer (RFC 9113 8.1).
    bool answered = exchange_->response.is_sent();
    connection_.session().reset(*this, answered ? H2Error::no_error : H2Error::cancel);
    let_go();
}

void ClientStream::let_go() {
    exchange_ = nullptr;
    connection_.session().forget(*this);
    connection_.removed(*this);
    connection_.loop().turn().bury(*this);
}

}  // namespace penstock
