#include "workers/probe.h"

#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <event2/event.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include "base/text.h"
#include "net/socket.h"

namespace penstock {

namespace {

constexpr size_t most_body = 64 * KiB;
constexpr H1Limits limits{.head_bytes = 16 * 1024, .body_bytes = UINT64_MAX};

// An answer may come in several heads: 100, 103, then the one that counts.
constexpr Asked asked{.method = Method::get, .upgrade = false};

std::string host_of(const Address& address) {
    return address.kind == Address::Kind::unix ? "localhost" : address.text;
}

}  // namespace

Probe::Probe(Loop& loop, Task& owner) : loop_(loop), owner_(owner) {}

Probe::~Probe() { cancel(); }

void Probe::ask(Question question) {
    assert(!is_asking());
    question_ = std::move(question);
    outcome_ = {};
    in_.clear();
    body_bytes_ = 0;
    head_reader_.reset();
    status_ = 0;
    check_.reset();
    if (question_.grpc || (question_.http2 && !question_.path.empty()))
        check_ = std::make_unique<H2Check>(
            host_of(question_.address),
            H2Check::Question{.path = question_.path, .expect = question_.expect, .grpc = question_.grpc},
            question_.tls != nullptr);
    out_ = question_.path.empty() ? ""
                                  : fmt::format(
                                        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: penstock\r\n"
                                        "Accept: */*\r\nConnection: close\r\n\r\n",
                                        question_.path, host_of(question_.address));
    step_ = Step::connecting;
    loop_.turn().arm(deadline_, deadline_after(loop_.now(), question_.timeout));

    auto address = socket_address(question_.address);
    if (!address) return finish(false, address.error().message);
    Dialed dialed = dial(*address);
    socket_ = Descriptor(dialed.fd);
    if (dialed.error == EINPROGRESS) return wait_for(EV_WRITE);
    if (dialed.error == EAGAIN) {
        outcome_.is_busy = true;
        return finish(only_connects(), "connect: its backlog is full");
    }
    if (dialed.error) return finish(false, fmt::format("connect: {}", std::strerror(dialed.error)));
    connected();
}

void Probe::cancel() {
    let_go();
    step_ = Step::idle;
    unlink();
}

void Probe::let_go() {
    if (socket_) {
        if (tls_) {
            tls_->close();
            send_sealed();  // or not: nobody waits for it
        }
        if (event_initialized(&event_)) event_del(&event_);
        socket_.close();
    }
    event_ = {};
    tls_.reset();
    deadline_.disarm();
}

// The owner learns it in its own run(), never inside a call of ours.
void Probe::finish(bool is_good, std::string text) {
    let_go();
    step_ = Step::idle;
    outcome_.is_good = is_good;
    outcome_.text = std::move(text);
    loop_.turn().mark(owner_);
}

void Probe::wait_for(short what) {
    event_assign(&event_, loop_.base(), socket_.number(), what, on_event, this);
    event_add(&event_, nullptr);
}

void Probe::on_event(int, short, void* self) {
    auto& probe = *static_cast<Probe*>(self);
    probe.loop_.turn().mark(probe);
}

void Probe::run(Time) {
    if (deadline_.expired()) return time_is_up();
    switch (step_) {
        case Step::idle: break;
        case Step::connecting:
            if (int error = socket_error(socket_.number())) {
                return finish(false, fmt::format("connect: {}", std::strerror(error)));
            }
            connected();
            break;
        case Step::handshake: shake_hands(); break;
        case Step::sending: send(); break;
        case Step::head:
        case Step::body:
        case Step::checking: receive(); break;
    }
}

void Probe::time_is_up() {
    std::string after = format_duration(question_.timeout);
    // It has answered; its end is its own affair.
    if (step_ == Step::body) return end_of_file();
    if (check_ && check_->settle()) return checked();
    outcome_.is_slow = true;
    if (step_ == Step::connecting) return finish(false, fmt::format("connect: nothing in {}", after));
    if (step_ == Step::handshake) return finish(false, fmt::format("TLS handshake: not done in {}", after));
    outcome_.is_busy = true;
    finish(false, fmt::format("{}: no answer in {}", what(), after));
}

void Probe::connected() {
    outcome_.accepted = true;
    if (!question_.tls) return begin();
    step_ = Step::handshake;
    tls_ = TlsClient::connect(question_.tls, question_.host, nullptr, loop_.chunks());
    shake_hands();
}

void Probe::begin() {
    if (only_connects()) return finish(true, "connect: ok");
    if (check_) out_ = check_->take_output();
    step_ = Step::sending;
    send();
}

void Probe::send() {
    ssize_t n = put(out_);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return finish(false, fmt::format("{}: {}", what(), std::strerror(errno)));
    }
    if (n > 0) out_.erase(0, static_cast<size_t>(n));
    if (!out_.empty() || (tls_ && !tls_->output().empty())) return wait_for(EV_WRITE);
    step_ = check_ ? Step::checking : Step::head;
    wait_for(EV_READ);
}

