#include "http/forward.h"

#include <string>

#include "http/rules.h"
#include "parsed.h"

using namespace penstock;

namespace {

// What goes out of a request of these fields: theirs that are kept, then ours.
std::string forwarded(Made& made, const ClientFacts& client) {
    std::string result;
    for (int run = 0; run < 2; run++) {  // a retry shapes the same head again
        drop_request_hop(made.head, false);
        FieldLine add[max_forwarding_fields];
        size_t count = forwarding_fields(made.head, client, made.arena, add);
        std::string text = made.kept();
        for (size_t i = 0; i < count; i++)
            text += "|" + std::string(add[i].name) + "=" + std::string(add[i].value);
        if (run) CHECK(text == result);
        result = text;
    }
    return result;
}

std::string kept_request(std::initializer_list<FieldLine> fields, bool keep_upgrade = false) {
    Made made(Method::get, "/", fields);
    drop_request_hop(made.head, keep_upgrade);
    return made.kept();
}

std::string kept_response(std::initializer_list<FieldLine> fields, bool keep_upgrade = false) {
    Made made(200, fields);
    drop_response_hop(made.head, keep_upgrade);
    return made.kept();
}

// Trusts what begins with "10.".
bool trusts_ten(const void*, std::string_view address) { return address.starts_with("10."); }

std::string_view client_of(const Made& made, std::string_view connected) {
    return client_address(made.head, connected, trusts_ten, nullptr);
}

}  // namespace

TEST_CASE("fields of this hop are not forwarded") {
    CHECK(kept_request({{"host", "a"},
                        {"connection", "keep-alive"},
                        {"keep-alive", "timeout=5"},
                        {"proxy-connection", "close"},
                        {"transfer-encoding", "chunked"},
                        {"upgrade", "websocket"},
                        {"http2-settings", "AAA"},
                        {"proxy-authorization", "x"},
                        {"trailer", "x"},
                        {"x", "y"}}) == "host=a|trailer=x|x=y");
    CHECK(kept_response({{"connection", "close"},
                         {"keep-alive", "timeout=5"},
                         {"proxy-authenticate", "x"},
                         {"transfer-encoding", "chunked"},
                         {"upgrade", "h2c"},
                         {"server", "s"}}) == "server=s");
}

TEST_CASE("Connection removes what it names, wherever it stands and in any letter case") {
    CHECK(kept_request({{"X-A", "1"}, {"connection", "x-a, close"}, {"x-a", "2"}, {"x-b", "3"}}) == "x-b=3");
    CHECK(kept_request({{"x-a", "1"}, {"x-b", "2"}, {"connection", "X-A"}, {"connection", ",X-B,"}}) == "");
    CHECK(kept_response({{"x-a", "1"}, {"connection", "x-a"}, {"x-b", "2"}}) == "x-b=2");
}

TEST_CASE("Connection cannot remove what a request means or who sent it") {
    CHECK(kept_request({{"connection",
                         "host, content-length, x-forwarded-for, x-real-ip, forwarded, via, x-request-id"},
                        {"host", "a"},
                        {"content-length", "5"},
                        {"x-forwarded-for", "1.2.3.4"},
                        {"x-real-ip", "1.2.3.4"},
                        {"forwarded", "for=1.2.3.4"},
                        {"via", "1.1 x"},
                        {"x-request-id", "7"}}) ==
          "host=a|content-length=5|x-forwarded-for=1.2.3.4|x-real-ip=1.2.3.4|forwarded=for=1.2.3.4|via=1.1 "
          "x|x-request-id=7");
}

TEST_CASE("a field named close is not removed by Connection: close") {
    CHECK(kept_request({{"connection", "close"}, {"close", "x"}}) == "close=x");
}

