// A YAML document as a plain tree in which every value knows its place in the file. It is built from
// yaml-cpp's events rather than from YAML::Node, so that duplicate keys are seen, the work that a hostile
// file can cause is bounded here (bytes, depth, values after aliases), and exceptions end here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

namespace penstock {

struct Place {
    int line = 0;  // both from 1; 0: no place
    int column = 0;

    bool operator==(const Place&) const = default;
    friend bool operator<(const Place& a, const Place& b) {
        return a.line != b.line ? a.line < b.line : a.column < b.column;
    }
};

struct YamlValue {
    enum class Kind : uint8_t { null, scalar, list, map };
    struct Entry {
        std::string key;
        Place place;  // of the key
        uint32_t value;
    };

    Kind kind = Kind::null;
    Place place;
    std::string text;             // of a scalar
    std::vector<uint32_t> items;  // of a list
    std::vector<Entry> entries;   // of a map, in order, duplicates included; merge keys (<<) are resolved
    size_t values = 1;            // of the whole below it, aliases counted as often as they are used
};

struct YamlError {
    Place place;
    std::string message;
};

class YamlTree {
  public:
    static constexpr size_t largest_file = 1 << 20;
    static constexpr size_t deepest = 50;
    static constexpr size_t most_values = 100'000;

    // Exactly one document, with a value in it.
    static tl::expected<YamlTree, YamlError> parse(std::string_view text);

    uint32_t root() const { return root_; }
    const YamlValue& operator[](uint32_t index) const { return values_[index]; }

  private:
    friend class YamlBuilder;

    std::vector<YamlValue> values_;  // aliases share: the tree is a graph without cycles
    uint32_t root_ = 0;
};

}  // namespace penstock
