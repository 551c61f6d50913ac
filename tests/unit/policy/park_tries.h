// Tries of one backend among several, for tests of what its answers lead to.
#pragma once

#include "park_world.h"

namespace penstock {

// A request that was granted a slot of this backend; what the others were granted meanwhile is given back.
inline std::unique_ptr<Request> granted(ParkWorld& world, BackendId id) {
    std::vector<std::unique_ptr<Request>> elsewhere;
    auto request = world.arrive();
    while (request->is_granted() && !(request->lease.backend() == id)) {
        elsewhere.push_back(std::move(request));
        request = world.arrive();
    }
    REQUIRE(request->is_granted());
    for (auto& other : elsewhere) world.finish(*other, Outcome::unused);
    return request;
}
inline std::unique_ptr<Request> running(ParkWorld& world, BackendId id) {
    auto request = granted(world, id);
    world.run(*request);
    return request;
}
inline void one_try(ParkWorld& world, BackendId id, Outcome outcome) {
    auto request = granted(world, id);
    if (outcome > Outcome::connect_failed) world.run(*request);
    world.finish(*request, outcome);
}
inline void tries(ParkWorld& world, BackendId id, int count, Outcome outcome) {
    for (int i = 0; i < count; ++i) one_try(world, id, outcome);
}
inline std::vector<BackendChange> changes(ParkWorld& world) {
    const BackendChanges all = world.park.changes();
    CHECK(all.lost == 0);
    return {all.begin(), all.end()};
}

}  // namespace penstock
