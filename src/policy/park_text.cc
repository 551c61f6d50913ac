// The names of things, as users see them.
#include "policy/park_rules.h"

namespace penstock {

std::string_view to_string(Refusal refusal) {
    switch (refusal) {
        case Refusal::none: return "none";
        case Refusal::queue_full: return "queue_full";
        case Refusal::queue_timeout: return "queue_timeout";
        case Refusal::no_backend: return "no_backend";
        case Refusal::circuit_open: return "circuit_open";
        case Refusal::draining: return "draining";
        case Refusal::request_timeout: return "request_timeout";
    }
    return "";
}

std::string_view to_string(CircuitLimit limit) {
    switch (limit) {
        case CircuitLimit::none: return "none";
        case CircuitLimit::connections: return "connections";
        case CircuitLimit::requests: return "requests";
        case CircuitLimit::pending: return "pending";
        case CircuitLimit::retries: return "retries";
        case CircuitLimit::retry_budget: return "retry_budget";
    }
    return "";
}

std::string_view to_string(BackendState state) {
    switch (state) {
        case BackendState::starting: return "starting";
        case BackendState::ready: return "ready";
        case BackendState::suspect: return "suspect";
        case BackendState::resting: return "resting";
        case BackendState::draining: return "draining";
        case BackendState::down: return "down";
    }
    return "";
}

std::string_view to_string(RestartWhy why) {
    switch (why) {
        case RestartWhy::stuck: return "held by work that nobody waits for";
        case RestartWhy::ejected: return "ejected too often in a row";
        case RestartWhy::unhealthy: return "unhealthy for too long";
        case RestartWhy::hung: return "at work without a sign of life for too long";
    }
    return "";
}

std::string_view to_string(Serving serving) {
    switch (serving) {
        case Serving::none: return "none";
        case Serving::coming: return "coming";
        case Serving::serving: return "serving";
    }
    return "";
}

std::string_view to_string(Unfit unfit) {
    switch (unfit) {
        case Unfit::fit: return "";
        case Unfit::starting: return "starting";
        case Unfit::suspect: return "suspect";
        case Unfit::resting: return "resting";
        case Unfit::unhealthy: return "unhealthy";
        case Unfit::probing: return "its probing request is under way";
        case Unfit::draining: return "draining";
        case Unfit::down: return "down";
        case Unfit::restarting: return "to be restarted";
        case Unfit::busy: return "all slots taken";
        case Unfit::device_busy: return "all slots of its device taken";
        case Unfit::own_connections: return "max_connections reached";
        case Unfit::max_connections: return "max_connections of its upstream reached";
        case Unfit::max_requests: return "max_requests reached";
        case Unfit::backup: return "backup";
    }
    return "";
}

}  // namespace penstock
