// A Loop is a Turn with one thread, one event base and a mailbox. It sleeps in the poll phase until a socket,
// a letter or the next deadline, then runs the turn. It owns nothing that it runs: listeners, sessions and
// exchanges belong to the floor above and must be gone before the loop is.
//
// Only its own thread touches it, but for post(), wake() and stop(). The event base has no locks.
// The next deadline is a timerfd of our own: a libevent timer has either the coarse clock (4 ms late) or
// costs a timerfd_settime() every turn; ours is set only when the next deadline comes nearer.
#pragma once

#include <atomic>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <memory>

#include "base/chunk.h"
#include "base/turn.h"
#include "net/mailbox.h"

namespace penstock {

class Loop {
  public:
    // Who takes this loop's wakes; at most one.
    class WakeTaker {
      public:
        virtual void woken(Handle handle) = 0;

      protected:
        ~WakeTaker() = default;
    };

    // A simulation gives a start, never calls run() and turns turn() by hand.
    explicit Loop(unsigned index, Time start = monotonic_now());
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    unsigned index() const { return index_; }
    Turn& turn() { return turn_; }
    Time now() const { return turn_.now(); }  // of this turn; stale during the poll phase
    ChunkPool& chunks() { return chunks_; }
    event_base* base() { return base_; }
    void take_wakes(WakeTaker* taker) { wakes_ = taker; }

    void run();       // turns until stop()
    void run_once();  // one turn: sleeps for it if nothing is to be done

    void post(std::unique_ptr<Letter> letter) { mailbox_.post(std::move(letter)); }  // any thread
    void wake(Handle handle) { mailbox_.wake(handle); }                              // any thread
    void stop();                                                                     // any thread

  private:
    void poll();
    void take_mail();
    void set_timer(Time next);
    static void on_mail(int, short, void* self);
    static void on_timer(int, short, void* self);

    const unsigned index_;
    event_base* base_;
    Turn turn_;
    ChunkPool chunks_;
    Mailbox mailbox_;
    Mailbox::Mail mail_;
    bool has_mail_ = false;
    WakeTaker* wakes_ = nullptr;
    event mail_event_;
    event timer_event_;
    int timer_;
    Time timer_set_for_ = never;
    std::atomic<bool> stopping_{false};
};

}  // namespace penstock