void Probe::receive() {
    std::array<char, 16 * KiB> buffer;
    ssize_t n = take(buffer.data(), buffer.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return wait_for(EV_READ);
    if (n < 0 && step_ != Step::body)
        return finish(false, fmt::format("{}: {}", what(), std::strerror(errno)));
    if (n <= 0) return end_of_file();
    std::string_view bytes(buffer.data(), static_cast<size_t>(n));
    if (step_ == Step::checking) return check(bytes);
    if (step_ == Step::head) {
        in_.append(bytes);
        read_head();
    } else {
        read_body(bytes);
    }
    if (!is_asking()) return;
    if (tls_ && tls_->has_input()) return loop_.turn().mark(*this);
    wait_for(EV_READ);
}

void Probe::read_head() {
    std::array<Field, 100> room;
    for (;;) {
        Head head;
        ReadStep step = head_reader_.read(in_, limits, asked, room, head);
        if (step == ReadStep::need_more) return;
        if (step == ReadStep::failed) {
            return finish(false,
                          fmt::format("{}: no HTTP/1 answer ({})", what(), rule_name(head_reader_.rule())));
        }
        size_t consumed = head_reader_.consumed();
        if (!is_interim(head.status)) {
            status_ = head.status;
            step_ = Step::body;
            body_reader_.start(head_reader_.framing());
            return read_body(std::string_view(in_).substr(consumed));
        }
        in_.erase(0, consumed);
        head_reader_.reset();
    }
}

void Probe::read_body(std::string_view bytes) {
    body_bytes_ += bytes.size();
    for (;;) {
        BodyRead read = body_reader_.read(bytes, limits);
        bytes.remove_prefix(read.consumed);
        // Trailers, or what is no body: nothing more that matters here.
        if (read.step != BodyStep::data && read.step != BodyStep::need_more) return end_of_file();
        if (read.step == BodyStep::need_more) break;
    }
    if (body_bytes_ >= most_body) end_of_file();
}

void Probe::check(std::string_view bytes) {
    check_->receive(bytes, loop_.now());
    if (check_->is_answered()) return checked();
    if (tls_ && tls_->has_input()) return loop_.turn().mark(*this);
    out_ = check_->take_output();
    if (out_.empty()) return wait_for(EV_READ);
    step_ = Step::sending;
    send();
}

void Probe::end_of_file() {
    if (check_ && check_->settle()) return checked();
    if (step_ == Step::head || step_ == Step::checking)
        return finish(false, fmt::format("{}: closed without an answer", what()));
    bool is_good = question_.expect ? status_ == question_.expect : status_ >= 200 && status_ < 300;
    finish(is_good, fmt::format("{} -> {}", what(), status_));
}

std::string Probe::what() const { return check_ ? check_->what() : "GET " + question_.path; }

}  // namespace penstock
