#include "http/grpc.h"

#include <doctest/doctest.h>
#include <string>

#include "parsed.h"

using namespace penstock;

namespace {

bool is_grpc_with(std::string_view type) {
    return is_grpc(Made(Method::post, "/a.B/C", {{"content-type", type}}).head);
}

std::optional<Duration> timeout_of(std::string_view value) {
    return grpc_timeout(Made(Method::post, "/a.B/C", {{"grpc-timeout", value}}).head);
}

std::string written(Duration left) {
    char out[grpc_timeout_bound];
    return std::string(write_grpc_timeout(left, out));
}

std::string message_of(std::string_view text) {
    char out[64];
    return std::string(write_grpc_message(text, out));
}

}  // namespace

TEST_CASE("a message is five bytes longer than its prefix says") {
    const auto bytes = [](std::string_view prefix) {
        return grpc_message_bytes(std::span<const char, grpc_prefix_bytes>(prefix.data(), grpc_prefix_bytes));
    };
    using namespace std::string_view_literals;
    CHECK(bytes("\0\0\0\0\0"sv) == 5);
    CHECK(bytes("\1\0\0\1\2"sv) == 5 + 258);
    CHECK(bytes("\0\xff\xff\xff\xff"sv) == 5 + 0xffffffffULL);
}

TEST_CASE("a request is gRPC by its content-type, and grpc-web is not") {
    CHECK(is_grpc_with("application/grpc"));
    CHECK(is_grpc_with("application/grpc+proto"));
    CHECK(is_grpc_with("Application/gRPC;charset=utf-8"));
    CHECK_FALSE(is_grpc_with("application/grpc-web"));
    CHECK_FALSE(is_grpc_with("application/grpc-web-text"));
    CHECK_FALSE(is_grpc_with("application/json"));
    CHECK_FALSE(is_grpc_with(""));
    CHECK_FALSE(is_grpc(Made(Method::post, "/", {}).head));
    CHECK_FALSE(is_grpc(Head{}));
}

TEST_CASE("grpc-timeout is read in all its units") {
    CHECK(timeout_of("1H") == Duration(1h));
    CHECK(timeout_of("2M") == Duration(2min));
    CHECK(timeout_of("3S") == Duration(3s));
    CHECK(timeout_of("250m") == Duration(250ms));
    CHECK(timeout_of("7u") == Duration(7us));
    CHECK(timeout_of("99999999n") == Duration(99999999));
    CHECK(timeout_of("0S") == Duration(0));
}

TEST_CASE("a grpc-timeout that no clock can hold saturates instead of turning around") {
    CHECK(timeout_of("99999999H") == Duration::max());
}

TEST_CASE("a grpc-timeout that nobody understands is none") {
    for (std::string_view bad : {"", "S", "1", "1s", "-1S", "+1S", "1.5S", "1 S", "123456789S", "1SS", "xS"})
        CHECK_FALSE(timeout_of(bad).has_value());
    CHECK_FALSE(grpc_timeout(Made(Method::post, "/", {}).head).has_value());
}

TEST_CASE("what is left is written in the finest unit that eight digits hold, never more than it was") {
    CHECK(written(2s) == "2000000u");
    CHECK(written(1999999999ns) == "1999999u");
    CHECK(written(99'999'999us) == "99999999u");
    CHECK(written(100s) == "100000m");
    CHECK(written(48h) == "172800S");
    CHECK(written(Duration::max()).back() == 'H');
    CHECK(written(0s) == "1u");
    CHECK(written(-5s) == "1u");
    for (Duration d : {1us, 1234567us, 99'999'999us}) CHECK(timeout_of(written(d)) == d);
    for (Duration d : {Duration(48h), Duration(1000h), Duration(24h * 365 * 100), Duration::max()})
        CHECK(*timeout_of(written(d)) <= d);
}

