#include "base/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <vector>

namespace penstock {

namespace {

struct Unit {
    std::string_view name;
    uint64_t size;
};

// Largest first, so that formatting finds the largest that divides.
constexpr std::array<Unit, 6> duration_units{{{"h", 3'600'000'000'000},
                                              {"m", 60'000'000'000},
                                              {"s", 1'000'000'000},
                                              {"ms", 1'000'000},
                                              {"us", 1'000},
                                              {"ns", 1}}};
constexpr std::array<Unit, 5> size_units{
    {{"TiB", 1024 * GiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}};

// Ten years: far from overflow when added to a clock, and longer than anybody means.
constexpr uint64_t longest_ns = 10ull * 365 * 24 * 3'600'000'000'000;
constexpr uint64_t largest_size = uint64_t{1} << 60;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

const Unit* unit_named(std::span<const Unit> units, std::string_view name) {
    for (const Unit& unit : units) {
        if (unit.name == name) return &unit;
    }
    return nullptr;
}

// A decimal number and what follows it. At most 6 digits after the point: the product with the
// largest unit then fits 64 bits.
struct Amount {
    uint64_t whole = 0;
    uint64_t fraction = 0;
    uint64_t fraction_scale = 1;
    std::string_view number;
    std::string_view unit;

    bool is_zero() const { return whole == 0 && fraction == 0; }

    double decimal() const {
        return static_cast<double>(whole) +
               static_cast<double>(fraction) / static_cast<double>(fraction_scale);
    }

    std::optional<uint64_t> times(uint64_t unit_size, uint64_t limit) const {
        if (whole > limit / unit_size) return std::nullopt;
        uint64_t total = whole * unit_size + fraction * unit_size / fraction_scale;
        if (total > limit) return std::nullopt;
        return total;
    }
};

std::optional<Amount> split_amount(std::string_view text) {
    size_t digits = 0;
    while (digits < text.size() && is_digit(text[digits])) ++digits;
    auto whole = parse_number(text.substr(0, digits));
    if (!whole) return std::nullopt;
    Amount amount;
    amount.whole = *whole;
    size_t at = digits;
    if (at < text.size() && text[at] == '.') {
        size_t end = ++at;
        while (end < text.size() && is_digit(text[end])) {
            amount.fraction = amount.fraction * 10 + static_cast<uint64_t>(text[end] - '0');
            amount.fraction_scale *= 10;
            ++end;
        }
        if (end == at || end - at > 6) return std::nullopt;
        at = end;
    }
    amount.number = text.substr(0, at);
    amount.unit = trim(text.substr(at));
    return amount;
}

std::string format_in_units(uint64_t value, std::span<const Unit> units) {
    for (const Unit& unit : units) {
        if (value % unit.size == 0) return fmt::format("{}{}", value / unit.size, unit.name);
    }
    return {};  // not reached: the last unit is 1
}

// 64KB, 64K, 64k: the unit that was probably meant.
std::string_view binary_unit_like(std::string_view unit) {
    switch (unit.empty() ? ' ' : lower(unit[0])) {
        case 'k': return "KiB";
        case 'm': return "MiB";
        case 'g': return "GiB";
        case 't': return "TiB";
        default: return {};
    }
}

// Edits (insert, delete, replace, swap of neighbours) that turn a into b.
size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        next[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            size_t replace = row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            next[j] = std::min({replace, row[j] + 1, next[j - 1] + 1});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                next[j] = std::min(next[j], before[j - 2] + 1);
            }
        }
        before.swap(row);
        row.swap(next);
    }
    return row[b.size()];
}

std::string comparable_name(std::string_view name) {
    std::string out = lower_case(name);
    std::replace(out.begin(), out.end(), '-', '_');
    return out;
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
    constexpr std::string_view right = "write a duration such as 250ms, 10s, 5m or 1h";
    std::string_view trimmed = trim(text);
    if (trimmed.starts_with('-')) return failure(fmt::format("\"{}\" is negative; {}", text, right));
    auto amount = split_amount(trimmed);
    if (!amount) return failure(fmt::format("\"{}\" is not a duration; {}", text, right));
    if (amount->unit.empty()) {
        if (amount->is_zero()) return Duration::zero();
        return failure(fmt::format("\"{}\" has no unit; write {}s for seconds, or {}ms", text, amount->number,
                                   amount->number));
    }
    const Unit* unit = unit_named(duration_units, amount->unit);
    if (!unit) return failure(fmt::format("\"{}\" is not a duration; {}", text, right));
    auto ns = amount->times(unit->size, longest_ns);
    if (!ns) return failure(fmt::format("\"{}\" is too long; at most 87600h", text));
    return Duration(static_cast<Duration::rep>(*ns));
}

Result<uint64_t> parse_size(std::string_view text) {
    constexpr std::string_view right = "write a size such as 64KiB, 10MiB or 8GiB";
    std::string_view trimmed = trim(text);
    if (trimmed.starts_with('-')) return failure(fmt::format("\"{}\" is negative; {}", text, right));
    auto amount = split_amount(trimmed);
    if (!amount) return failure(fmt::format("\"{}\" is not a size; {}", text, right));
    const Unit* unit = unit_named(size_units, amount->unit.empty() ? "B" : amount->unit);
    if (!unit) {
        std::string_view meant = binary_unit_like(amount->unit);
        if (meant.empty()) return failure(fmt::format("\"{}\" is not a size; {}", text, right));
        return failure(
            fmt::format("\"{}\" has a unit that is not known here; write {}{}", text, amount->number, meant));
    }
    if (unit->size == 1 && amount->fraction_scale > 1) {
        return failure(fmt::format("\"{}\" is not a whole number of bytes; {}", text, right));
    }
    auto bytes = amount->times(unit->size, largest_size);
    if (!bytes) return failure(fmt::format("\"{}\" is too large; {}", text, right));
    return *bytes;
}

Result<Rate> parse_rate(std::string_view text) {
    constexpr std::string_view right = "write a rate such as 100/s, 600/m or 5000/h";
    std::string_view trimmed = trim(text);
    size_t slash = trimmed.find('/');
    if (slash == std::string_view::npos) {
        return failure(fmt::format("\"{}\" is not a rate; {}", text, right));
    }
    auto count = parse_number(trim(trimmed.substr(0, slash)));
    const Unit* unit = unit_named(duration_units, trim(trimmed.substr(slash + 1)));
    // s, m and h only: a rate per millisecond is a slip of the pen.
    if (!count || !unit || unit->size < 1'000'000'000 || *count > 1'000'000'000'000) {
        return failure(fmt::format("\"{}\" is not a rate; {}", text, right));
    }
    if (*count == 0) return failure(fmt::format("\"{}\" would let nothing pass; {}", text, right));
    return Rate{*count, Duration(static_cast<Duration::rep>(unit->size))};
}

Result<double> parse_percent(std::string_view text) {
    std::string_view trimmed = trim(text);
    auto amount = split_amount(trimmed);
    if (!amount || amount->unit != "%") {
        return failure(fmt::format("\"{}\" is not a percentage; write one such as 10%", text));
    }
    double percent = amount->decimal();
    if (percent > 100) return failure(fmt::format("\"{}\" is more than the whole; at most 100%", text));
    return percent / 100;
}

std::string format_duration(Duration d) {
    if (d == Duration::zero()) return "0";
    if (d < Duration::zero()) return fmt::format("-{}", format_duration(-d));
    return format_in_units(static_cast<uint64_t>(d.count()), duration_units);
}

std::string format_size(uint64_t bytes) {
    if (bytes == 0) return "0";
    return format_in_units(bytes, size_units);
}

std::string format_rate(Rate rate) {
    std::string per = format_duration(rate.per);
    return fmt::format("{}/{}", rate.count, per.starts_with('1') ? per.substr(1) : per);
}

std::string format_percent(double fraction) {
    // Six digits, as many as are read; {:g} drops the zeros behind.
    return fmt::format("{:.9g}%", std::round(fraction * 1e8) / 1e6);
}

std::optional<uint64_t> parse_number(std::string_view text) {
    if (text.empty()) return std::nullopt;
    constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
    uint64_t value = 0;
    for (char c : text) {
        if (!is_digit(c)) return std::nullopt;
        auto digit = static_cast<uint64_t>(c - '0');
        if (value > (most - digit) / 10) return std::nullopt;
        value = value * 10 + digit;
    }
    return value;
}

std::optional<double> parse_decimal(std::string_view text) {
    auto amount = split_amount(text);
    if (!amount || amount->number.size() != text.size()) return std::nullopt;
    return amount->decimal();
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
        if (lower(a[i]) != lower(b[i])) return false;
    }
    return true;
}

std::string lower_case(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = lower(c);
    return out;
}

std::string_view trim(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n";
    size_t begin = text.find_first_not_of(blanks);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::string_view nearest_name(std::string_view wrong, std::span<const std::string_view> known) {
    // Longer ones are no slip of the pen, and the distance costs the product of the lengths.
    constexpr size_t longest = 64;
    if (wrong.empty() || wrong.size() > longest) return {};
    std::string name = comparable_name(wrong);
    std::string_view best;
    size_t best_distance = (name.size() + 2) / 3 + 1;
    for (std::string_view candidate : known) {
        std::string other = comparable_name(candidate);
        size_t distance = edit_distance(name, other);
        // An abbreviation is near however much was left out: max_conn, env, dir.
        if (name.size() >= 3 && other.starts_with(name)) distance = std::min<size_t>(distance, 1);
        if (distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

}  // namespace penstock
