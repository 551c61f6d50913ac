#include "net/loop.h"

#include <cerrno>
#include <stdexcept>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

namespace penstock {

namespace {

event_base* make_base() {
    event_config* config = event_config_new();
    if (!config) throw std::bad_alloc();
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
    event_base* base = event_base_new_with_config(config);
    event_config_free(config);
    if (!base) throw std::runtime_error("libevent has no epoll here");
    return base;
}

}  // namespace

Loop::Loop(unsigned index, Time start)
    : index_(index),
      base_(make_base()),
      turn_(start),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    if (timer_ < 0) throw std::system_error(errno, std::generic_category(), "timerfd_create");
    event_assign(&mail_event_, base_, mailbox_.descriptor(), EV_READ | EV_PERSIST, on_mail, this);
    event_assign(&timer_event_, base_, timer_, EV_READ | EV_PERSIST | EV_ET, on_timer, this);
    event_add(&mail_event_, nullptr);
    event_add(&timer_event_, nullptr);
}

Loop::~Loop() {
    event_del(&mail_event_);
    event_del(&timer_event_);
    event_base_free(base_);
    ::close(timer_);
}

void Loop::run() {
    while (!stopping_.load(std::memory_order_relaxed)) run_once();
}

void Loop::run_once() {
    poll();
    take_mail();
    turn_.run(monotonic_now());
}

void Loop::stop() {
    stopping_.store(true, std::memory_order_relaxed);
    mailbox_.wake({});
}

void Loop::poll() {
    Time next = turn_.next();
    bool busy = next <= turn_.now();
    if (!busy) set_timer(next);
    // EVLOOP_NONBLOCK alone would go on for as long as anything is ready, and ask once more to learn that.
    event_base_loop(base_, busy ? EVLOOP_NONBLOCK | EVLOOP_ONCE : EVLOOP_ONCE);
}

void Loop::take_mail() {
    if (!has_mail_) return;
    has_mail_ = false;
    mailbox_.take(mail_);
    for (auto& letter : mail_.letters) letter->open(*this);
    if (wakes_)
        for (Handle handle : mail_.wakes) wakes_->woken(handle);
    mail_.letters.clear();
    mail_.wakes.clear();
}

// Set only when the next deadline is nearer than what the timer is set for: a deadline that moved away costs
// one idle turn, not a system call each time.
void Loop::set_timer(Time next) {
    if (next >= timer_set_for_) return;
    timer_set_for_ = next;
    auto since = next.time_since_epoch();
    itimerspec at{};
    at.it_value.tv_sec = static_cast<time_t>(since / 1s);
    at.it_value.tv_nsec = static_cast<long>((since % 1s).count());
    ::timerfd_settime(timer_, TFD_TIMER_ABSTIME, &at, nullptr);
}

void Loop::on_mail(int, short, void* self) {
    static_cast<Loop*>(self)->mailbox_.clear_signal();
    static_cast<Loop*>(self)->has_mail_ = true;
}

void Loop::on_timer(int, short, void* self) { static_cast<Loop*>(self)->timer_set_for_ = never; }

}  // namespace penstock
