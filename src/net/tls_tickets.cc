#include "net/tls_tickets.h"

#include <cstring>
#include <new>
#include <openssl/rand.h>

namespace penstock {

void TicketKeys::rotate(Time now) {
    if (current_ && now - current_->made < lifetime) {
        if (previous_ && now - previous_->made >= 2 * lifetime) previous_.reset();
        return;
    }
    previous_ = current_ && now - current_->made < 2 * lifetime ? current_ : std::nullopt;
    TicketKey fresh{};
    fresh.made = now;
    // Without random numbers nothing here is safe: the process ends.
    if (RAND_bytes(fresh.name.data(), static_cast<int>(fresh.name.size())) != 1 ||
        RAND_priv_bytes(fresh.cipher.data(), static_cast<int>(fresh.cipher.size())) != 1 ||
        RAND_priv_bytes(fresh.mac.data(), static_cast<int>(fresh.mac.size())) != 1)
        throw std::bad_alloc();
    current_ = fresh;
}

TicketKey TicketKeys::current(Time now) {
    std::lock_guard lock(mutex_);
    rotate(now);
    return *current_;
}

std::optional<TicketKeys::Found> TicketKeys::find(const uint8_t* name, Time now) {
    std::lock_guard lock(mutex_);
    rotate(now);
    auto is = [name](const std::optional<TicketKey>& key) {
        return key && std::memcmp(key->name.data(), name, key->name.size()) == 0;
    };
    if (is(current_)) return Found{*current_, true};
    if (is(previous_)) return Found{*previous_, false};
    return std::nullopt;
}

}  // namespace penstock
