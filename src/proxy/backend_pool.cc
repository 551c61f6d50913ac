#include "proxy/backend_pool.h"

#include "proxy/backend_h1.h"

namespace penstock {

BackendPool::Idle& BackendPool::of(BackendId backend) {
    auto upstream = static_cast<size_t>(backend.upstream);
    if (idle_.size() <= upstream) idle_.resize(upstream + 1);
    auto& lists = idle_[upstream];
    while (lists.size() <= backend.index) lists.emplace_back();
    return lists[backend.index];
}

void BackendPool::put(BackendH1& connection) {
    of(connection.backend()).list.push_back(connection);
    ++size_;
}

BackendH1* BackendPool::take(BackendId backend, uint32_t generation) {
    auto& list = of(backend).list;
    BackendH1* newest = list.back();
    if (!newest || newest->generation() != generation) return nullptr;
    remove(*newest);
    return newest;
}

void BackendPool::remove(BackendH1& connection) {
    connection.Link<PoolTag>::unlink();
    --size_;
}

BackendH1* BackendPool::oldest(BackendId backend, uint32_t generation) {
    auto& list = of(backend).list;
    for (BackendH1* at = list.front(); at; at = list.next(*at))
        if (at->generation() == generation) return at;
    return nullptr;
}

}  // namespace penstock
