// One question to the admin address of a running penstock, for the command line: blocking, with a time limit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/address.h"
#include "base/error.h"
#include "base/time.h"

namespace penstock {

struct AdminReply {
    uint16_t status = 0;
    std::string body;
};

// The error says what was tried and what may be wrong.
Result<AdminReply> ask_admin(const Address& address, std::string_view path, Duration timeout = 10s);

}  // namespace penstock