TEST_CASE("the status of a response is its trailers', else its head's, else what its HTTP status means") {
    Made head(200, {{"content-type", "application/grpc"}});
    Made failed({{"grpc-status", "14"}});
    CHECK(grpc_status_of(head.head, failed.head) == GrpcStatus::unavailable);
    Made only(200, {{"content-type", "application/grpc"}, {"grpc-status", "8"}});
    CHECK(grpc_status_of(only.head, Head{}) == GrpcStatus::resource_exhausted);
    CHECK(grpc_status_of(head.head, Head{}) == GrpcStatus::unknown);
    Made html(502, {{"content-type", "text/html"}});
    CHECK(grpc_status_of(html.head, Head{}) == GrpcStatus::unavailable);
    Made odd({{"grpc-status", "99"}});
    CHECK(grpc_status_of(head.head, odd.head) == GrpcStatus::unknown);
    Made zero({{"grpc-status", "0"}});
    CHECK(grpc_status_of(head.head, zero.head) == GrpcStatus::ok);
}

TEST_CASE("a head tells how its answer ends where nothing follows") {
    Made only(200, {{"content-type", "application/grpc"}, {"grpc-status", "14"}});
    CHECK(status_at_head(only.head) == 503);
    Made fine(200, {{"content-type", "application/grpc+proto"}, {"grpc-status", "0"}});
    CHECK(status_at_head(fine.head) == 200);
    Made begun(200, {{"content-type", "application/grpc"}});
    CHECK(status_at_head(begun.head) == 200);
    Made html(502, {{"grpc-status", "0"}});
    CHECK(status_at_head(html.head) == 502);
    Made other(200, {{"content-type", "text/html"}, {"grpc-status", "14"}});
    CHECK(status_at_head(other.head) == 200);
}

TEST_CASE("HTTP statuses mean what gRPC's own table says") {
    CHECK(grpc_status_of_http(400) == GrpcStatus::internal);
    CHECK(grpc_status_of_http(401) == GrpcStatus::unauthenticated);
    CHECK(grpc_status_of_http(403) == GrpcStatus::permission_denied);
    CHECK(grpc_status_of_http(404) == GrpcStatus::unimplemented);
    for (uint16_t status : {429, 502, 503, 504})
        CHECK(grpc_status_of_http(status) == GrpcStatus::unavailable);
    CHECK(grpc_status_of_http(200) == GrpcStatus::unknown);
    CHECK(grpc_status_of_http(500) == GrpcStatus::unknown);
}

TEST_CASE("refusals for want of room say RESOURCE_EXHAUSTED, for want of a backend UNAVAILABLE") {
    CHECK(grpc_status_of(Cause::queue_full) == GrpcStatus::resource_exhausted);
    CHECK(grpc_status_of(Cause::circuit_open) == GrpcStatus::resource_exhausted);
    CHECK(grpc_status_of(Cause::no_backend) == GrpcStatus::unavailable);
    CHECK(grpc_status_of(Cause::draining) == GrpcStatus::unavailable);
    CHECK(grpc_status_of(Cause::connect_failure) == GrpcStatus::unavailable);
    CHECK(grpc_status_of(Cause::request_timeout) == GrpcStatus::deadline_exceeded);
    CHECK(grpc_status_of(Cause::no_route) == GrpcStatus::unimplemented);
    CHECK(grpc_status_name(GrpcStatus::resource_exhausted) == "RESOURCE_EXHAUSTED");
    CHECK(grpc_status_name(GrpcStatus::unauthenticated) == "UNAUTHENTICATED");
}

TEST_CASE("UNAVAILABLE counts as a gateway error, what the application meant to say as none") {
    CHECK(http_status_of(GrpcStatus::unavailable) == 503);
    CHECK(http_status_of(GrpcStatus::deadline_exceeded) == 504);
    CHECK(http_status_of(GrpcStatus::internal) == 500);
    CHECK(http_status_of(GrpcStatus::resource_exhausted) == 429);
    CHECK(http_status_of(GrpcStatus::not_found) == 200);
}

TEST_CASE("grpc-message is percent-encoded") {
    CHECK(message_of("the queue is full") == "the queue is full");
    CHECK(message_of("100%\r\n\xc3\xa9") == "100%25%0D%0A%C3%A9");
}
