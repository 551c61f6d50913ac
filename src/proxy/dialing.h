// Dials that fail for now. A unix socket whose backlog is full says so at once, as does a process without
// descriptors or ports left; and nobody tells when that is over: they are asked again until timeouts.connect.
#pragma once

#include <cerrno>

#include "base/time.h"

namespace penstock {

constexpr Duration dial_again = 2ms;

inline bool may_pass(int error) {
    return error == EAGAIN || error == EMFILE || error == ENFILE || error == EADDRNOTAVAIL ||
           error == ENOBUFS || error == ENOMEM;
}

}  // namespace penstock
