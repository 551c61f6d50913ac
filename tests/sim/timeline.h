// What is going to happen, and when. An event goes to a place: a loop or the main thread takes it when its
// turn comes, which is later; what happens outside of penstock (in workers and on the wire) just happens.
// Events are never taken back: one whose object is gone, or has moved on, does nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/slab.h"
#include "base/time.h"

namespace penstock::sim {

enum class What : uint8_t {
    // to a loop
    client_comes,
    client_asks,     // for another thing, on the same connection
    client_uploads,  // some more of its body is there
    client_reads,    // and so there is room for more
    client_leaves,
    bytes_for_us,  // on a wire, from a worker
    wake,
    drain,
    // outside
    dialed,            // a wire reaches its process
    bytes_for_worker,  // on a wire, from us
    work_goes_on,
    process_is_up,
    process_dies,
    process_wakes_up,  // it hung
    // to the main thread
    wake_main,
    worker_is_up,
    worker_exited,
    start_is_due,
    probe_answered,
    back_in_service,
    something_changes,  // an operator's hand, a health check, a recycling
    drain_all,
};

using Where = uint16_t;  // the number of a loop, or:
constexpr Where outside = 0xffff;
constexpr Where main_thread = 0xfffe;

struct Event {
    Time at{};
    uint64_t order = 0;  // among those of the same time
    Handle who{};
    uint32_t value = 0;
    Where where = outside;
    What what{};
};

class Timeline {
  public:
    void add(Event event) {
        event.order = ++count_;
        heap_.push_back(event);
        std::push_heap(heap_.begin(), heap_.end(), later);
    }
    Time next() const { return heap_.empty() ? never : heap_.front().at; }
    Event pop() {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        Event event = heap_.back();
        heap_.pop_back();
        return event;
    }

  private:
    static bool later(const Event& a, const Event& b) {
        return a.at != b.at ? a.at > b.at : a.order > b.order;
    }
    std::vector<Event> heap_;
    uint64_t count_ = 0;
};

}  // namespace penstock::sim
