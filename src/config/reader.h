// Reads a YamlTree into structs and notes everything that is wrong on the way, instead of stopping at the
// first. A Section is one mapping; each call names a key, its type and its bounds, and leaves `out` (the
// default) alone when the key is absent or wrong. Keys that nobody asked for are refused when the section
// ends, with the nearest that somebody did: so the list of known keys can't get old.
//
// Value and Section point into the Reader and its tree: they live only while it reads.
#pragma once

#include <fmt/format.h>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/text.h"
#include "base/time.h"
#include "config/load.h"
#include "config/problem.h"
#include "config/yaml.h"

namespace penstock {

struct Reader {
    static constexpr size_t most_errors = 100;  // nobody reads more, and a suggestion for each costs

    const YamlTree& tree;
    const Variables& variables;
    std::string file;
    Places places;
    std::vector<Problem> errors;
    size_t unsaid = 0;  // errors beyond most_errors

    bool is_full() const { return errors.size() >= most_errors; }
    void error(Place place, std::string path, std::string message);
};

template <class T>
struct Choice {
    std::string_view name;
    T value;
};

class Section;

// One value with its path. What a read_x can't read becomes an error, and the answer is nothing.
class Value {
  public:
    Value(Reader& reader, uint32_t index, std::string path)
        : reader_(&reader), node_(&reader.tree[index]), place_(node_->place), path_(std::move(path)) {}

    const std::string& path() const { return path_; }
    bool is_scalar() const { return node_->kind == YamlValue::Kind::scalar; }
    bool is_list() const { return node_->kind == YamlValue::Kind::list; }
    bool is_map() const { return node_->kind == YamlValue::Kind::map; }
    void error(std::string message) const { reader_->error(place_, path_, std::move(message)); }

    std::optional<std::string> text() const;  // ${NAME} replaced; not empty
    std::optional<std::string> text_or_empty() const;
    std::optional<std::string> command_text() const;  // the placeholders of workers stay
    std::optional<bool> flag() const;
    std::optional<uint64_t> number(uint64_t least, uint64_t most) const;
    std::optional<Duration> duration() const { return parsed(parse_duration); }
    std::optional<uint64_t> size() const { return parsed(parse_size); }
    std::optional<Rate> rate() const { return parsed(parse_rate); }
    std::optional<double> percent() const { return parsed(parse_percent); }
    std::optional<Address> address() const { return parsed(parse_address); }
    std::optional<Network> network() const { return parsed(parse_network); }

    template <class T>
    std::optional<T> choice(std::initializer_list<Choice<T>> choices) const;

    // The items of a list; of anything else an error and none.
    std::vector<Value> items(std::string_view example) const;

    // Reads a mapping by read(Section&) and then refuses the keys that it did not ask for.
    template <class Read>
    void section(Read read) const;

  private:
    friend class Section;

    template <class T>
    std::optional<T> parsed(Result<T> (*parse)(std::string_view)) const;

    std::optional<std::string> filled(bool keep_placeholders) const;
    bool expect(YamlValue::Kind kind, std::string_view right) const;
    std::string not_one_of(std::string_view found, const std::vector<std::string_view>& names) const;

    Reader* reader_;
    const YamlValue* node_;
    Place place_;
    std::string path_;
};

class Section {
  public:
    explicit Section(const Value& value);

    const std::string& path() const { return value_.path(); }
    bool has(std::string_view key) const;  // does not make the key known
    void error(std::string_view key, std::string message) const;
    void know(std::string_view key) { known_.push_back(key); }

    // The value of a key, for what the calls below don't cover.
    std::optional<Value> value(std::string_view key);

    void text(std::string_view key, std::string& out) { take(key, out, &Value::text); }
    void text_or_empty(std::string_view key, std::string& out) { take(key, out, &Value::text_or_empty); }
    void flag(std::string_view key, bool& out) { take(key, out, &Value::flag); }
    void size(std::string_view key, uint64_t& out, uint64_t least = 0, uint64_t most = UINT64_MAX);
    void duration(std::string_view key, Duration& out, Duration least = {});
    void duration(std::string_view key, std::optional<Duration>& out);
    void percent(std::string_view key, double& out) { take(key, out, &Value::percent); }
    void texts(std::string_view key, std::vector<std::string>& out, std::string_view example);

