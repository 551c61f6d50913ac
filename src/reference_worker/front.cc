#include "reference_worker/front.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace penstock::reference {

namespace {

constexpr size_t longest_body = 16UL << 20;  // a full batch, nested and generously spaced, is under 4 MiB
constexpr int backlog = 1024;

std::string_view body_of(evhttp_request* request) {
    evbuffer* in = evhttp_request_get_input_buffer(request);
    return {reinterpret_cast<const char*>(evbuffer_pullup(in, -1)), evbuffer_get_length(in)};
}

std::string_view method_of(evhttp_request* request) {
    switch (evhttp_request_get_command(request)) {
        case EVHTTP_REQ_GET: return "GET";
        case EVHTTP_REQ_HEAD: return "HEAD";
        case EVHTTP_REQ_POST: return "POST";
        default: return "another";
    }
}

// The client's side is shut, and nothing is left to be read.
bool is_closed(evhttp_connection* connection) {
    char byte = 0;
    const int fd = bufferevent_getfd(evhttp_connection_get_bufferevent(connection));
    return fd < 0 || ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

timeval timeval_of(Duration d) {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(d).count();
    return {us / 1'000'000, us % 1'000'000};
}

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Result<SocketAddress> socket_address(const Address& of) {
    SocketAddress out;
    if (of.kind == Address::Kind::unix) {
        auto* to = reinterpret_cast<sockaddr_un*>(&out.storage);
        if (of.path.size() >= sizeof to->sun_path) return failure(of.text + " is too long a path");
        to->sun_family = AF_UNIX;
        std::memcpy(to->sun_path, of.path.data(), of.path.size());
        out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + of.path.size() + 1);
    } else if (of.kind == Address::Kind::tcp4) {
        auto* to = reinterpret_cast<sockaddr_in*>(&out.storage);
        to->sin_family = AF_INET;
        to->sin_port = htons(of.port);
        inet_pton(AF_INET, of.host.c_str(), &to->sin_addr);
        out.size = sizeof *to;
    } else if (of.kind == Address::Kind::tcp6) {
        auto* to = reinterpret_cast<sockaddr_in6*>(&out.storage);
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(of.port);
        inet_pton(AF_INET6, of.host.c_str(), &to->sin6_addr);
        out.size = sizeof *to;
    } else {
        return failure(of.text + " is a name; give an IP address or unix:/path");
    }
    return out;
}

}  // namespace

Front::Front(event_base* base, Options options, Crew& crew)
    : base_(base),
      options_(std::move(options)),
      crew_(crew),
      http_(evhttp_new(base)),
      done_(event_new(base, crew.descriptor(), EV_READ | EV_PERSIST, on_done, this)),
      loading_(event_new(base, -1, 0, on_ready, this)) {
    evhttp_set_gencb(http_, on_request, this);
    evhttp_set_allowed_methods(http_, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST);
    evhttp_set_max_body_size(http_, longest_body);
    evhttp_set_max_headers_size(http_, 64L << 10);
    event_add(done_, nullptr);
    const timeval after = timeval_of(options_.ready_after);
    event_add(loading_, &after);
}

Front::~Front() {
    event_free(done_);
    event_free(loading_);
    evhttp_free(http_);  // and its listener
    if (!socket_.empty()) ::unlink(socket_.c_str());
}

