// Tells systemd how we are: the protocol of sd_notify(3), which is a datagram with NAME=value lines to the
// socket named in $NOTIFY_SOCKET. Where nobody listens (no such variable), every call does nothing.
//
// from_environment() takes the variable out of the environment: a worker that calls sd_notify itself must
// not be taken for penstock. Call it once, before the first thread and worker.
#pragma once

#include <string>
#include <string_view>

#include "base/time.h"

namespace penstock {

class Notify {
  public:
    static Notify from_environment();
    explicit Notify(std::string socket_path = {}) : path_(std::move(socket_path)) {}

    bool is_on() const { return !path_.empty(); }

    // `status` is what `systemctl status` shows: one line for people.
    void ready(std::string_view status) const;
    void reloading(Time now) const;  // ready() ends it
    void stopping(std::string_view status) const;
    void status(std::string_view status) const;

  private:
    bool send(std::string_view text) const;
    std::string path_;  // a leading '@' stands for the abstract namespace
};

}  // namespace penstock
