// One turn of a loop, without the loop: the marked list, the deadlines, what has output, and the graveyard.
//
//     poll     (the loop)  sockets fill messages, and mark
//     mail     (the loop)  letters from other threads, and mark
//     sweep    expire deadlines: note, mark
//     advance  run each marked task; what is marked meanwhile runs in the next round, at most 4 rounds
//     flush    write each output once
//     reap     free what ended
//
// It is pure: simulation and fuzzing turn it by hand, with a `now` of their own. It knows nothing of what it
// runs. A Turn outlives everything that is marked, armed or buried in it.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/deadlines.h"
#include "base/list.h"
#include "base/time.h"

namespace penstock {

struct MarkTag;
struct FlushTag;
struct GraveTag;

// Something that has decisions to take. run() is called once a mark, in advance only.
class Task : public Link<MarkTag> {
  public:
    virtual void run(Time now) = 0;

  protected:
    ~Task() = default;
};

// Something with output for the kernel.
class Output : public Link<FlushTag> {
  public:
    virtual void flush(Time now) = 0;

  protected:
    ~Output() = default;
};

// Something that ends. reap() frees it, and closes its descriptors; nothing else may.
class Mortal : public Link<GraveTag> {
  public:
    virtual void reap() = 0;

  protected:
    ~Mortal() = default;
};

class Turn {
  public:
    explicit Turn(Time start) : deadlines_(start), now_(start) {}

    void mark(Task& task) {
        if (!task.is_linked()) marked_.push_back(task);
    }
    void flush_later(Output& output) {
        if (!output.is_linked()) outputs_.push_back(output);
    }
    void bury(Mortal& mortal) {
        if (!mortal.Link<GraveTag>::is_linked()) graveyard_.push_back(mortal);
    }
    void arm(Deadline& deadline, Time at) { deadlines_.arm(deadline, at); }

    // sweep, advance, flush, reap.
    void run(Time now) {
        sweep(now);
        advance();
        flush();
        reap();
    }
    // The phases one by one, for those who turn by hand. `now` never goes back.
    void sweep(Time now);
    void advance();
    bool advance_one();  // runs the first marked task; false if there is none
    void flush();
    void reap();

    Time now() const { return now_; }
    // Of this turn, from 1; any thread may ask. What a stranger can make a loop do shows here, whatever the
    // clock says.
    uint64_t number() const { return number_.load(std::memory_order_relaxed); }
    // When the next turn must come: at once while anything is marked, else with the next deadline.
    Time next() const { return marked_.empty() && outputs_.empty() ? deadlines_.next() : Time::min(); }

  private:
    List<Task, MarkTag> marked_;
    List<Output, FlushTag> outputs_;
    List<Mortal, GraveTag> graveyard_;
    Deadlines deadlines_;
    Time now_;
    std::atomic<uint64_t> number_{0};  // one writer
};

}  // namespace penstock
