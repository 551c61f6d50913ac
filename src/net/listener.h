// A Listener accepts connections on one listening socket for one loop: level-triggered, at most 64 a turn.
// When the process runs out of descriptors, or of the connections that the configuration allows, it pauses:
// waiting clients stay in the kernel's backlog, and it goes on when one is closed (resume()) or a short time
// later. It owns the descriptor. The taker outlives it.
#pragma once

#include <cstdint>
#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/turn.h"
#include "net/loop.h"
#include "net/socket.h"

namespace penstock {

class Listener final : public Task {
  public:
    // Who takes what was accepted. In poll.
    class Taker {
      public:
        virtual bool has_room() = 0;  // one more connection may be accepted
        virtual void accepted(Listener& listener, int fd, const SocketAddress& from) = 0;
        virtual void accept_paused(int error) = 0;  // 0: no room; else EMFILE and its like

      protected:
        ~Taker() = default;
    };

    Listener(Loop& loop, Taker& taker, int fd, unsigned number);
    ~Listener();

    unsigned number() const { return number_; }  // of the configuration's `listen` list
    const SocketAddress& address() const { return address_; }

    void resume();  // there may be room again
    // Takes what the kernel has accepted already and closes the socket: who was let in is served.
    void close();
    void run(Time now) override;

  private:
    static constexpr int most_a_turn = 64;
    static constexpr Duration pause_time = 100ms;

    static void on_readable(int, short, void* self);
    bool accept_some(int most);  // false: there is nothing more to accept now
    void pause(int error);
    void close_socket();

    Loop& loop_;
    Taker& taker_;
    int fd_;
    const unsigned number_;
    SocketAddress address_;
    event event_{};
    bool paused_ = false;
    Deadline again_;
};

}  // namespace penstock
