#include "reference_worker/crew.h"

#include <algorithm>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace penstock::reference {

Crew::Crew(const Convnet& network, unsigned threads, bool serial)
    : network_(network), serial_(serial), event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Crew::~Crew() {
    {
        const std::lock_guard lock(mutex_);
        ends_ = true;
    }
    there_is_work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    ::close(event_);
}

void Crew::hand_over(std::unique_ptr<Job> job) {
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(job));
    }
    there_is_work_.notify_one();
}

void Crew::hold(bool held) {
    {
        const std::lock_guard lock(mutex_);
        held_ = held;
    }
    there_is_work_.notify_all();
}

std::vector<std::unique_ptr<Job>> Crew::take_done() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(event_, &count, sizeof count);  // nothing, at worst
    const std::lock_guard lock(mutex_);
    return std::exchange(done_, {});
}

void Crew::count_running(int change) {
    const std::lock_guard lock(mutex_);
    running_ += static_cast<unsigned>(change);
    most_running_ = std::max(most_running_, running_);
}

unsigned Crew::most_at_once() {
    const std::lock_guard lock(mutex_);
    return most_running_;
}

void Crew::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        there_is_work_.wait(lock, [this] { return ends_ || (!held_ && !waiting_.empty()); });
        if (ends_) return;
        std::unique_ptr<Job> job = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        std::unique_lock turn(device_, std::defer_lock);
        if (serial_) turn.lock();
        count_running(1);
        std::this_thread::sleep_for(job->delay);
        job->results.resize(job->asked.batch());
        network_.run(job->asked.images, job->results);
        count_running(-1);
        if (serial_) turn.unlock();
        lock.lock();
        done_.push_back(std::move(job));
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t put = ::write(event_, &one, sizeof one);  // full is as good as more
    }
}

}  // namespace penstock::reference
