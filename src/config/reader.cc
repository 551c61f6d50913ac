#include "config/reader.h"

#include <algorithm>
#include <array>
#include <fmt/ranges.h>
#include <unordered_map>

namespace penstock {

namespace {

constexpr std::array<std::string_view, 4> placeholders{"SOCKET", "PORT", "INDEX", "GPU"};
constexpr size_t longest_text = 64 * KiB;  // once variables are filled in
constexpr size_t longest_shown = 80;

bool is_placeholder(std::string_view name) {
    for (std::string_view known : placeholders) {
        if (known == name) return true;
    }
    return false;
}

bool is_variable_name(std::string_view name) {
    if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
    for (char c : name) {
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!good) return false;
    }
    return true;
}

std::string shown(std::string_view text) {
    if (text.size() <= longest_shown) return std::string(text);
    return fmt::format("{}...", text.substr(0, longest_shown));
}

std::string_view what_is(YamlValue::Kind kind) {
    switch (kind) {
        case YamlValue::Kind::null: return "is empty";
        case YamlValue::Kind::scalar: return "is a single value";
        case YamlValue::Kind::list: return "is a list";
        case YamlValue::Kind::map: return "is a mapping";
    }
    return "";
}

std::string one_of(const std::vector<std::string_view>& names) {
    if (names.size() < 2) return fmt::format("{}", fmt::join(names, ""));
    std::vector<std::string_view> all_but_last(names.begin(), names.end() - 1);
    return fmt::format("{} or {}", fmt::join(all_but_last, ", "), names.back());
}

std::string not_a_variable(std::string_view reference, std::string_view name, bool placeholders_too) {
    if (!is_variable_name(name)) {
        return fmt::format("\"{}\" names no environment variable; write ${{NAME}}, or $${{ for a plain ${{",
                           shown(reference));
    }
    std::string_view near = placeholders_too ? nearest_name(name, placeholders) : std::string_view{};
    if (!near.empty()) {
        return fmt::format("the environment variable {} is not set; did you mean ${{{}}}?", shown(name),
                           near);
    }
    return fmt::format("the environment variable {} is not set; set it, or write the value", shown(name));
}

}  // namespace

void Reader::error(Place place, std::string path, std::string message) {
    if (is_full()) {
        ++unsaid;
        return;
    }
    errors.push_back(Problem{file, place, std::move(path), std::move(message)});
}

// ---- Value

bool Value::expect(YamlValue::Kind kind, std::string_view right) const {
    if (node_->kind == kind) return true;
    if (node_->kind == YamlValue::Kind::null) {
        error("is empty; give it a value or leave it out");
    } else {
        error(fmt::format("{}; {}", what_is(node_->kind), right));
    }
    return false;
}

std::optional<std::string> Value::text() const {
    auto found = filled(false);
    if (found && found->empty()) {
        error("is empty; give it a value or leave it out");
        return std::nullopt;
    }
    return found;
}

std::optional<std::string> Value::text_or_empty() const { return filled(false); }

std::optional<std::string> Value::command_text() const { return filled(true); }

// Replaces ${NAME}; $${ stands for a plain ${.
std::optional<std::string> Value::filled(bool keep_placeholders) const {
    if (!expect(YamlValue::Kind::scalar, "write a single value")) return std::nullopt;
    std::string_view rest = node_->text;
    std::string out;
    bool good = true;
    for (size_t dollar = rest.find("${"); dollar != rest.npos; dollar = rest.find("${")) {
        if (dollar > 0 && rest[dollar - 1] == '$') {
            out += rest.substr(0, dollar - 1);
            out += "${";
            rest.remove_prefix(dollar + 2);
            continue;
        }
        size_t end = rest.find('}', dollar);
        std::string_view reference = rest.substr(dollar, end == rest.npos ? end : end + 1 - dollar);
        std::string_view name = end == rest.npos ? "" : reference.substr(2, reference.size() - 3);
        out += rest.substr(0, dollar);
        rest.remove_prefix(dollar + reference.size());
        if (keep_placeholders && is_placeholder(name)) {
            out += reference;
        } else if (auto variable = reader_->variables.find(name); variable != reader_->variables.end()) {
            out += variable->second;
        } else {
            error(not_a_variable(reference, name, keep_placeholders));
            good = false;
        }
        if (out.size() > longest_text) {
            error(fmt::format("is longer than {} once its variables are filled in; at most that is read",
                              format_size(longest_text)));
            return std::nullopt;
        }
    }
    out += rest;
    if (!good) return std::nullopt;
    return out;
}

std::optional<bool> Value::flag() const { return choice<bool>({{"true", true}, {"false", false}}); }

