// Why an HTTP/2 stream or connection ends, as RFC 9113 7 numbers it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

enum class H2Error : uint32_t {
    no_error = 0,
    protocol_error = 1,
    internal_error = 2,
    flow_control_error = 3,
    stream_closed = 5,
    refused_stream = 7,
    cancel = 8,
    enhance_your_calm = 11,
};

constexpr size_t h2_error_count = 14;
std::string_view to_string(H2Error code);
// What the other end must have done wrong, where it is we who say it.
constexpr bool is_provoked(H2Error code) {
    return code == H2Error::protocol_error || code == H2Error::flow_control_error ||
           code == H2Error::stream_closed;
}

}  // namespace penstock
