// Values as people write them: durations, sizes, rates and percentages, there and back; and the few text
// functions that several floors need. What format_x writes, parse_x reads as the same value.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/time.h"

namespace penstock {

constexpr uint64_t KiB = 1024;
constexpr uint64_t MiB = 1024 * KiB;
constexpr uint64_t GiB = 1024 * MiB;

// So many per so long: 100/s, 600/m, 5000/h.
struct Rate {
    uint64_t count = 0;
    Duration per{};

    friend bool operator==(const Rate&, const Rate&) = default;
};

// Each error says what was found and what would be right, in one line.
Result<Duration> parse_duration(std::string_view text);  // 250ms 10s 1.5m 1h; 0 needs no unit
Result<uint64_t> parse_size(std::string_view text);      // 64KiB 10MiB 1.5GiB; a plain number is bytes
Result<Rate> parse_rate(std::string_view text);          // 100/s 600/m 5000/h
Result<double> parse_percent(std::string_view text);     // 10% is 0.1

std::string format_duration(Duration d);
std::string format_size(uint64_t bytes);
std::string format_rate(Rate rate);
std::string format_percent(double fraction);

// Decimal digits only, all of them, and no overflow; else nothing.
std::optional<uint64_t> parse_number(std::string_view text);
std::optional<double> parse_decimal(std::string_view text);  // 2 or 1.9: at most 6 digits after the point

// ASCII only: names in HTTP and configuration files.
bool equal_ignoring_case(std::string_view a, std::string_view b);
std::string lower_case(std::string_view text);
std::string_view trim(std::string_view text);  // spaces, tabs, CR and LF at both ends

// The known name that `wrong` was probably meant to be; empty when none is near.
std::string_view nearest_name(std::string_view wrong, std::span<const std::string_view> known);

}  // namespace penstock