std::optional<uint64_t> Value::number(uint64_t least, uint64_t most) const {
    auto found = text();
    if (!found) return std::nullopt;
    auto number = parse_number(*found);
    if (number && *number >= least && *number <= most) return number;
    bool numeric = number || (found->starts_with('-') && parse_number(std::string_view(*found).substr(1)));
    std::string_view wrong = numeric ? "is out of range" : "is not a whole number";
    std::string shown_number = numeric ? *found : fmt::format("\"{}\"", shown(*found));
    error(most == std::numeric_limits<uint64_t>::max() || most == std::numeric_limits<uint32_t>::max()
              ? fmt::format("{} {}; give {} or more", shown_number, wrong, least)
              : fmt::format("{} {}; give {} to {}", shown_number, wrong, least, most));
    return std::nullopt;
}

std::vector<Value> Value::items(std::string_view example) const {
    std::vector<Value> out;
    if (!expect(YamlValue::Kind::list, fmt::format("write a list: {}", example))) return out;
    out.reserve(node_->items.size());
    for (uint32_t index : node_->items) {
        out.emplace_back(*reader_, index, fmt::format("{}[{}]", path_, out.size()));
        reader_->places.add(out.back().path_, out.back().node_->place);
    }
    return out;
}

std::string Value::not_one_of(std::string_view found, const std::vector<std::string_view>& names) const {
    std::string_view near = nearest_name(found, names);
    if (near.empty()) return fmt::format("\"{}\" is not known; write {}", shown(found), one_of(names));
    return fmt::format("\"{}\" is not known; did you mean {}?", shown(found), near);
}

// ---- Section

Section::Section(const Value& value) : value_(value) {
    std::unordered_map<std::string_view, Place> seen;
    for (const YamlValue::Entry& entry : value_.node_->entries) {
        auto [first, is_new] = seen.emplace(entry.key, entry.place);
        if (is_new) {
            reader().places.add(path_of(entry.key), entry.place);
            continue;
        }
        reader().error(entry.place, path_of(entry.key),
                       fmt::format("is given twice, first in line {}; keep one", first->second.line));
    }
}

std::optional<Value> Section::value(std::string_view key) {
    known_.push_back(key);
    for (const YamlValue::Entry& entry : value_.node_->entries) {
        if (entry.key == key) return at(entry);
    }
    return std::nullopt;
}

bool Section::has(std::string_view key) const {
    return std::any_of(value_.node_->entries.begin(), value_.node_->entries.end(),
                       [key](const YamlValue::Entry& entry) { return entry.key == key; });
}

void Section::error(std::string_view key, std::string message) const {
    std::string path = path_of(key);
    reader().error(reader().places.of(path), path, std::move(message));
}

void Section::size(std::string_view key, uint64_t& out, uint64_t least, uint64_t most) {
    auto given = value(key);
    auto found = given ? given->size() : std::nullopt;
    if (!found) return;
    if (*found < least) {
        given->error(
            fmt::format("{} is too small; give {} or more", format_size(*found), format_size(least)));
    } else if (*found > most) {
        given->error(fmt::format("{} is too large; give {} or less", format_size(*found), format_size(most)));
    } else {
        out = *found;
    }
}

void Section::duration(std::string_view key, Duration& out, Duration least) {
    auto given = value(key);
    auto found = given ? given->duration() : std::nullopt;
    if (!found) return;
    if (*found < least) {
        given->error(
            fmt::format("{} is too short; give {} or more", format_duration(*found), format_duration(least)));
    } else {
        out = *found;
    }
}

void Section::duration(std::string_view key, std::optional<Duration>& out) {
    if (auto found = value(key)) out = found->duration();
}

void Section::texts(std::string_view key, std::vector<std::string>& out, std::string_view example) {
    auto found = value(key);
    if (!found) return;
    out.clear();
    for (const Value& item : found->items(example)) {
        if (auto text = item.text()) out.push_back(std::move(*text));
    }
}

void Section::refuse_unknown() const {
    for (const YamlValue::Entry& entry : value_.node_->entries) {
        if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
        std::string path = path_of(shown(entry.key));
        std::string_view near = reader().is_full() ? std::string_view{} : nearest_name(entry.key, known_);
        reader().error(entry.place, std::move(path),
                       near.empty() ? fmt::format("unknown key; known here: {}", fmt::join(known_, ", "))
                                    : fmt::format("unknown key; did you mean {}?", near));
    }
}

Value Section::at(const YamlValue::Entry& entry) const {
    Value value(reader(), entry.value, path_of(entry.key));
    if (value.node_->kind == YamlValue::Kind::null) value.place_ = entry.place;  // it has none of its own
    return value;
}

std::string Section::path_of(std::string_view key) const {
    if (path().empty() || key.empty()) return fmt::format("{}{}", path(), key);
    return fmt::format("{}.{}", path(), key);
}

}  // namespace penstock