    template <class T>
    void number(std::string_view key, T& out, uint64_t least = 0,
                uint64_t most = std::numeric_limits<T>::max());
    template <class T>
    void choice(std::string_view key, T& out, std::initializer_list<Choice<T>> choices);

    // read(Section&) of the mapping at `key`, if there is one.
    template <class Read>
    bool section(std::string_view key, Read read);

    // read(const Value&) of each item of the list at `key`.
    template <class Read>
    void list(std::string_view key, std::string_view example, Read read);

    // read(const std::string& name, const Value&) of each entry: a mapping whose keys the user chooses.
    template <class Read>
    void named(std::string_view key, Read read);

    void refuse_unknown() const;

  private:
    template <class T>
    void take(std::string_view key, T& out, std::optional<T> (Value::*read)() const);

    Reader& reader() const { return *value_.reader_; }
    Value at(const YamlValue::Entry& entry) const;
    std::string path_of(std::string_view key) const;

    Value value_;
    std::vector<std::string_view> known_;  // string literals of the calls
};

// -- templates

template <class T>
std::optional<T> Value::parsed(Result<T> (*parse)(std::string_view)) const {
    auto found = text();
    if (!found) return std::nullopt;
    if (found->size() > 512) {
        error(fmt::format("is {} bytes long, which no such value is; write a shorter one", found->size()));
        return std::nullopt;
    }
    auto result = parse(*found);
    if (result) return std::move(*result);
    error(result.error().message);
    return std::nullopt;
}

template <class T>
std::optional<T> Value::choice(std::initializer_list<Choice<T>> choices) const {
    auto found = text();
    if (!found) return std::nullopt;
    std::vector<std::string_view> names;
    for (const Choice<T>& choice : choices) {
        if (choice.name == *found) return choice.value;
        names.push_back(choice.name);
    }
    error(not_one_of(*found, names));
    return std::nullopt;
}

template <class Read>
void Value::section(Read read) const {
    if (!expect(YamlValue::Kind::map, "write keys with values, as in {key: value}")) return;
    Section inner(*this);
    read(inner);
    inner.refuse_unknown();
}

template <class T>
void Section::number(std::string_view key, T& out, uint64_t least, uint64_t most) {
    static_assert(std::is_unsigned_v<T>);
    auto found = value(key);
    if (!found) return;
    if (auto number = found->number(least, most)) out = static_cast<T>(*number);
}

template <class T>
void Section::choice(std::string_view key, T& out, std::initializer_list<Choice<T>> choices) {
    auto found = value(key);
    if (!found) return;
    if (auto chosen = found->choice(choices)) out = *chosen;
}

template <class Read>
bool Section::section(std::string_view key, Read read) {
    auto found = value(key);
    if (found) found->section(read);
    return found.has_value();
}

template <class Read>
void Section::list(std::string_view key, std::string_view example, Read read) {
    auto found = value(key);
    if (!found) return;
    for (const Value& item : found->items(example)) read(item);
}

template <class Read>
void Section::named(std::string_view key, Read read) {
    auto found = value(key);
    if (!found || !found->expect(YamlValue::Kind::map, "write name: value")) return;
    Section inner(*found);  // refuses duplicates
    std::unordered_set<std::string_view> seen;
    for (const YamlValue::Entry& entry : found->node_->entries) {
        if (seen.insert(entry.key).second) read(entry.key, inner.at(entry));
    }
}

template <class T>
void Section::take(std::string_view key, T& out, std::optional<T> (Value::*read)() const) {
    auto found = value(key);
    if (!found) return;
    if (auto result = ((*found).*read)()) out = std::move(*result);
}

}  // namespace penstock
