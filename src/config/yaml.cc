#include "config/yaml.h"

#include <algorithm>
#include <fmt/format.h>
#include <sstream>
#include <unordered_map>
#include <unordered_set>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "base/text.h"

namespace penstock {

namespace {

// Leaves yaml-cpp's parser; caught in parse().
struct Refused {
    YamlError error;
};

Place place_of(const YAML::Mark& mark) {
    return mark.is_null() ? Place{} : Place{mark.line + 1, mark.column + 1};
}

[[noreturn]] void refuse(Place place, std::string message) {
    throw Refused{YamlError{place, std::move(message)}};
}

// The tags that mean what we would read anyway. "!" is a quoted scalar, "?" a plain one.
bool is_harmless_tag(std::string_view tag) {
    constexpr std::string_view core = "tag:yaml.org,2002:";
    if (tag.empty() || tag == "!" || tag == "?") return true;
    if (!tag.starts_with(core)) return false;
    tag.remove_prefix(core.size());
    return tag == "str" || tag == "int" || tag == "bool" || tag == "float" || tag == "seq" || tag == "map" ||
           tag == "null";
}

}  // namespace

class YamlBuilder : public YAML::EventHandler {
  public:
    YamlTree take() { return std::move(tree_); }

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, anchor, {}); }

    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& text) override {
        check_tag(mark, tag);
        if (text.find('\0') != std::string::npos) {
            refuse(place_of(mark), "a zero byte inside a value; remove it");
        }
        YamlValue value;
        value.kind = YamlValue::Kind::scalar;
        value.text = text;
        value.values += text.size() / 256;  // so that aliases of a long text are bounded too
        leaf(mark, anchor, std::move(value));
    }

    void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        auto found = anchors_.find(anchor);
        if (found == anchors_.end()) {
            refuse(place_of(mark), "an alias (*) inside of what it stands for; write the value out");
        }
        place(found->second, place_of(mark));
    }

    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, YamlValue::Kind::list);
    }

    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, YamlValue::Kind::map);
    }

    void OnSequenceEnd() override { close(); }

    void OnMapEnd() override {
        merge(tree_.values_[open_.back().index]);
        close();
    }

  private:
    struct Open {
        uint32_t index;
        YAML::anchor_t anchor;
        bool has_key = false;  // of a map: the next value belongs to the last entry
    };

    static void check_tag(const YAML::Mark& mark, const std::string& tag) {
        if (is_harmless_tag(tag)) return;
        refuse(place_of(mark), fmt::format("the tag {} is not known here; leave it out", tag));
    }

    uint32_t add(const YAML::Mark& mark, YamlValue value) {
        value.place = place_of(mark);
        if (tree_.values_.size() >= YamlTree::most_values) refuse_size(value.place);
        tree_.values_.push_back(std::move(value));
        return static_cast<uint32_t>(tree_.values_.size() - 1);
    }

    [[noreturn]] static void refuse_size(Place where) {
        refuse(where, fmt::format("more than {} values, aliases counted each time; make the file smaller",
                                  YamlTree::most_values));
    }

    void leaf(const YAML::Mark& mark, YAML::anchor_t anchor, YamlValue value) {
        uint32_t index = add(mark, std::move(value));
        if (anchor) anchors_[anchor] = index;
        place(index, place_of(mark));
    }

    void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlValue::Kind kind) {
        check_tag(mark, tag);
        if (open_.size() >= YamlTree::deepest) {
            refuse(place_of(mark), fmt::format("nested more than {} deep; no setting is", YamlTree::deepest));
        }
        YamlValue value;
        value.kind = kind;
        open_.push_back(Open{add(mark, std::move(value)), anchor});
    }

    // A closed list or map becomes the value that its parent was waiting for, and only now an alias can
    // name it: so there are no cycles.
    void close() {
        Open done = open_.back();
        open_.pop_back();
        if (done.anchor) anchors_[done.anchor] = done.index;
        place(done.index, tree_.values_[done.index].place);
    }

    void place(uint32_t index, Place where) {
        if (open_.empty()) {
            tree_.root_ = index;
            return;
        }
        Open& parent = open_.back();
        YamlValue& container = tree_.values_[parent.index];
        if (container.kind == YamlValue::Kind::list) {
            container.items.push_back(index);
        } else if (parent.has_key) {
            container.entries.back().value = index;
            parent.has_key = false;
        } else {
            add_key(container, tree_.values_[index], where);
            parent.has_key = true;
            return;
        }
        container.values += tree_.values_[index].values;
        if (container.values > YamlTree::most_values) refuse_size(where);
    }

    static void add_key(YamlValue& map, const YamlValue& key, Place where) {
        if (key.kind != YamlValue::Kind::scalar) {
            refuse(where, "a key that is no plain text; write key: value");
        }
        if (key.text.size() > 1024) refuse(where, "a key of more than 1024 bytes; write a shorter one");
        map.entries.push_back(YamlValue::Entry{key.text, where, 0});
    }

    // "<<: *a" and "<<: [*a, *b]": what is written out wins, then the earlier one.
    void merge(YamlValue& map) {
        auto is_merge = [](const YamlValue::Entry& entry) { return entry.key == "<<"; };
        if (std::none_of(map.entries.begin(), map.entries.end(), is_merge)) return;
        std::vector<YamlValue::Entry> merged;
        std::unordered_set<std::string> known;
        for (const YamlValue::Entry& entry : map.entries) {
            if (is_merge(entry)) continue;
            known.insert(entry.key);
            merged.push_back(entry);
        }
        for (const YamlValue::Entry& entry : map.entries) {
            if (!is_merge(entry)) continue;
            const YamlValue& source = tree_.values_[entry.value];
            if (source.kind == YamlValue::Kind::list) {
                for (uint32_t item : source.items)
                    merge_from(tree_.values_[item], entry.place, known, merged);
            } else {
                merge_from(source, entry.place, known, merged);
            }
        }
        map.entries = std::move(merged);
    }

    static void merge_from(const YamlValue& source, Place where, std::unordered_set<std::string>& known,
                           std::vector<YamlValue::Entry>& merged) {
        if (source.kind != YamlValue::Kind::map) {
            refuse(where, "<< merges only mappings; write <<: *name of one, or a list of such");
        }
        for (const YamlValue::Entry& entry : source.entries) {
            if (known.insert(entry.key).second) merged.push_back(entry);
        }
    }

    YamlTree tree_;
    std::vector<Open> open_;
    std::unordered_map<YAML::anchor_t, uint32_t> anchors_;
};

