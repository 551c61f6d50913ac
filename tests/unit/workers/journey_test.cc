#include "workers/journey.h"

#include <doctest/doctest.h>

using namespace penstock;

namespace {
const Time begun = Time(1000s);
}

TEST_CASE("a journey tells each step and when it was done") {
    Journey journey(begun, "port");
    CHECK(journey.text() == "exec not done");
    journey.exec_worked(begun + 10ms);
    CHECK(journey.text() == "exec ok 0.01s, port never open");
    journey.opened(begun + 3200ms);
    journey.opened(begun + 5s);
    for (int i = 0; i < 37; ++i) journey.tried("GET /ready -> 503");
    CHECK(journey.text() == "exec ok 0.01s, port open 3.20s, GET /ready -> 503 (37 tries)");
}

TEST_CASE("a journey counts the tries of its last outcome only") {
    Journey journey(begun, "socket /run/a");
    journey.exec_worked(begun + 1s);
    journey.tried("connect: No such file or directory");
    journey.tried("connect: No such file or directory");
    CHECK(journey.text() ==
          "exec ok 1.00s, socket /run/a never open, connect: No such file or directory (2 tries)");
    journey.opened(begun + 2s);
    journey.tried("GET /ready -> 500");
    CHECK(journey.text() == "exec ok 1.00s, socket /run/a open 2.00s, GET /ready -> 500 (1 try)");
}
