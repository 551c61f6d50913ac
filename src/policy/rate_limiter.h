// The RateLimiter says whether a request may go on now, later or not: any number of limits, each of them
// counted by a key of the request. Either all of them let it pass and all count it, or none does. One for the
// process, shared by all loops and exact: each call is one short hold of its one mutex (never taken together
// with another), without I/O and, but for the table of a new limit, without allocation. It outlives all
// KeyUnits.
//
// A rate is GCRA, a bucket that leaks: `burst` units at once for a key that owes nothing, `rate` after that.
// A key's one number is the time when it owes nothing any more. What comes too early passes all the same
// where it would be due within `delay`: it is to be held back until then, and is counted when it comes.
//
// A concurrency is so many requests of a key at once, from here until their work is proven to be over
// (KeyUnits). A limit may have both.
//
// A dry run counts as the limit would and refuses nobody.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/hash.h"
#include "base/text.h"
#include "base/time.h"
#include "policy/key_units.h"
#include "policy/limit_table.h"

namespace penstock {

struct LimitRules {
    Rate rate;                 // a count of 0: there is none
    uint64_t burst = 1;        // units that a key which owes nothing has at once
    Duration delay{};          // the longest time that a request is held back
    uint32_t concurrency = 0;  // 0: not limited
    uint32_t keys = 100'000;   // that are remembered
    bool dry_run = false;
};

// What one limit is asked about a request, and what it answers.
struct LimitAsk {
    uint16_t limit = 0;  // in the order in which they were added; each at most once in a call
    Hash128 key;
    uint64_t cost = 1;  // units of the rate; at most its burst, or it would never pass

    bool passes = true;      // in a dry run: would pass
    bool is_held = false;    // by its rate, for a while
    uint64_t remaining = 0;  // units of the rate that are left now
    Duration reset{};        // until the key owes nothing
    uint32_t unused = 0;     // of its concurrency
    Duration retry{};        // refused by the rate: it passes after this, if nobody comes between

    // The limiter's, within the call
    uint32_t entry = 0;
    Time free_at{};
};

struct LimitAnswer {
    bool passes = true;
    Duration wait{};        // passes: hold it back for so long
    Duration retry{};       // refused: when it passes; zero where only other requests' ends decide that
    size_t refused_by = 0;  // of the asks: the one that takes the longest
};

// What a limit has done since the start.
struct LimitTally {
    uint64_t passed = 0;  // held back or not
    uint64_t held = 0;
    uint64_t refused = 0;
    uint64_t dry_refused = 0;  // would have been
    uint64_t forgiven = 0;     // keys that were forgotten though they owed something: too many at once
    uint32_t keys = 0;         // in the table now
    uint64_t in_flight = 0;    // units that are held now, of all keys
};

class RateLimiter {
  public:
    // The limits of the configuration. Keys are to be hashed with this secret: nobody outside can make two
    // meet.
    explicit RateLimiter(std::span<const LimitRules> limits, HashKey128 secret = {});
    RateLimiter(const RateLimiter&) = delete;
    RateLimiter& operator=(const RateLimiter&) = delete;
    ~RateLimiter();

    // Fills in what each limit answers. Nobody is held back to `deadline` or beyond: that is a refusal.
    // `units` gets what was taken.
    LimitAnswer admit(std::span<LimitAsk> asks, Time now, Time deadline, KeyUnits& units);
    LimitTally tally(size_t limit);
    const HashKey128& secret() const { return secret_; }

  private:
    friend class KeyUnits;

    struct Limit {
        explicit Limit(const LimitRules& r);
        Duration interval(uint64_t units) const;  // between two requests of so many units
        const LimitRules rules;
        const Duration tolerance;  // how far ahead of time a key may be: its burst
        LimitTable table;
        LimitTally tally;
    };
    // A unit that a request holds; the next one of the same request, or of the free ones.
    struct Unit {
        uint16_t limit;
        uint32_t entry;
        uint32_t next;
    };

    void look(LimitAsk& ask, Duration most_wait, Time now);
    void count(LimitAsk& ask, Time now, KeyUnits& units);
    void release(uint32_t first);

    const HashKey128 secret_;
    std::mutex mutex_;
    Time now_{};  // the latest that was seen
    std::vector<Limit> limits_;
    std::vector<Unit> units_;
    uint32_t free_unit_ = LimitTable::none;
};

}  // namespace penstock