namespace {

YamlTree only_document(std::string_view text) {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    YamlBuilder builder;
    if (!parser.HandleNextDocument(builder)) refuse({}, "is empty; write at least upstreams");
    YamlBuilder second;
    if (parser.HandleNextDocument(second)) {
        YamlTree rest = second.take();
        refuse(rest[rest.root()].place, "a second document in the file; remove the line --- before it");
    }
    return builder.take();
}

tl::unexpected<YamlError> failed(Place place, std::string message) {
    return tl::unexpected(YamlError{place, std::move(message)});
}

}  // namespace

tl::expected<YamlTree, YamlError> YamlTree::parse(std::string_view text) {
    if (text.size() > largest_file) {
        return failed({}, fmt::format("is longer than {}; make it smaller", format_size(largest_file)));
    }
    try {
        return only_document(text);
    } catch (const Refused& refused) {
        return tl::unexpected(refused.error);
    } catch (const YAML::Exception& e) {
        return failed(
            place_of(e.mark),
            fmt::format("not valid YAML: {}; check the indentation, colons, quotes and brackets here",
                        e.msg));
    } catch (const std::exception& e) {
        return failed({}, fmt::format("not readable as YAML: {}; write plain UTF-8 text", e.what()));
    }
}

}  // namespace penstock
