// Credentials are what this process shows and whom it trusts in TLS, made from the files that a configuration
// names: one TlsServer a listener, one TlsClient an upstream. Immutable, and replaced as a whole when the
// files are read again; each loop has the present one, and connections keep what they began with.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/problem.h"
#include "net/tls_client.h"
#include "net/tls_server.h"

namespace penstock {

struct Credentials {
    std::vector<std::shared_ptr<const TlsServer>> listeners;  // by place in `listen`; null: in clear
    std::map<std::string, std::shared_ptr<const TlsClient>, std::less<>>
        upstreams;  // those with tls, by name

    // Null: in clear.
    std::shared_ptr<const TlsServer> listener(size_t number) const {
        return number < listeners.size() ? listeners[number] : nullptr;
    }
    std::shared_ptr<const TlsClient> upstream(std::string_view name) const {
        auto at = upstreams.find(name);
        return at == upstreams.end() ? nullptr : at->second;
    }
};

struct LoadedCredentials {
    std::shared_ptr<const Credentials> credentials;  // null where there are errors
    std::vector<Problem> errors;
    std::vector<Problem> warnings;
};

// Reads all the files. `keys` outlives the result.
LoadedCredentials load_credentials(const Config& config, const Places& places, TicketKeys& keys);

}  // namespace penstock
