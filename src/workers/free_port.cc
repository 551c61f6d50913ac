#include "workers/free_port.h"

#include <cstdio>
#include <netinet/in.h>
#include <sys/socket.h>
#include <utility>

#include "workers/descriptor.h"

namespace penstock {

namespace {

constexpr unsigned lowest = 10000;  // below, well-known services live, whether they run now or later
constexpr unsigned highest = 65535;

bool can_bind(uint16_t port) {
    Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // Without SO_REUSEADDR: a port with connections of its last owner is not free either.
    return socket && ::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

std::pair<unsigned, unsigned> ephemeral_range() {
    unsigned low = 32768, high = 60999;
    if (FILE* file = std::fopen("/proc/sys/net/ipv4/ip_local_port_range", "re")) {
        unsigned a = 0, b = 0;
        if (std::fscanf(file, "%u %u", &a, &b) == 2) low = a, high = b;
        std::fclose(file);
    }
    return {low, high};
}

}  // namespace

Result<uint16_t> free_port(std::mt19937_64& random, const std::set<uint16_t>& taken) {
    auto [low, high] = ephemeral_range();
    std::uniform_int_distribution<unsigned> any(lowest, highest);
    // Where the kernel's range leaves next to nothing outside, a port inside must do.
    for (bool outside : {true, false}) {
        for (int tries = 0; tries < 1000; ++tries) {
            auto port = static_cast<uint16_t>(any(random));
            if (outside && port >= low && port <= high) continue;
            if (!taken.contains(port) && can_bind(port)) return port;
        }
    }
    return failure("no free TCP port from 10000 to 65535 on 127.0.0.1");
}

}  // namespace penstock