Result<std::string> Front::listen(const Address& at) {
    auto address = socket_address(at);
    if (!address) return tl::make_unexpected(address.error());
    if (at.kind == Address::Kind::unix) ::unlink(at.path.c_str());  // what an earlier life has left
    listener_ = evconnlistener_new_bind(base_, nullptr, nullptr,
                                        LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_CLOSE_ON_FREE,
                                        backlog, address->get(), static_cast<int>(address->size));
    if (!listener_) return failure(fmt::format("cannot listen on {}: {}", at.text, std::strerror(errno)));
    evhttp_bind_listener(http_, listener_);
    if (at.kind == Address::Kind::unix) {
        socket_ = at.path;
        return at.text;
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    getsockname(evconnlistener_get_fd(listener_), reinterpret_cast<sockaddr*>(&bound), &size);
    const uint16_t port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                      : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
    const std::string host = at.kind == Address::Kind::tcp6 ? fmt::format("[{}]", at.host) : at.host;
    return fmt::format("{}:{}", host, ntohs(port));
}

void Front::stop() {
    stopping_ = true;
    if (listener_) evconnlistener_disable(listener_);
    leave_if_done();
}

void Front::leave_if_done() {
    const bool writes = std::ranges::any_of(connections_, [](auto& c) { return c.second.is_writing; });
    if (stopping_ && counts_.in_flight == 0 && !writes) event_base_loopbreak(base_);
}

// --- connections

void Front::count_connection(evhttp_connection* connection) {
    auto [at, is_new] = connections_.try_emplace(connection);
    ++at->second.requests;
    counts_.most_on_a_connection = std::max(counts_.most_on_a_connection, at->second.requests);
    if (!is_new) return;
    evhttp_connection_set_closecb(connection, on_close, this);
    ++counts_.connections_in_all;
    if (connections_.size() > counts_.most_connections) drop_closed();
    counts_.connections = connections_.size();
    counts_.most_connections = std::max(counts_.most_connections, counts_.connections);
}

// Before a new highest count is believed: a connection that its client has closed before it opened the new
// one does not count, though its end may stand behind the new one in this turn's events.
void Front::drop_closed() {
    std::erase_if(connections_, [](auto& c) { return is_closed(c.first); });
}

void Front::on_close(evhttp_connection* connection, void* self) {
    auto& front = *static_cast<Front*>(self);
    front.connections_.erase(connection);
    front.counts_.connections = front.connections_.size();
    front.leave_if_done();
}

// --- requests

void Front::on_request(evhttp_request* request, void* self) {
    auto& front = *static_cast<Front*>(self);
    front.count_connection(evhttp_request_get_connection(request));
    const evhttp_uri* uri = evhttp_request_get_evhttp_uri(request);
    const char* path = uri ? evhttp_uri_get_path(uri) : nullptr;
    front.route(request, path ? path : "");
}

void Front::route(evhttp_request* request, std::string_view path) {
    const std::string_view method = method_of(request);
    const bool is_get = method == "GET" || method == "HEAD";
    auto only = [&](bool right) {
        if (!right) reply(request, 405, error_body("not with this method"));
        return right;
    };
    auto say_ready = [&](bool is) { reply(request, is ? 200 : 503, ""); };

    if (path == "/v2/health/live") return only(is_get) ? say_ready(true) : void();
    if (path == "/v2/health/ready") return only(is_get) ? say_ready(is_ready()) : void();
    if (path == "/v2") return only(is_get) ? reply(request, 200, server_metadata()) : void();
    if (path == "/metrics") {
        counts_.most_running = crew_.most_at_once();
        return only(is_get) ? reply(request, 200, counts_.text(options_.model), "text/plain; version=0.0.4")
                            : void();
    }
    if (path == "/faults" && options_.faults) return only(method == "POST") ? set_faults(request) : void();

    constexpr std::string_view models = "/v2/models/", version = "/versions/1";
    if (!path.starts_with(models)) return reply(request, 404, error_body("there is no such path"));
    path.remove_prefix(models.size());
    const std::string_view model = path.substr(0, path.find('/'));
    path.remove_prefix(model.size());
    if (model != options_.model)
        return reply(request, 404, error_body(fmt::format("there is no model {}", model)));
    if (path.starts_with(version)) path.remove_prefix(version.size());
    if (path.empty()) return only(is_get) ? reply(request, 200, model_metadata(model)) : void();
    if (path == "/ready") return only(is_get) ? say_ready(is_ready()) : void();
    if (path == "/infer") return only(method == "POST") ? infer(request) : void();
    reply(request, 404, error_body("there is no such path"));
}

void Front::infer(evhttp_request* request) {
    if (faults_.fail_next > 0) {
        --faults_.fail_next;
        ++counts_.failed;
        if (!faults_.retry_after.empty())
            evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After",
                              faults_.retry_after.c_str());
        return reply(request, faults_.status, error_body("told to fail"));
    }
    auto asked = read_infer_request(body_of(request));
    if (!asked || !loaded_) {
        ++counts_.failed;
        return asked ? reply(request, 503, error_body("the model is not loaded yet"))
                     : reply(request, 400, error_body(asked.error().message));
    }
    ++counts_.in_flight;
    counts_.most_in_flight = std::max(counts_.most_in_flight, counts_.in_flight);
    auto job = std::make_unique<Job>();
    job->to = request;
    job->model = options_.model;
    job->asked = std::move(*asked);
    job->delay = options_.delay;
    job->began = monotonic_now();
    crew_.hand_over(std::move(job));
}

void Front::set_faults(evhttp_request* request) {
    const auto asked = nlohmann::json::parse(body_of(request), nullptr, false);
    try {
        if (asked.contains("fail_next")) faults_.fail_next = asked["fail_next"];
        if (asked.contains("status")) faults_.status = asked["status"];
        if (asked.contains("retry_after")) faults_.retry_after = asked["retry_after"];
        if (asked.contains("ready")) faults_.ready = asked["ready"];
        if (asked.contains("hold")) crew_.hold(asked["hold"]);
        if (asked.contains("delay_ms")) options_.delay = std::chrono::milliseconds(asked["delay_ms"]);
    } catch (const nlohmann::json::exception& error) {
        return reply(request, 400, error_body(error.what()));
    }
    if (!asked.is_object()) return reply(request, 400, error_body("a JSON object is expected"));
    reply(request, 200, "{}");
}

// --- answers

void Front::on_done(int, short, void* self) { static_cast<Front*>(self)->send_done(); }

void Front::send_done() {
    for (auto& job : crew_.take_done()) {
        --counts_.in_flight;
        ++counts_.succeeded;
        counts_.spent += monotonic_now() - job->began;
        reply(job->to, 200, infer_response(job->model, job->asked, job->results));
    }
    leave_if_done();
}

void Front::on_ready(int, short, void* self) { static_cast<Front*>(self)->loaded_ = true; }

// A request whose connection has ended has none any more; evhttp then only frees it.
void Front::reply(evhttp_request* to, int status, std::string_view body, std::string_view type) {
    if (evhttp_connection* connection = evhttp_request_get_connection(to)) {
        auto at = connections_.find(connection);
        if (at != connections_.end()) {
            at->second.is_writing = true;
            evhttp_request_set_on_complete_cb(to, on_complete, this);
        }
    }
    evkeyvalq* fields = evhttp_request_get_output_headers(to);
    if (!body.empty()) evhttp_add_header(fields, "Content-Type", std::string(type).c_str());
    evbuffer* out = evhttp_request_get_output_buffer(to);
    evbuffer_add(out, body.data(), body.size());
    evhttp_send_reply(to, status, nullptr, nullptr);
}

void Front::on_complete(evhttp_request* request, void* self) {
    auto& front = *static_cast<Front*>(self);
    auto at = front.connections_.find(evhttp_request_get_connection(request));
    if (at != front.connections_.end()) at->second.is_writing = false;
    front.leave_if_done();
}

}  // namespace penstock::reference
