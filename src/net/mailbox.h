// How other threads reach a loop. A Wake is a handle and nothing else: "look at yours". A Letter carries
// something and is opened once, on the loop. Both are taken at the start of a turn. Its small mutex is
// held for a push or a swap only, and one eventfd write is paid by whoever posts into an empty box.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/slab.h"

namespace penstock {

class Loop;

class Letter {
  public:
    virtual ~Letter() = default;
    virtual void open(Loop& loop) = 0;
};

class Mailbox {
  public:
    Mailbox();
    ~Mailbox();
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    void wake(Handle handle);                   // any thread
    void post(std::unique_ptr<Letter> letter);  // any thread
    int descriptor() const { return eventfd_; }

    struct Mail {
        std::vector<Handle> wakes;
        std::vector<std::unique_ptr<Letter>> letters;
    };
    // Swaps what came with `mail`, which must be empty (its room is kept): owner only.
    void take(Mail& mail);
    void clear_signal();  // owner, when the descriptor was readable

  private:
    void signal();

    std::mutex mutex_;
    Mail mail_;
    int eventfd_;
};

}  // namespace penstock