TEST_CASE("TE is forwarded as far as it asks for trailers") {
    CHECK(kept_request({{"te", "trailers"}, {"connection", "te"}}) == "te=trailers");
    CHECK(kept_request({{"te", "gzip;q=0.5, Trailers , deflate"}}) == "te=Trailers");
    CHECK(kept_request({{"te", "gzip"}}) == "");
    CHECK(kept_request({{"te", ""}}) == "");
    CHECK(kept_response({{"te", "trailers"}}) == "");
}

TEST_CASE("an upgrade is kept where it is forwarded") {
    CHECK(kept_request({{"connection", "upgrade"}, {"upgrade", "websocket"}}, true) == "upgrade=websocket");
    CHECK(kept_response({{"connection", "upgrade"}, {"upgrade", "websocket"}}, true) == "upgrade=websocket");
}

TEST_CASE("no client speaks for a proxy: httpoxy and our own names are dropped") {
    CHECK(kept_request(
              {{"proxy", "http://evil"}, {"x-penstock-reason", "x"}, {"X-Penstock-Slot", "1"}, {"x", "y"}}) ==
          "x=y");
    CHECK(kept_response({{"x-penstock-reason", "queue_full"}, {"x", "y"}}) == "x=y");
}

TEST_CASE("names that a CGI-like backend reads as one of ours are dropped, other underscores pass") {
    CHECK(kept_request({{"X_Forwarded_For", "1"},
                        {"x.real.ip", "1"},
                        {"content_length", "5"},
                        {"Transfer_Encoding", "chunked"},
                        {"x_penstock_slot", "1"},
                        {"x-forwarded_for", "1"},
                        {"x_request-id", "1"},
                        {"host_", "a"},
                        {"x_api_key", "k"},
                        {"a.b", "c"}}) == "host_=a|x_api_key=k|a.b=c");
}

TEST_CASE("an untrusted client's word about itself is replaced by ours") {
    Made m(Method::get, "/",
           {{"host", "a:80"},
            {"x-forwarded-for", "6.6.6.6"},
            {"x-forwarded-for", "7.7.7.7"},
            {"x-forwarded-proto", "https"},
            {"x-forwarded-host", "evil"},
            {"x-forwarded-port", "1"},
            {"forwarded", "for=6.6.6.6"},
            {"x-real-ip", "6.6.6.6"}});
    CHECK(
        forwarded(m, {.connected = "192.0.2.1", .address = "192.0.2.1", .scheme = "http", .port = "8000"}) ==
        "host=a:80|x-forwarded-for=192.0.2.1|x-forwarded-proto=http|x-forwarded-host=a:80|x-forwarded-port="
        "8000|"
        "x-real-ip=192.0.2.1");
}

TEST_CASE("what we cannot know is left out, and what the client said about it is still dropped") {
    Made m(Method::get, "/", {{"x-forwarded-for", "6.6.6.6"}, {"x-real-ip", "6.6.6.6"}});
    CHECK(forwarded(m, {.scheme = "http"}) == "|x-forwarded-proto=http");
}

TEST_CASE("a trusted proxy's chain is extended and its other words are kept") {
    Made m(Method::get, "/",
           {{"host", "a"},
            {"x-forwarded-for", "198.51.100.7"},
            {"x-forwarded-for", "10.0.0.2"},
            {"x-forwarded-proto", "https"},
            {"x-forwarded-host", "site.example"},
            {"x-forwarded-port", "443"},
            {"x-real-ip", "198.51.100.7"},
            {"forwarded", "for=198.51.100.7;proto=https"}});
    CHECK(
        forwarded(m, {.connected = "10.0.0.1", .address = "198.51.100.7", .port = "8000", .trusted = true}) ==
        "host=a|x-forwarded-proto=https|x-forwarded-host=site.example|x-forwarded-port=443|x-real-ip=198.51."
        "100.7|"
        "x-forwarded-for=198.51.100.7, 10.0.0.2, 10.0.0.1|forwarded=for=198.51.100.7;proto=https, "
        "for=10.0.0.1");
}

