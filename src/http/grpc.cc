#include "http/grpc.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"

namespace penstock {

namespace {

constexpr std::string_view names[grpc_status_count] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
};

struct Unit {
    char letter;
    Duration length;
};
constexpr Unit units[] = {{'u', 1us}, {'m', 1ms}, {'S', 1s}, {'M', 1min}, {'H', 1h}};
constexpr int64_t most_units = 99'999'999;

}  // namespace

std::string_view grpc_status_name(GrpcStatus status) { return names[size_t(status)]; }

bool is_grpc(const Head& head) {
    if (!head.text) return false;
    constexpr std::string_view type = "application/grpc";
    std::string_view value = head.value_of(FieldId::content_type);
    if (!equal_ignoring_case(value.substr(0, type.size()), type)) return false;
    value.remove_prefix(type.size());
    return value.empty() || value[0] == '+' || value[0] == ';' || value[0] == ' ';
}

uint64_t grpc_message_bytes(std::span<const char, grpc_prefix_bytes> prefix) {
    uint64_t size = 0;
    for (char c : prefix.subspan<1>()) size = size << 8 | static_cast<uint8_t>(c);
    return grpc_prefix_bytes + size;
}

std::optional<Duration> grpc_timeout(const Head& request) {
    const Field* field = request.find(FieldId::grpc_timeout);
    if (!field) return std::nullopt;
    std::string_view text = request.value(*field);
    if (text.size() < 2 || text.size() > grpc_timeout_bound) return std::nullopt;
    auto count = parse_number(text.substr(0, text.size() - 1));
    if (!count) return std::nullopt;
    auto number = static_cast<int64_t>(*count);
    if (text.back() == 'n') return Duration(number);
    for (const Unit& unit : units) {
        if (unit.letter != text.back()) continue;
        return number > Duration::max() / unit.length ? Duration::max() : number * unit.length;
    }
    return std::nullopt;
}

std::string_view write_grpc_timeout(Duration left, char* out) {
    left = std::max<Duration>(left, 1us);  // 0 would be no number of the grammar
    const Unit* unit = units;
    while (left / unit->length > most_units) ++unit;  // a Duration has less than 3 million hours
    char* end = std::to_chars(out, out + grpc_timeout_bound, left / unit->length).ptr;
    *end++ = unit->letter;
    return {out, static_cast<size_t>(end - out)};
}

std::optional<GrpcStatus> grpc_status_in(const Head& head) {
    if (!head.text) return std::nullopt;
    const Field* field = head.find("grpc-status");
    if (!field) return std::nullopt;
    auto number = parse_number(head.value(*field));
    return number && *number < grpc_status_count ? GrpcStatus(*number) : GrpcStatus::unknown;
}

GrpcStatus grpc_status_of(Cause cause) {
    switch (cause) {
        case Cause::none: return GrpcStatus::ok;
        case Cause::bad_request:
        case Cause::bad_response:
        case Cause::internal_error: return GrpcStatus::internal;
        // Too much, and coming again at once does not help.
        case Cause::body_too_large:
        case Cause::rate_limited:
        case Cause::queue_full:
        case Cause::circuit_open:
        case Cause::memory_full: return GrpcStatus::resource_exhausted;
        case Cause::client_gone:
        case Cause::write_timeout: return GrpcStatus::cancelled;
        case Cause::no_route: return GrpcStatus::unimplemented;
        // No backend has seen it, or its end was not the work's: it may be sent again.
        case Cause::queue_timeout:
        case Cause::no_backend:
        case Cause::draining:
        case Cause::connect_failure:
        case Cause::error_status:
        case Cause::backend_reset: return GrpcStatus::unavailable;
        case Cause::header_timeout:
        case Cause::body_timeout:
        case Cause::client_stall:
        case Cause::first_byte_timeout:
        case Cause::per_try_timeout:
        case Cause::idle_timeout:
        case Cause::request_timeout: return GrpcStatus::deadline_exceeded;
        default: break;
    }
    return GrpcStatus::unknown;
}

GrpcStatus grpc_status_of_http(uint16_t status) {
    switch (status) {
        case 400: return GrpcStatus::internal;
        case 401: return GrpcStatus::unauthenticated;
        case 403: return GrpcStatus::permission_denied;
        case 404: return GrpcStatus::unimplemented;
        case 429:
        case 502:
        case 503:
        case 504: return GrpcStatus::unavailable;
        default: return GrpcStatus::unknown;
    }
}

GrpcStatus grpc_status_of(const Head& head, const Head& trailers) {
    if (auto status = grpc_status_in(trailers)) return *status;
    if (auto status = grpc_status_in(head)) return *status;
    return is_grpc(head) ? GrpcStatus::unknown : grpc_status_of_http(head.status);
}

uint16_t http_status_of(GrpcStatus status) {
    switch (status) {
        case GrpcStatus::unavailable: return 503;
        case GrpcStatus::deadline_exceeded: return 504;
        case GrpcStatus::unknown:
        case GrpcStatus::internal:
        case GrpcStatus::data_loss: return 500;
        case GrpcStatus::resource_exhausted: return 429;
        default: return 200;  // the server answered, and meant it
    }
}

uint16_t status_at_head(const Head& response) {
    if (response.status != 200 || !is_grpc(response)) return response.status;
    auto status = grpc_status_in(response);
    return status ? http_status_of(*status) : response.status;
}

std::string_view write_grpc_message(std::string_view text, char* out) {
    constexpr char digits[] = "0123456789ABCDEF";
    char* end = out;
    for (char c : text) {
        if (c >= ' ' && c <= '~' && c != '%') {
            *end++ = c;
            continue;
        }
        auto byte = static_cast<unsigned char>(c);
        *end++ = '%';
        *end++ = digits[byte >> 4];
        *end++ = digits[byte & 15];
    }
    return {out, static_cast<size_t>(end - out)};
}

}  // namespace penstock
