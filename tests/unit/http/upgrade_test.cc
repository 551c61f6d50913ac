#include "http/upgrade.h"

#include "parsed.h"

using namespace penstock;

namespace {

bool wants(std::initializer_list<FieldLine> fields, Method method = Method::get,
           Version version = Version::http11) {
    return wants_upgrade(Made(method, "/", fields, version).head);
}

}  // namespace

TEST_CASE("an upgrade needs both fields, HTTP/1.1, and exactly one protocol") {
    CHECK(wants({{"connection", "Upgrade"}, {"upgrade", "websocket"}}));
    CHECK(wants({{"connection", "keep-alive"}, {"connection", "upgrade"}, {"upgrade", "WebSocket"}}));
    CHECK(wants({{"connection", "upgrade"}, {"upgrade", "foo/2"}}));
    CHECK_FALSE(wants({{"upgrade", "websocket"}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", ""}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", "a, b"}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", "a"}, {"upgrade", "b"}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", "web socket"}}));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", "websocket"}}, Method::get, Version::http10));
    CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", "websocket"}}, Method::connect));
}

TEST_CASE("HTTP over an upgrade is never forwarded: we could not see its requests") {
    for (std::string_view protocol : {"h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0"}) {
        CHECK_FALSE(wants({{"connection", "upgrade"}, {"upgrade", protocol}}));
    }
    CHECK_FALSE(wants(
        {{"connection", "upgrade, http2-settings"}, {"upgrade", "websocket"}, {"http2-settings", "AAA"}}));
}

TEST_CASE("101 is accepted only for the protocol that was asked for") {
    Made request(Method::get, "/", {{"connection", "upgrade"}, {"upgrade", "websocket"}});
    auto accepted = [&](uint16_t status, std::initializer_list<FieldLine> fields) {
        return accepts_upgrade(request.head, Made(status, fields).head);
    };
    CHECK(accepted(101, {{"connection", "Upgrade"}, {"upgrade", "WebSocket"}}));
    CHECK_FALSE(accepted(200, {{"connection", "upgrade"}, {"upgrade", "websocket"}}));
    CHECK_FALSE(accepted(101, {{"upgrade", "websocket"}}));
    CHECK_FALSE(accepted(101, {{"connection", "upgrade"}}));
    CHECK_FALSE(accepted(101, {{"connection", "upgrade"}, {"upgrade", "h2c"}}));
    CHECK_FALSE(accepted(101, {{"connection", "upgrade"}, {"upgrade", "websocket, h2c"}}));
}

TEST_CASE("an extended CONNECT becomes the Upgrade request that says the same") {
    Made connect(Method::connect, "/chat?x=1",
                 {{"sec-websocket-version", "13"},
                  {"sec-websocket-key", "forged"},
                  {"origin", "http://a"},
                  {"host", "a"}},
                 Version::http2);
    Head upgrade;
    Framing framing;
    REQUIRE(upgrade_of_connect(connect.head, "websocket", {0x0706050403020100, 0x0f0e0d0c0b0a0908},
                               connect.arena, upgrade, framing) == Rule::ok);
    CHECK(upgrade.method == Method::get);
    CHECK(upgrade.target() == "/chat?x=1");
    CHECK(upgrade.value_of("sec-websocket-version") == "13");
    CHECK(upgrade.value_of(FieldId::host) == "a");
    CHECK(upgrade_protocol(upgrade) == "websocket");
    std::string_view key = upgrade.value_of(FieldId::sec_websocket_key);
    CHECK(upgrade.count(FieldId::sec_websocket_key) == 1);
    CHECK(key.size() == 24);
    CHECK(key.substr(22) == "==");
    CHECK(std::string_view("AQgw").find(key[21]) != std::string_view::npos);
    CHECK(framing.upgrade);
    CHECK(framing.tunnel);

    Head other;
    REQUIRE(upgrade_of_connect(connect.head, "WebSocket", {1, 2}, connect.arena, other, framing) == Rule::ok);
    CHECK(other.value_of(FieldId::sec_websocket_key) != key);
    CHECK(upgrade_of_connect(connect.head, "connect-udp", {1, 2}, connect.arena, other, framing) ==
          Rule::method_unknown);
}
