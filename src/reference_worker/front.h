// The Front speaks HTTP/1.1, on libevent's evhttp: it reads requests, answers what it can at once, hands
// inferences to the Crew and sends what comes back. One thread, the one that runs the event base.
//
// Like the servers that it stands for it does not notice that a client has left: the inference runs to its
// end, and the answer is written into a closed connection.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/address.h"
#include "base/error.h"
#include "reference_worker/counts.h"
#include "reference_worker/crew.h"

struct event;
struct event_base;
struct evconnlistener;
struct evhttp;
struct evhttp_connection;
struct evkeyvalq;

namespace penstock::reference {

struct Options {
    std::string model = "convnet";
    Duration delay{};        // of each inference
    Duration ready_after{};  // loading a model takes its time
    bool faults = false;     // /faults may be used
};

// What a test has asked for, by POST /faults.
struct Faults {
    uint64_t fail_next = 0;  // so many inferences are answered with `status`, unrun
    int status = 500;
    std::string retry_after;  // with these
    bool ready = true;
};

class Front {
  public:
    Front(event_base* base, Options options, Crew& crew);
    ~Front();

    Result<std::string> listen(const Address& at);  // where it listens now, the port filled in
    void stop();                                    // accepts nobody; the base is left when all is answered

  private:
    struct Connection {
        uint64_t requests = 0;
        bool is_writing = false;
    };

    static void on_request(evhttp_request* request, void* self);
    static void on_complete(evhttp_request* request, void* connection);
    static void on_close(evhttp_connection* connection, void* self);
    static void on_done(int, short, void* self);
    static void on_ready(int, short, void* self);

    void count_connection(evhttp_connection* connection);
    void drop_closed();
    void route(evhttp_request* request, std::string_view path);
    void infer(evhttp_request* request);
    void set_faults(evhttp_request* request);
    void send_done();
    void reply(evhttp_request* to, int status, std::string_view body,
               std::string_view type = "application/json");
    void leave_if_done();
    bool is_ready() const { return loaded_ && faults_.ready && !stopping_; }

    event_base* const base_;
    Options options_;
    Crew& crew_;
    evhttp* const http_;
    event* const done_;
    event* const loading_;
    evconnlistener* listener_ = nullptr;
    std::string socket_;  // a unix socket's path, to be removed
    std::map<evhttp_connection*, Connection> connections_;
    Faults faults_;
    Counts counts_;
    bool loaded_ = false;
    bool stopping_ = false;
};

}  // namespace penstock::reference
