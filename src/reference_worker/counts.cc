#include "reference_worker/counts.h"

#include <fmt/format.h>
#include <iterator>

namespace penstock::reference {

std::string Counts::text(std::string_view model) const {
    std::string out;
    auto add = [&](std::string_view name, std::string_view type, std::string_view labels, uint64_t value) {
        fmt::format_to(std::back_inserter(out), "# TYPE {0} {1}\n{0}{2} {3}\n", name, type, labels, value);
    };
    const std::string of = fmt::format("{{model=\"{}\",version=\"1\"}}", model);
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(spent).count();
    add("nv_inference_request_success", "counter", of, succeeded);
    add("nv_inference_request_failure", "counter", of, failed);
    add("nv_inference_request_duration_us", "counter", of, static_cast<uint64_t>(us));
    add("reference_in_flight", "gauge", "", in_flight);
    add("reference_in_flight_most", "gauge", "", most_in_flight);
    add("reference_running_most", "gauge", "", most_running);
    add("reference_connections", "gauge", "", connections);
    add("reference_connections_most", "gauge", "", most_connections);
    add("reference_connections_total", "counter", "", connections_in_all);
    add("reference_requests_on_a_connection_most", "gauge", "", most_on_a_connection);
    return out;
}

}  // namespace penstock::reference