TEST_CASE("what a trusted proxy leaves out or says badly is made by us") {
    Made m(Method::get, "/",
           {{"host", "a"},
            {"x-forwarded-proto", "https, http"},
            {"x-forwarded-host", "a"},
            {"x-forwarded-host", "b"},
            {"x-forwarded-port", "x"},
            {"x-real-ip", "unknown!"}});
    CHECK(forwarded(m, {.connected = "10.0.0.1", .address = "10.0.0.1", .port = "8000", .trusted = true}) ==
          "host=a|x-forwarded-for=10.0.0.1|x-forwarded-proto=http|x-forwarded-host=a|x-forwarded-port=8000|"
          "x-real-ip=10.0.0.1");
}

TEST_CASE("an IPv6 address stands in brackets and quotes in Forwarded only") {
    Made m(Method::get, "/", {{"x-forwarded-for", "1.2.3.4"}, {"forwarded", "for=1.2.3.4"}});
    ClientFacts client{.connected = "2001:db8::1", .address = "1.2.3.4", .trusted = true};
    CHECK(forwarded(m, client) ==
          "|x-forwarded-for=1.2.3.4, 2001:db8::1|x-forwarded-proto=http|x-real-ip=1.2.3.4|"
          "forwarded=for=1.2.3.4, for=\"[2001:db8::1]\"");
}

TEST_CASE("the client is counted from the right, over trusted proxies only") {
    Made none(Method::get, "/", {});
    CHECK(client_of(none, "10.0.0.1") == "10.0.0.1");
    Made chain(Method::get, "/",
               {{"x-forwarded-for", "6.6.6.6, 198.51.100.7"}, {"x-forwarded-for", "10.0.0.3,10.0.0.2"}});
    CHECK(client_of(chain, "10.0.0.1") == "198.51.100.7");
    CHECK(client_of(chain, "192.0.2.1") == "192.0.2.1");
    Made inside(Method::get, "/", {{"x-forwarded-for", "10.0.0.3, 10.0.0.2"}});
    CHECK(client_of(inside, "10.0.0.1") == "10.0.0.3");
}

TEST_CASE("ports and brackets come off a forwarded address, and nonsense ends the chain") {
    Made port(Method::get, "/", {{"x-forwarded-for", "198.51.100.7:4711"}});
    CHECK(client_of(port, "10.0.0.1") == "198.51.100.7");
    Made v6(Method::get, "/", {{"x-forwarded-for", "[2001:db8::1]:4711"}});
    CHECK(client_of(v6, "10.0.0.1") == "2001:db8::1");
    Made bare(Method::get, "/", {{"x-forwarded-for", "2001:db8::1"}});
    CHECK(client_of(bare, "10.0.0.1") == "2001:db8::1");
    Made nonsense(Method::get, "/", {{"x-forwarded-for", "198.51.100.7, <script>, 10.0.0.2"}});
    CHECK(client_of(nonsense, "10.0.0.1") == "10.0.0.2");
    Made empty(Method::get, "/", {{"x-forwarded-for", ",,"}});
    CHECK(client_of(empty, "10.0.0.1") == "10.0.0.1");
    Made open(Method::get, "/", {{"x-forwarded-for", "["}});
    CHECK(client_of(open, "10.0.0.1") == "10.0.0.1");
}

TEST_CASE("a chain without end is followed for 64 hops") {
    std::string chain;
    for (int i = 0; i < 1000; i++) chain += "10.0.0.2,";
    chain += "10.0.0.2";
    Made m(Method::get, "/", {{"x-forwarded-for", "6.6.6.6"}, {"x-forwarded-for", chain}});
    CHECK(client_of(m, "10.0.0.1") == "10.0.0.2");
}

TEST_CASE("trailers lose what their head's Connection names, and aliases") {
    Made head(200, {{"connection", "x-sum"}});
    Made trailers({{"x-sum", "1"}, {"grpc-status", "0"}, {"content_length", "5"}});
    drop_trailer_hop(trailers.head, head.head);
    CHECK(trailers.kept() == "grpc-status=0");
}
