// The idle backend connections of one loop, newest first, by backend. The park counts them too (it grants
// `reuse` for them), so one leaves here only by take() for a lease, or by being closed and confirmed.
#pragma once

#include <vector>

#include "base/list.h"
#include "base/time.h"
#include "policy/ticket.h"

namespace penstock {

class BackendH1;
struct PoolTag;

class BackendPool {
  public:
    void put(BackendH1& connection);
    // The one that was used last; null if there is none of this generation.
    BackendH1* take(BackendId backend, uint32_t generation);
    void remove(BackendH1& connection);
    // The one that idled longest.
    BackendH1* oldest(BackendId backend, uint32_t generation);
    size_t size() const { return size_; }
    template <class F>
    void for_each(F&& visit) {
        for (auto& upstream : idle_)
            for (auto& list : upstream) {
                BackendH1* next;
                for (BackendH1* at = list.front(); at; at = next) {
                    next = list.next(*at);
                    visit(*at);
                }
            }
    }

  private:
    struct Idle {
        Idle() = default;
        Idle(Idle&& other) noexcept { list.splice_back(other.list); }
        BackendH1* front() const { return list.front(); }
        BackendH1* next(const BackendH1& of) const { return list.next(of); }
        List<BackendH1, PoolTag> list;
    };
    Idle& of(BackendId backend);

    std::vector<std::vector<Idle>> idle_;
    size_t size_ = 0;
};

}  // namespace penstock
