// Message: one direction of an exchange, between the side that fills it and the side that drains it. Both
// have a position on one table,
//
//     nothing -> head -> body* -> [trailers] -> complete
//
// and a message may fail from anywhere but complete. `body` means that the head is through and body bytes
// may come. Only the filler moves `filled`, only the drainer moves `sent`; `sent` never passes `filled`. The
// first cause of a failure stays, and a message that is complete cannot fail any more.
// A tunnel is a body without end marks: it begins with the head (101, or 2xx to CONNECT), and complete means
// that the filler's direction was shut.
#pragma once

#include <cassert>
#include <cstdint>

#include "base/arena.h"
#include "http/body.h"
#include "http/cause.h"
#include "http/head.h"
#include "http/rules.h"

namespace penstock {

enum class Progress : uint8_t { nothing, head, body, trailers, complete };

// An interim response (1xx) that has not been passed on yet.
struct Interim {
    Head head;
    Interim* next = nullptr;
};

class Message {
  public:
    static constexpr int most_interims_waiting = 8;
    static constexpr int most_interims = 32;

    Message(ChunkPool& pool, MemoryAccount& account) : body(pool, account) {}

    Head head;
    Head trailers;  // field_count is 0 where there are none
    Framing framing;
    Body body;
    bool tunnel = false;

    Progress filled() const { return filled_; }
    Progress sent() const { return sent_; }
    Cause failure() const { return failure_; }
    bool failed() const { return failure_ != Cause::none; }
    bool has_head() const { return filled_ >= Progress::head; }
    bool is_complete() const { return filled_ == Progress::complete; }
    bool is_sent() const { return sent_ == Progress::complete; }

    void fill_to(Progress to) {
        assert(to > filled_ && !failed());
        filled_ = to;
    }
    void send_to(Progress to) {
        assert(to > sent_ && to <= filled_);
        sent_ = to;
    }
    void fail(Cause cause) {
        if (filled_ != Progress::complete && failure_ == Cause::none) failure_ = cause;
    }

    bool add_interim(const Head& interim, Arena& arena) {
        if (waiting_interims_ == most_interims_waiting || all_interims_ == most_interims) return false;
        Interim* last = new (arena.allocate(sizeof(Interim), alignof(Interim)))
            Interim{copy_head(interim, arena), nullptr};
        Interim** at = &interims_;
        while (*at) at = &(*at)->next;
        *at = last;
        ++waiting_interims_;
        ++all_interims_;
        return true;
    }
    const Head* next_interim() const { return interims_ ? &interims_->head : nullptr; }
    void interim_sent() {
        interims_ = interims_->next;
        --waiting_interims_;
        ++sent_interims_;
    }
    int interims_sent() const { return sent_interims_; }

    // For a response that will be asked for again, or answered by ourselves. Nothing of it may have been
    // sent.
    void reset() {
        assert(sent_ == Progress::nothing);
        filled_ = Progress::nothing;
        failure_ = Cause::none;
        head = trailers = Head{};
        framing = Framing{};
        tunnel = false;
        interims_ = nullptr;
        waiting_interims_ = all_interims_ = 0;
        body.clear();
    }
    // For a request that will be sent again.
    void send_again() {
        sent_ = Progress::nothing;
        body.rewind();
    }

  private:
    Progress filled_ = Progress::nothing;
    Progress sent_ = Progress::nothing;
    Cause failure_ = Cause::none;
    uint8_t waiting_interims_ = 0;
    uint8_t all_interims_ = 0;
    uint8_t sent_interims_ = 0;
    Interim* interims_ = nullptr;
};

}  // namespace penstock
