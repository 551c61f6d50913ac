#include "proxy/greeting.h"

#include "base/address.h"
#include "base/log.h"
#include "codec/proxy_header.h"
#include "proxy/data_loop.h"

namespace penstock {

namespace {
constexpr char tls_handshake = 22;  // the first byte of a TLS connection
// After our last words: how long the client may take to close.
constexpr Duration finish_time = 2s;

// Every HTTP/1 request begins with a letter of its method, and so does HTTP/2's preface; some clients send an
// empty line first.
bool begins_http(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '\r' || c == '\n';
}
}  // namespace

std::string_view to_string(HeaderFailure failure) {
    switch (failure) {
        case HeaderFailure::malformed: return "malformed";
        case HeaderFailure::closed: return "closed";
        case HeaderFailure::timeout: return "timeout";
    }
    return "malformed";
}

Greeting::Greeting(DataLoop& loop, int fd, bool is_unix, ClientOrigin&& origin)
    : loop_(loop), channel_(loop.loop(), *this), deadline_(*this), origin_(std::move(origin)) {
    state_ = loop.config().listen[origin_.listener].proxy_protocol ? State::header : State::hello;
    channel_.adopt(fd, is_unix);
    Time now = loop.loop().now();
    loop.turn().arm(deadline_, deadline_after(now, loop.config().limits.client_header_timeout));
    if (loop.draining()) drain();
}

Greeting::~Greeting() {
    Task::unlink();
    Link<GraveTag>::unlink();
}

void Greeting::reap() { loop_.free(this); }

// Only as much is read as decides the next step: what follows is for who takes over.
void Greeting::fill() {
    ProxyHeader header;
    size_t consumed;
    bool decided = false;
    switch (state_) {
        case State::header:
            decided = read_proxy_header(channel_.input(), header, consumed) != ProxyStep::need_more;
            break;
        case State::hello: decided = !channel_.input().empty(); break;
        case State::handshake: decided = !channel_.handshaking(); break;
        case State::finishing:
        case State::closed: channel_.discard_input(); break;
    }
    if (decided) channel_.pause();
    loop_.turn().mark(*this);
}

void Greeting::run(Time now) {
    if (state_ == State::header) read_header();
    if (state_ == State::hello) read_hello();
    if (state_ == State::handshake) look_at_handshake(now);
    if (state_ == State::finishing) {
        if (channel_.finished() || deadline_.expired()) return close();
        if (channel_.readable()) channel_.resume();
    }
}

// A connection that says nothing and closes (a balancer's health check) is no failure of anything.
bool Greeting::wait_for_more() {
    if (channel_.dead() || channel_.at_end() || deadline_.expired()) return false;
    if (channel_.paused() || channel_.readable()) channel_.resume();
    return !channel_.input().empty() || !loop_.draining();
}

void Greeting::read_header() {
    ProxyHeader header;
    size_t consumed = 0;
    switch (read_proxy_header(channel_.input(), header, consumed)) {
        case ProxyStep::need_more:
            if (wait_for_more()) return;
            if (deadline_.expired()) return fail_header(HeaderFailure::timeout);
            return channel_.input().empty() ? close() : fail_header(HeaderFailure::closed);
        case ProxyStep::failed: return fail_header(HeaderFailure::malformed);
        case ProxyStep::complete: break;
    }
    channel_.consume(consumed);
    if (header.tells_client) {
        Result<Network> client = parse_network(header.client);
        origin_.trusted = client && loop_.snapshot().trusts(client->ip);
        origin_.address = std::move(header.client);
        origin_.set_port(header.port);
    }
    if (!loop_.credentials().listener(origin_.listener)) return hand_over();
    state_ = State::hello;
}

void Greeting::read_hello() {
    if (channel_.input().empty()) return wait_for_more() ? void() : close();
    char first = channel_.input()[0];
    auto server = loop_.credentials().listener(origin_.listener);
    if (first != tls_handshake || !server) {
        if (!begins_http(first)) {
            fail_tls(TlsFailure::protocol, "no TLS");
            return close();
        }
        fail_tls(TlsFailure::plain_http, "plain HTTP");
        loop_.go_on_with_http1(channel_, std::move(origin_)).refuse_connection(Rule::http_on_tls_port);
        return close();
    }
    channel_.secure(TlsServer::accept(server, loop_.chunks()));
    state_ = State::handshake;
    channel_.resume();
}

void Greeting::look_at_handshake(Time now) {
    const Tls& tls = *channel_.tls();
    if (tls.failure() != TlsFailure::none) {
        fail_tls(tls.failure(), tls.what_failed());
        state_ = State::finishing;
        channel_.finish_handshake();
        loop_.turn().arm(deadline_, now + finish_time);
        return;
    }
    if (!channel_.handshaking()) {
        loop_.stats().tls_handshake(Wire::client, tls.is_resumed());
        origin_.secure = true;
        return hand_over();
    }
    if (channel_.dead() || channel_.at_end()) {
        fail_tls(TlsFailure::closed, "the client closed the connection");
        return close();
    }
    if (deadline_.expired()) {
        fail_tls(TlsFailure::timeout, "not done in time");
        return close();
    }
    if (channel_.readable()) channel_.resume();
}

void Greeting::hand_over() {
    const Tls* tls = channel_.tls();
    std::string_view agreed = tls ? tls->application() : std::string_view();
    bool http2 = agreed.empty() ? !loop_.config().listen[origin_.listener].http1 : agreed == "h2";
    if (http2)
        loop_.go_on_with_http2(channel_, std::move(origin_));
    else
        loop_.go_on_with_http1(channel_, std::move(origin_));
    close();
}

void Greeting::fail_header(HeaderFailure failure) {
    loop_.stats().proxy_header_failed({static_cast<uint8_t>(failure), to_string(failure)});
    log::debug("client {}: PROXY header: {}", origin_.address, to_string(failure));
    close();
}

void Greeting::fail_tls(TlsFailure failure, std::string_view text) {
    loop_.stats().tls_failed(Wire::client, {static_cast<uint8_t>(failure), to_string(failure)});
    log::debug("client {}: TLS handshake: {}", origin_.address, text);
}

void Greeting::drain() {
    channel_.expect_input();  // what has come is served; run() closes if nothing has
    loop_.turn().mark(*this);
}

void Greeting::stop_now() { close(); }

void Greeting::close() {
    if (state_ == State::closed) return;
    state_ = State::closed;
    deadline_.disarm();
    channel_.pause();
    loop_.turn().bury(*this);
}

}  // namespace penstock
