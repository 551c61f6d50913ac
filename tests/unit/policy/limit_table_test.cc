#include "policy/limit_table.h"

#include <doctest/doctest.h>
#include <map>
#include <random>

namespace penstock {
namespace {

constexpr Time start = Time(1h);

Hash128 key(uint64_t n) { return {n * 0x9E3779B97F4A7C15u, n}; }

TEST_CASE("a key is found until it owes nothing and another call has swept it out") {
    LimitTable table(8);
    table.add(key(1), start + 10ms, 0, start);
    table.add(key(2), start + 20ms, 0, start);
    table.forget_old(start + 9ms);
    CHECK(table.size() == 2);
    table.forget_old(start + 10ms);
    CHECK(table.find(key(1)) == LimitTable::none);
    CHECK(table.find(key(2)) != LimitTable::none);
}

TEST_CASE("a full table forgets who owes nothing before anybody who owes something") {
    LimitTable table(4);
    for (uint64_t n = 0; n < 4; ++n) table.add(key(n), start + (n == 2 ? 1ms : 1s), 0, start);
    table.add(key(9), start + 1s, 0, start + 1ms);
    CHECK(table.find(key(2)) == LimitTable::none);
    CHECK(table.size() == 4);
    CHECK(table.forgiven() == 0);
}

TEST_CASE("where all owe something, the one that would be free the soonest is forgiven it, and counted") {
    LimitTable table(4);
    for (uint64_t n = 0; n < 4; ++n) table.add(key(n), start + (10 - n) * 1s, 0, start);
    // The heap knows an older time of the one that is due first: it has come again since.
    table[table.find(key(3))].free_at = start + 1min;
    table.add(key(9), start + 1min, 0, start);
    CHECK(table.find(key(2)) == LimitTable::none);
    CHECK(table.find(key(3)) != LimitTable::none);
    CHECK(table.forgiven() == 1);
}

TEST_CASE("a key with requests in flight never makes room") {
    LimitTable table(4);
    for (uint64_t n = 0; n < 4; ++n) table.add(key(n), start, 1, start);
    CHECK(table.is_stuck());
    table.give_unit(table.find(key(0)), start);
    CHECK_FALSE(table.is_stuck());
    CHECK(table.size() == 3);  // it owed nothing beside
    table.add(key(5), start + 1s, 0, start);
    table.add(key(6), start, 1, start);
    CHECK(table.find(key(5)) == LimitTable::none);
    for (uint64_t n : {1, 2, 3, 6}) CHECK(table.find(key(n)) != LimitTable::none);
}

TEST_CASE("a key whose last request ends is remembered for what it owes") {
    LimitTable table(4);
    const uint32_t entry = table.add(key(1), start + 1s, 1, start);
    table.take_unit(entry);
    table.give_unit(entry, start);
    table.give_unit(entry, start);
    CHECK(table.find(key(1)) == entry);
    table.forget_old(start + 1s);
    CHECK(table.size() == 0);
}

TEST_CASE("any course of events leaves the table with just the keys that a plain map has") {
    std::mt19937_64 random(7);
    LimitTable table(64);
    struct Plain {
        Time free_at;
        uint32_t units;
    };
    std::map<uint64_t, Plain> plain;
    Time now = start;
    for (int step = 0; step < 10'000; ++step) {
        now += Duration(random() % 2000);
        const uint64_t n = random() % 300;
        auto known = plain.find(n);
        const uint32_t entry = table.find(key(n));
        if (known != plain.end() && (known->second.units || known->second.free_at > now)) {
            REQUIRE(entry != LimitTable::none);
            REQUIRE(table[entry].free_at == known->second.free_at);
            REQUIRE(table[entry].units == known->second.units);
        }
        if (entry != LimitTable::none && random() % 2) {
            if (random() % 3 == 0) {
                table[entry].free_at = std::max(now, table[entry].free_at) + Duration(random() % 50'000);
            } else if (table[entry].units && random() % 2) {
                table.give_unit(entry, now);
            } else {
                table.take_unit(entry);
            }
        } else if (entry == LimitTable::none && !table.is_stuck()) {
            table.add(key(n), now + Duration(1 + random() % 50'000), random() % 4 == 0, now);
        }
        table.forget_old(now);
        // What the table says now is what the map has to say next time; who is gone may only have been dead,
        // or forgiven.
        std::map<uint64_t, Plain> next;
        uint64_t gone = 0;
        for (uint64_t k = 0; k < 300; ++k) {
            const uint32_t e = table.find(key(k));
            auto before = plain.find(k);
            if (e != LimitTable::none)
                next[k] = {table[e].free_at, table[e].units};
            else if (before != plain.end() && k != n &&
                     (before->second.units || before->second.free_at > now))
                ++gone;
        }
        REQUIRE(next.size() == table.size());
        REQUIRE(gone <= 1);
        if (gone) REQUIRE(table.forgiven() > 0);
        plain = std::move(next);
    }
    CHECK(table.forgiven() > 0);
}

}  // namespace
}  // namespace penstock
