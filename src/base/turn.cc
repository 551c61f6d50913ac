#include "base/turn.h"

namespace penstock {

namespace {
// Enough for client -> exchange -> backend -> exchange; what goes on longer must let the sockets speak.
constexpr int most_rounds = 4;
}  // namespace

void Turn::sweep(Time now) {
    number_.store(number() + 1, std::memory_order_relaxed);
    if (now > now_) now_ = now;
    deadlines_.expire(now_, [this](Task& task) { mark(task); });
}

void Turn::advance() {
    for (int round = 0; round < most_rounds && !marked_.empty(); ++round) {
        List<Task, MarkTag> batch;
        batch.splice_back(marked_);
        while (Task* task = batch.pop_front()) task->run(now_);
    }
}

bool Turn::advance_one() {
    Task* task = marked_.pop_front();
    if (task) task->run(now_);
    return task != nullptr;
}

void Turn::flush() {
    List<Output, FlushTag> batch;
    batch.splice_back(outputs_);
    while (Output* output = batch.pop_front()) output->flush(now_);
}

void Turn::reap() {
    while (Mortal* mortal = graveyard_.pop_front()) mortal->reap();
}

}  // namespace penstock
