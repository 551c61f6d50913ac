#include "net/mailbox.h"

#include <cassert>
#include <cerrno>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

namespace penstock {

Mailbox::Mailbox() : eventfd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (eventfd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Mailbox::~Mailbox() { ::close(eventfd_); }

void Mailbox::wake(Handle handle) {
    bool first;
    {
        std::lock_guard lock(mutex_);
        first = mail_.wakes.empty() && mail_.letters.empty();
        mail_.wakes.push_back(handle);
    }
    if (first) signal();
}

void Mailbox::post(std::unique_ptr<Letter> letter) {
    bool first;
    {
        std::lock_guard lock(mutex_);
        first = mail_.wakes.empty() && mail_.letters.empty();
        mail_.letters.push_back(std::move(letter));
    }
    if (first) signal();
}

void Mailbox::take(Mail& mail) {
    assert(mail.wakes.empty() && mail.letters.empty());
    std::lock_guard lock(mutex_);
    std::swap(mail_.wakes, mail.wakes);
    std::swap(mail_.letters, mail.letters);
}

void Mailbox::signal() {
    uint64_t one = 1;
    [[maybe_unused]] ssize_t n = ::write(eventfd_, &one, sizeof one);  // EAGAIN: it is signalled already
}

void Mailbox::clear_signal() {
    uint64_t count;
    [[maybe_unused]] ssize_t n = ::read(eventfd_, &count, sizeof count);
}

}  // namespace penstock
