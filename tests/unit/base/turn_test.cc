#include "base/turn.h"

#include <doctest/doctest.h>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace penstock;

namespace {

Time at_us(int64_t us) { return Time(std::chrono::microseconds(us)); }

struct Probe final : Task {
    explicit Probe(Turn& turn) : deadline(*this), turn_(turn) {}
    void run(Time now) override {
        ++runs;
        ran_at = now;
        if (again-- > 0) turn_.mark(*this);
    }
    Deadline deadline;
    int runs = 0;
    int again = 0;
    Time ran_at{};
    Turn& turn_;
};

}  // namespace

TEST_CASE("a task that is marked twice runs once") {
    Turn turn(at_us(0));
    Probe task(turn);
    turn.mark(task);
    turn.mark(task);
    turn.run(at_us(10));
    CHECK(task.runs == 1);
    CHECK(task.ran_at == at_us(10));
    CHECK(turn.next() == never);
}

TEST_CASE("a task that marks itself for ever runs four rounds a turn and keeps the loop awake") {
    Turn turn(at_us(0));
    Probe task(turn);
    task.again = 1000;
    turn.mark(task);
    turn.run(at_us(1));
    CHECK(task.runs == 4);
    CHECK(turn.next() == Time::min());
    task.again = 0;
    turn.run(at_us(2));
    CHECK(turn.next() == never);
}

TEST_CASE("a deadline is never early and at most a millisecond late") {
    Turn turn(at_us(500));
    Probe task(turn);
    turn.arm(task.deadline, at_us(10'300));
    turn.run(at_us(10'299));
    CHECK_FALSE(task.deadline.expired());
    CHECK(turn.next() <= at_us(11'000));
    turn.run(at_us(10'900));
    CHECK(task.runs == 0);
    turn.run(at_us(11'000));
    CHECK(task.runs == 1);
    CHECK(task.deadline.expired());
    CHECK_FALSE(task.deadline.is_armed());
}

TEST_CASE("a deadline that is armed again for later does not expire at its first time") {
    Turn turn(at_us(0));
    Probe task(turn);
    turn.arm(task.deadline, at_us(5'000));
    turn.arm(task.deadline, at_us(90'000'000));
    turn.run(at_us(6'000));
    CHECK(task.runs == 0);
    turn.arm(task.deadline, at_us(7'000));
    turn.run(at_us(7'000));
    CHECK(task.runs == 1);
}

TEST_CASE("a disarmed deadline stays silent") {
    Turn turn(at_us(0));
    Probe task(turn);
    turn.arm(task.deadline, at_us(5'000));
    task.deadline.disarm();
    turn.run(at_us(60'000));
    CHECK(task.runs == 0);
}

TEST_CASE("deadlines over all ranges expire in the right turn, whatever the steps and re-arming") {
    for (uint32_t seed = 1; seed <= 60; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        auto below = [&](int64_t n) {
            return static_cast<int64_t>(std::uniform_int_distribution<int64_t>(0, n - 1)(random));
        };
        int64_t now = below(1'000'000'000'000);
        Turn turn(at_us(now));
        std::vector<std::unique_ptr<Probe>> tasks;
        for (int i = 0; i < 40; ++i) tasks.push_back(std::make_unique<Probe>(turn));
        std::vector<int64_t> want(tasks.size(), -1);
        for (int step = 0; step < 400; ++step) {
            for (int k = 0; k < 5; ++k) {
                size_t i = static_cast<size_t>(below(static_cast<int64_t>(tasks.size())));
                int64_t spans[] = {3'000, 70'000, 5'000'000, 400'000'000, 90'000'000'000, 40'000'000'000'000};
                if (below(5) == 0) {
                    tasks[i]->deadline.disarm();
                    want[i] = -1;
                } else {
                    want[i] = now + below(spans[below(6)]);
                    turn.arm(tasks[i]->deadline, at_us(want[i]));
                }
            }
            Time next = turn.next();
            for (int64_t w : want)
                if (w >= 0) CHECK(next <= at_us((std::max(w, now) / 1000 + 1) * 1000));
            int64_t strides[] = {200, 1'000, 65'000, 4'000'000, 300'000'000, 20'000'000'000};
            now += below(strides[below(6)]);
            turn.run(at_us(now));
            for (size_t i = 0; i < tasks.size(); ++i) {
                bool due = want[i] >= 0 && (want[i] + 999) / 1000 * 1000 <= now;
                bool early = want[i] < 0 || want[i] > now;
                if (tasks[i]->deadline.expired()) {
                    CHECK_FALSE(early);
                    want[i] = -1;
                    tasks[i]->deadline.disarm();
                } else {
                    CHECK_FALSE(due);
                }
            }
        }
    }
}
