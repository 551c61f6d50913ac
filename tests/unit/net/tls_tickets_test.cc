#include "net/tls_tickets.h"

#include <doctest/doctest.h>

using namespace penstock;

namespace {
const Time start = Time() + 1000h;
}

TEST_CASE("tickets are sealed with one key for an hour, and then with another") {
    TicketKeys keys;
    TicketKey first = keys.current(start);
    CHECK(keys.current(start + 59min).name == first.name);
    TicketKey second = keys.current(start + 1h);
    CHECK(second.name != first.name);
    CHECK(second.cipher != first.cipher);
    CHECK(second.mac != first.mac);
}

TEST_CASE("a ticket is good while its key is the present one or the one before, and says which") {
    TicketKeys keys;
    TicketKey first = keys.current(start);
    REQUIRE(keys.find(first.name.data(), start + 59min));
    CHECK(keys.find(first.name.data(), start + 59min)->is_current);
    auto old = keys.find(first.name.data(), start + 90min);
    REQUIRE(old);
    CHECK(!old->is_current);
    CHECK(old->key.cipher == first.cipher);
    CHECK(!keys.find(first.name.data(), start + 150min));
}

TEST_CASE("a key that was not used for two hours is forgotten") {
    TicketKeys keys;
    TicketKey first = keys.current(start);
    CHECK(!keys.find(first.name.data(), start + 2h));
}

TEST_CASE("a ticket of somebody else is no good") {
    TicketKeys keys, others;
    TicketKey foreign = others.current(start);
    CHECK(!keys.find(foreign.name.data(), start));
}
