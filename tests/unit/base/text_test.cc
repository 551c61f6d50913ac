#include "base/text.h"

#include <array>
#include <doctest/doctest.h>
#include <string>

namespace penstock {

namespace {

template <class T>
std::string error_of(const Result<T>& result) {
    return result ? "" : result.error().message;
}

}  // namespace

TEST_CASE("durations are read with their unit, whole or with a fraction") {
    CHECK(*parse_duration("250ms") == 250ms);
    CHECK(*parse_duration("10s") == 10s);
    CHECK(*parse_duration("5m") == 5min);
    CHECK(*parse_duration("1h") == 1h);
    CHECK(*parse_duration("1.5s") == 1500ms);
    CHECK(*parse_duration("0.000001h") == 3600us);
    CHECK(*parse_duration("7us") == 7us);
    CHECK(*parse_duration("7ns") == 7ns);
    CHECK(*parse_duration(" 10 s ") == 10s);
    CHECK(*parse_duration("0") == 0s);
    CHECK(*parse_duration("0s") == 0s);
    CHECK(*parse_duration("87600h") == 87600h);
}

TEST_CASE("a duration that is none says what would be right") {
    CHECK(error_of(parse_duration("10")) == "\"10\" has no unit; write 10s for seconds, or 10ms");
    CHECK(error_of(parse_duration("-5s")) ==
          "\"-5s\" is negative; write a duration such as 250ms, 10s, 5m or 1h");
    for (const char* wrong :
         {"", "s", "10 seconds", "1h30m", "1.s", ".5s", "1.0000001s", "10S", "inf", "1e3s"}) {
        CAPTURE(wrong);
        CHECK(error_of(parse_duration(wrong)) ==
              "\"" + std::string(wrong) +
                  "\" is not a duration; write a duration such as 250ms, 10s, 5m or 1h");
    }
    CHECK(error_of(parse_duration("87601h")) == "\"87601h\" is too long; at most 87600h");
    CHECK(error_of(parse_duration("18446744073709551615h")) ==
          "\"18446744073709551615h\" is too long; at most 87600h");
    CHECK(!parse_duration("18446744073709551616h"));
}

TEST_CASE("sizes are read in powers of 1024, and decimal units are refused with the right one") {
    CHECK(*parse_size("0") == 0);
    CHECK(*parse_size("4096") == 4096);
    CHECK(*parse_size("17B") == 17);
    CHECK(*parse_size("64KiB") == 64 * KiB);
    CHECK(*parse_size("10MiB") == 10 * MiB);
    CHECK(*parse_size("8GiB") == 8 * GiB);
    CHECK(*parse_size("1.5GiB") == 1536 * MiB);
    CHECK(*parse_size("2TiB") == 2048 * GiB);
    CHECK(error_of(parse_size("64KB")) == "\"64KB\" has a unit that is not known here; write 64KiB");
    CHECK(error_of(parse_size("64k")) == "\"64k\" has a unit that is not known here; write 64KiB");
    CHECK(error_of(parse_size("1G")) == "\"1G\" has a unit that is not known here; write 1GiB");
    CHECK(error_of(parse_size("ten")) == "\"ten\" is not a size; write a size such as 64KiB, 10MiB or 8GiB");
    CHECK(error_of(parse_size("1.5")) ==
          "\"1.5\" is not a whole number of bytes; write a size such as 64KiB, 10MiB or 8GiB");
    CHECK(error_of(parse_size("-1MiB")) ==
          "\"-1MiB\" is negative; write a size such as 64KiB, 10MiB or 8GiB");
    CHECK(error_of(parse_size("2000000TiB")) ==
          "\"2000000TiB\" is too large; write a size such as 64KiB, 10MiB or 8GiB");
    CHECK(!parse_size("5parsecs"));
}

TEST_CASE("rates are so many per second, minute or hour") {
    CHECK(*parse_rate("100/s") == Rate{100, 1s});
    CHECK(*parse_rate("600 / m") == Rate{600, 1min});
    CHECK(*parse_rate("5000/h") == Rate{5000, 1h});
    CHECK(error_of(parse_rate("0/s")) ==
          "\"0/s\" would let nothing pass; write a rate such as 100/s, 600/m or 5000/h");
    for (const char* wrong : {"", "100", "/s", "1/", "1.5/s", "-1/s", "5/ms", "5/d", "1/2/s"}) {
        CAPTURE(wrong);
        CHECK(error_of(parse_rate(wrong)) ==
              "\"" + std::string(wrong) + "\" is not a rate; write a rate such as 100/s, 600/m or 5000/h");
    }
}

TEST_CASE("percentages are fractions of one") {
    CHECK(*parse_percent("10%") == doctest::Approx(0.1));
    CHECK(*parse_percent("2.5 %") == doctest::Approx(0.025));
    CHECK(*parse_percent("100%") == 1);
    CHECK(error_of(parse_percent("101%")) == "\"101%\" is more than the whole; at most 100%");
    CHECK(error_of(parse_percent("10")) == "\"10\" is not a percentage; write one such as 10%");
}

TEST_CASE("what is written of a value is read back as the same value") {
    for (Duration d : {Duration(0), Duration(1ns), Duration(1500us), Duration(250ms), Duration(90s),
                       Duration(5min), Duration(36h)}) {
        CHECK(*parse_duration(format_duration(d)) == d);
    }
    for (uint64_t size :
         {uint64_t{0}, uint64_t{1}, uint64_t{1025}, 64 * KiB, 1536 * MiB, 3 * GiB, 2048 * GiB}) {
        CHECK(*parse_size(format_size(size)) == size);
    }
    for (Rate rate : {Rate{1, 1s}, Rate{600, 1min}, Rate{5000, 1h}})
        CHECK(*parse_rate(format_rate(rate)) == rate);
    for (double fraction : {0.0, 0.1, 0.125, 1.0}) {
        CHECK(*parse_percent(format_percent(fraction)) == doctest::Approx(fraction));
    }
    CHECK(format_duration(90s) == "90s");
    CHECK(format_duration(-90s) == "-90s");
    CHECK(format_duration(300s) == "5m");
    CHECK(format_size(64 * KiB) == "64KiB");
    CHECK(format_rate({600, 1min}) == "600/m");
    CHECK(format_percent(0.1) == "10%");
}

TEST_CASE("numbers are digits alone, and overflow is no number") {
    CHECK(*parse_number("0") == 0);
    CHECK(*parse_number("18446744073709551615") == UINT64_MAX);
    for (const char* wrong : {"", " 1", "1 ", "+1", "-1", "0x10", "1.0", "18446744073709551616"}) {
        CAPTURE(wrong);
        CHECK(!parse_number(wrong));
    }
    CHECK(*parse_decimal("1.9") == doctest::Approx(1.9));
    CHECK(*parse_decimal("2") == 2);
    CHECK(!parse_decimal("1.9x"));
    CHECK(!parse_decimal("-1"));
}

TEST_CASE("letter case matters to ASCII letters alone") {
    CHECK(equal_ignoring_case("Content-Length", "content-LENGTH"));
    CHECK(!equal_ignoring_case("a", "ab"));
    CHECK(!equal_ignoring_case("[", "{"));  // 0x5b and 0x7b differ in the bit of letter case
    CHECK(lower_case("Ab-9_[\xc3\x84") == "ab-9_[\xc3\x84");
    CHECK(trim(" \t a b \r\n") == "a b");
    CHECK(trim("   ").empty());
}

TEST_CASE("the nearest name is the one that a slip of the pen would turn into what was written") {
    constexpr std::array<std::string_view, 6> known{"timeout",         "start_timeout", "size",
                                                    "max_connections", "environment",   "bytes"};
    CHECK(nearest_name("tiemout", known) == "timeout");
    CHECK(nearest_name("Timeout", known) == "timeout");
    CHECK(nearest_name("start-timeout", known) == "start_timeout");
    CHECK(nearest_name("byte", known) == "bytes");
    CHECK(nearest_name("max_conn", known) == "max_connections");
    CHECK(nearest_name("env", known) == "environment");
    CHECK(nearest_name("colour", known).empty());
    CHECK(nearest_name("", known).empty());
    CHECK(nearest_name("timeout", {}).empty());
    CHECK(nearest_name(std::string(1000, 't'), known).empty());
}

}  // namespace penstock
