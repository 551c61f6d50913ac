// Deadlines: a hierarchical timer wheel with slots of 1 ms (Varghese & Lauck 1987, the hashed hierarchical
// form), so that arming, re-arming and disarming are O(1) and one real timer per loop is enough.
//
// A Deadline lives inside the object it serves. When its time has come the wheel notes it
// (`expired()` is true) and marks the task; it calls nothing else. Re-arming later than before, which is what
// every byte does to an idle timeout, only stores the new time: the wheel finds out when it gets there.
// Never early; late by at most 1 ms and a turn. The wheel outlives its deadlines or they are disarmed first.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>

#include "base/list.h"
#include "base/time.h"

namespace penstock {

class Task;
struct DeadlineTag;

class Deadline : Link<DeadlineTag> {
  public:
    explicit Deadline(Task& task) : task_(task) {}
    ~Deadline() { disarm(); }

    void disarm() {
        unlink();
        at_ = never;
        expired_ = false;
    }
    bool is_armed() const { return is_linked(); }
    bool expired() const { return expired_; }  // stays true until armed or disarmed anew
    Time at() const { return at_; }

  private:
    friend class Deadlines;
    template <class T, class Tag>
    friend class List;
    Task& task_;
    Time at_ = never;
    uint64_t slot_ms_ = 0;  // when the wheel will look at it: at or before `at_`, rounded up
    bool expired_ = false;
};

class Deadlines {
  public:
    explicit Deadlines(Time start) : cursor_(ceil_ms(start)) {}

    void arm(Deadline& deadline, Time at);  // `never` disarms

    // The first time at which there may be something to do (never later than the first deadline);
    // `never` if nothing is armed.
    Time next() const;

    // Moves to `now`; each deadline that has come is noted, and its task is given to `mark(Task&)`.
    template <class Mark>
    void expire(Time now, Mark&& mark) {
        uint64_t until = static_cast<uint64_t>(now.time_since_epoch() / 1ms);  // rounded down: never early
        for (uint64_t at; (at = next_ms()) <= until;) {
            move_to(at);
            unsigned slot = at % slots;
            busy_[0] &= ~(uint64_t{1} << slot);
            List<Deadline, DeadlineTag> due;
            due.splice_back(wheel_[0][slot]);
            move_to(at + 1);
            while (Deadline* deadline = due.pop_front()) {
                if (deadline->at_ > now) {  // was armed anew for later
                    insert(*deadline);
                    continue;
                }
                deadline->expired_ = true;
                deadline->at_ = never;
                mark(deadline->task_);
            }
        }
        if (cursor_ <= until) move_to(until + 1);
    }

  private:
    static constexpr unsigned bits = 6;
    static constexpr unsigned slots = 1U << bits;
    static constexpr unsigned levels = 6;  // 64^6 ms: two years; a later deadline goes round once more

    static uint64_t ceil_ms(Time t) {
        auto since = t.time_since_epoch();
        return static_cast<uint64_t>(since / 1ms) + (since % 1ms > Duration::zero() ? 1 : 0);
    }
    void insert(Deadline& deadline);
    void move_to(uint64_t ms);
    uint64_t next_ms() const;

    // A deadline lies on the level of the highest digit (base 64) in which its millisecond differs from
    // the cursor, in the slot of that digit; reaching the slot moves it to a lower level.
    std::array<std::array<List<Deadline, DeadlineTag>, slots>, levels> wheel_;
    std::array<uint64_t, levels> busy_{};  // a bit a slot; may still be set where the last one was disarmed
    uint64_t cursor_;                      // every millisecond before this one has been looked at
};

}  // namespace penstock
