// What a proxy must know of gRPC: which requests are, how long their clients wait, and how a failure is said
// in its words. A gRPC client reads no HTTP status: an answer is 200 whatever happened, and grpc-status
// tells, in the trailers, or in the head where there is nothing else ("trailers-only"). Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/time.h"
#include "http/cause.h"
#include "http/head.h"

namespace penstock {

enum class GrpcStatus : uint8_t {
    ok,
    cancelled,
    unknown,
    invalid_argument,
    deadline_exceeded,
    not_found,
    already_exists,
    permission_denied,
    resource_exhausted,
    failed_precondition,
    aborted,
    out_of_range,
    unimplemented,
    internal,
    unavailable,
    data_loss,
    unauthenticated,
};
constexpr size_t grpc_status_count = size_t(GrpcStatus::unauthenticated) + 1;
std::string_view grpc_status_name(GrpcStatus status);  // "RESOURCE_EXHAUSTED"

// By its content-type: application/grpc, alone or with a +format. (application/grpc-web is not.)
bool is_grpc(const Head& head);

// A message is a flag, its size, and so many bytes. What its first ones say it takes in all.
constexpr size_t grpc_prefix_bytes = 5;
uint64_t grpc_message_bytes(std::span<const char, grpc_prefix_bytes> prefix);

// How long the client waits; nothing where it does not say, or says what nobody understands. A time longer
// than a Duration can hold saturates.
std::optional<Duration> grpc_timeout(const Head& request);
// "1999998u": what is left, rounded down to eight digits of the finest unit that they suffice for.
constexpr size_t grpc_timeout_bound = 9;
std::string_view write_grpc_timeout(Duration left, char* out);

// The numbers in these are text: 8 is "8".
std::optional<GrpcStatus> grpc_status_in(const Head& head);  // of a head or of trailers
GrpcStatus grpc_status_of(Cause cause);
// What a client makes of an answer that is not gRPC at all (the table of gRPC's "http-grpc-status-mapping").
GrpcStatus grpc_status_of_http(uint16_t status);
// What its client learned from a response that came to its end.
GrpcStatus grpc_status_of(const Head& head, const Head& trailers);

// The HTTP status that says the same, for whoever counts those (outlier detection, retries).
uint16_t http_status_of(GrpcStatus status);
// What a response's head says of its end: its status, or the one that stands for the grpc-status that a
// trailers-only answer has there.
uint16_t status_at_head(const Head& response);

// grpc-message may hold no control byte, and '%' only as an escape. Writes at most 3 bytes for each of
// `text`.
std::string_view write_grpc_message(std::string_view text, char* out);

}  // namespace penstock
