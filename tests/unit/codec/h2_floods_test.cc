#include "codec/h2_floods.h"

#include <doctest/doctest.h>

#include "h2_ends.h"

using namespace penstock;

namespace {

int taken(H2Floods& floods, H2Flood kind, Time now, int tries) {
    int n = 0;
    while (n < tries && floods.count(kind, now)) ++n;
    return n;
}

// A frame by hand: kind, flags, stream, payload.
std::string frame(uint8_t kind, uint8_t flags, uint32_t stream, std::string_view payload = {}) {
    std::string out;
    for (int shift : {16, 8, 0}) out += static_cast<char>(payload.size() >> shift);
    out += static_cast<char>(kind);
    out += static_cast<char>(flags);
    for (int shift : {24, 16, 8, 0}) out += static_cast<char>(stream >> shift);
    return out + std::string(payload);
}

const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0);
// GET http://a/ with :method, :scheme and :path from HPACK's static table.
const std::string get =
    "\x82\x86\x84\x41\x01"
    "a";

struct Victim {
    H2World world;
    H2End server{world, H2Role::server};
    Victim() { CHECK(server.session.receive(preface, Time(1s))); }

    // How many of these it takes before it has had enough; -1: it never has.
    int flood(std::string_view bytes, int most = 20000) {
        for (int n = 0; n < most; ++n) {
            if (!server.session.receive(bytes, Time(1s))) return n;
            server.session.send();
            server.out.clear();
        }
        return -1;
    }
};

}  // namespace

TEST_CASE("a burst is taken, then what the rate gives back") {
    H2Floods floods;
    Time start(1s);
    int burst = taken(floods, H2Flood::settings, start, 10000);
    CHECK(burst == 250);
    CHECK(taken(floods, H2Flood::settings, start, 10) == 0);
    CHECK(taken(floods, H2Flood::settings, start + 2s, 1000) == 120);
    CHECK(taken(floods, H2Flood::settings, start + 1h, 10000) == burst);
}

TEST_CASE("DATA that was sent earns window updates") {
    H2Floods floods;
    Time now(1s);
    for (int i = 0; i < 10000; ++i) {
        floods.sent_data();
        for (int n = 0; n < 20; ++n) REQUIRE(floods.count(H2Flood::window_update, now));
    }
    CHECK(taken(floods, H2Flood::window_update, now, 100000) < 5000);
}

TEST_CASE("DATA that was sent earns PINGs, one for each and no more than some thousand in advance") {
    H2Floods floods;
    Time now(1s);
    for (int i = 0; i < 10000; ++i) {
        floods.sent_data();
        REQUIRE(floods.count(H2Flood::ping, now));
    }
    CHECK(taken(floods, H2Flood::ping, now, 100000) < 5000);
}

TEST_CASE("a backend may do what a client may not, within a bound, and DATA takes nothing away from it") {
    H2Floods floods(100);
    Time now(1s);
    CHECK(taken(floods, H2Flood::ping, now, 20000) == 20000);
    floods.sent_data();
    int rest = taken(floods, H2Flood::ping, now, 1000000);
    CHECK(rest >= 30000);
    CHECK(rest < 31000);
}

TEST_CASE("answers to what we ask are no flood, and answers to nothing are") {
    Victim victim;
    H2Session& session = victim.server.session;
    const std::string acknowledged = frame(4, 1, 0);
    session.send();
    REQUIRE(session.receive(acknowledged, Time(1s)));  // the first settings
    CHECK(victim.server.answers == 0);
    for (int i = 0; i < 5000; ++i) {
        session.ask();
        session.send();
        victim.server.out.clear();
        REQUIRE(session.receive(acknowledged, Time(1s)));
    }
    CHECK(victim.server.answers == 5000);
    int taken = victim.flood(frame(6, 1, 0, std::string(8, '\0')));
    CHECK(taken > 0);
    CHECK(taken <= 600);
    CHECK(session.flood() == H2Flood::priority);
}

TEST_CASE("each flood ends the connection with ENHANCE_YOUR_CALM") {
    struct Case {
        H2Flood kind;
        std::string bytes;
        int most;
    };
    const Case cases[] = {
        {H2Flood::ping, frame(6, 0, 0, "12345678"), 600},
        {H2Flood::settings, frame(4, 0, 0), 300},
        {H2Flood::priority, frame(2, 0, 1, std::string("\0\0\0\0\x10", 5)), 600},
        {H2Flood::window_update, frame(8, 0, 0, std::string("\0\0\0\1", 4)), 1100},
    };
    for (const Case& c : cases) {
        CAPTURE(to_string(c.kind));
        Victim victim;
        int n = victim.flood(c.bytes);
        CHECK(n > 0);
        CHECK(n <= c.most);
        CHECK(victim.server.session.flood() == c.kind);
        victim.server.session.send();
        H2End client(victim.world, H2Role::client);
        // What it says last: GOAWAY with code 11.
        REQUIRE(victim.server.out.size() >= 17);
        CHECK(victim.server.out.find(std::string("\0\0\0\x0b", 4)) != std::string::npos);
        CHECK(victim.server.session.is_over());
        CHECK_FALSE(victim.server.session.receive("more", Time(1s)));
    }
}

TEST_CASE("a stream that is opened and reset again and again ends the connection") {
    Victim victim;
    int opened = 0;
    for (uint32_t id = 1; id < 40000; id += 2) {
        std::string both = frame(1, 5, id, get) + frame(3, 0, id, std::string("\0\0\0\x8", 4));
        if (!victim.server.session.receive(both, Time(1s))) break;
        ++opened;
        victim.server.session.send();
        victim.server.out.clear();
    }
    CHECK(opened <= 200);
    CHECK(victim.server.session.flood() == H2Flood::reset);
    CHECK(victim.server.session.open_streams() <= 1);
}

TEST_CASE("empty DATA without an end, and CONTINUATION without one, end the connection") {
    Victim data;
    CHECK(data.server.session.receive(frame(1, 4, 1, get), Time(1s)));
    CHECK(data.flood(frame(0, 0, 1)) == 100);
    CHECK(data.server.session.flood() == H2Flood::empty_data);

    Victim head;
    CHECK(head.server.session.receive(frame(1, 1, 1, get), Time(1s)));
    int n = head.flood(frame(9, 0, 1));
    CHECK(n > 0);
    CHECK(n <= 10);
    CHECK(head.server.session.flood() == H2Flood::continuation);
}

TEST_CASE("a head that grows a thousand times when it is decoded ends the connection") {
    Victim victim;
    std::string block = get +
                        "\x40\x01"
                        "b"
                        "\x7f" +
                        static_cast<char>(0x80 | (2873 & 0x7f)) + static_cast<char>(2873 >> 7) +
                        std::string(3000, 'v') + std::string(12000, '\xbe');
    CHECK_FALSE(victim.server.session.receive(frame(1, 5, 1, block), Time(1s)));
    CHECK(victim.server.session.flood() == H2Flood::header_bomb);
    CHECK(victim.server.lines.empty());
}

TEST_CASE("who counts slowly is no flood") {
    Victim victim;
    Time now(1s);
    for (int i = 0; i < 2000; ++i) {
        now += 100ms;
        REQUIRE(victim.server.session.receive(
            frame(6, 0, 0, "12345678") + frame(8, 0, 0, std::string("\0\0\0\1", 4)), now));
        victim.server.session.send();
        victim.server.out.clear();
    }
}
