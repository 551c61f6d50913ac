// The parts of load(): each reads one entry of a list, or one upstream, and notes what is wrong with it.
// What several settings must agree on is looked at afterwards, in checks.h.
#pragma once

#include <string_view>

#include "config/config.h"
#include "config/reader.h"

namespace penstock {

void read_upstream(Section& section, Upstream& out);
void read_workers(Section& section, Workers& out);
void read_balance(const Value& value, Balance& out);
void read_server(const Value& item, uint32_t concurrency, Server& out);  // what it has if it says nothing
void read_route(Section& section, Route& out);
void read_rate_limit(Section& section, RateLimit& out);

bool is_gpu(std::string_view text);  // an index or a UUID

// Fills in what depends on other settings, or on there being none: the listener, the route of a single
// upstream, on_abandon of an upstream whose slots are a device's.
void resolve(Config& config, const Places& places);

}  // namespace penstock
