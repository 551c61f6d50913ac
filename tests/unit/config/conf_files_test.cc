// The files under conf/ are documentation, and documentation that nobody runs gets old.
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <set>
#include <sstream>

#include "config/unsupported.h"
#include "config/yaml.h"
#include "loading.h"

namespace penstock {

namespace {

std::filesystem::path conf() { return PENSTOCK_SOURCE_DIR "/conf"; }

std::string contents(const std::filesystem::path& path) {
    std::ifstream file(path);
    REQUIRE(file.is_open());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// What stands behind the '#' of an example: a key or an item of a list, as prose is not.
bool is_example(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.starts_with("- ")) return true;
    size_t colon = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_");
    return colon != text.npos && colon > 0 && text[colon] == ':';
}

// The reference with its examples switched on.
std::string reference_with_examples() {
    std::stringstream lines(contents(conf() / "reference.yaml"));
    std::string out;
    for (std::string line; std::getline(lines, line);) {
        if (line.find("tcp: true") != std::string::npos) continue;  // stands for what path does
        size_t hash = line.find_first_not_of(' ');
        if (hash != std::string::npos && line[hash] == '#' &&
            is_example(std::string_view(line).substr(hash + 1))) {
            line.erase(hash, 1);
        }
        out += line + "\n";
    }
    return out;
}

// The tree as YAML again, with one key that is unknown in each mapping.
void write_with_stranger(const YamlTree& tree, uint32_t index, std::string& out) {
    const YamlValue& value = tree[index];
    if (value.kind == YamlValue::Kind::scalar) {
        REQUIRE(value.text.find_first_of("\"\\") == std::string::npos);  // needs no escaping
        out += fmt::format("\"{}\"", value.text);
    } else if (value.kind == YamlValue::Kind::list) {
        out += "[";
        for (uint32_t item : value.items) {
            write_with_stranger(tree, item, out);
            out += ", ";
        }
        out += "]";
    } else {
        out += "{";
        for (const YamlValue::Entry& entry : value.entries) {
            out += entry.key + ": ";
            write_with_stranger(tree, entry.value, out);
            out += ", ";
        }
        out += "qqqqqqqqqqqqqqqqqqqqqqqq: 1}";
    }
}

}  // namespace

TEST_CASE("every file under conf/ is right and asks for nothing that this version can't do") {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(conf())) {
        if (entry.path().extension() != ".yaml") continue;
        ++files;
        CAPTURE(entry.path().string());
        Loaded loaded = load(contents(entry.path()), entry.path().filename(), Surroundings{2, {}});
        CHECK(joined(loaded.errors) == "");
        CHECK(joined(loaded.warnings) == "");
        CHECK(joined(unsupported(loaded.config, loaded.places)) == "");
    }
    CHECK(files >= 2);
}

TEST_CASE("the reference says the defaults") {
    Loaded reference = load_text(contents(conf() / "reference.yaml"));
    Loaded least = load_text(contents(conf() / "minimal.yaml"));
    CHECK(reference.config.listen == least.config.listen);
    CHECK(reference.config.limits == least.config.limits);
    CHECK(reference.config.upstreams[0].workers == least.config.upstreams[0].workers);
    CHECK(reference.config.upstreams[0] == least.config.upstreams[0]);
    CHECK(reference.config == least.config);
}

TEST_CASE("the examples of the reference are right, and say the defaults of what they switch on") {
    Loaded loaded = load_text(reference_with_examples());
    CHECK(joined(loaded.errors) == "");
    REQUIRE(loaded.config.upstreams.size() == 1);
    const Upstream& app = loaded.config.upstreams[0];
    OutlierDetection outlier;
    outlier.success_rate.emplace();
    outlier.failure_percentage.emplace();
    CHECK(app.outlier_detection == outlier);
    CHECK(app.health_check == HealthCheck{});
    CHECK(app.servers.size() == 3);
    CHECK(app.servers[0].weight == Server{}.weight);
    CHECK(app.tls->verify == BackendTls{}.verify);
    CHECK(loaded.config.routes.size() == 2);
    CHECK(loaded.config.rate_limits.size() == 3);
    CHECK(loaded.config.devices.size() == 1);
}

TEST_CASE("the reference knows every setting that load() knows") {
    auto tree = YamlTree::parse(reference_with_examples());
    REQUIRE(tree);
    std::string text;
    write_with_stranger(*tree, tree->root(), text);
    Loaded loaded = load_text(text);
    Places plain = load_text(reference_with_examples()).places;

    // What one entry of these lists leaves out, another says; and these keys are words of their own.
    std::set<std::string> elsewhere{"certificates", "tcp", "grpc"};
    for (const char* key :
         {"path", "prefix",          "host",        "methods", "headers", "strip_prefix", "timeouts",
          "rate", "burst",           "concurrency", "match",   "resolve", "weight",       "backup",
          "hash", "max_connections", "delay",       "cost",    "dry_run", "keys",         "ipv6_prefix"}) {
        elsewhere.insert(key);
    }
    int sections = 0;
    std::string_view known = "unknown key; known here: ";
    for (const Problem& problem : loaded.errors) {
        if (!problem.message.starts_with(known)) continue;
        ++sections;
        std::string section = problem.path.substr(0, problem.path.rfind("qqqq") - 20);
        std::stringstream keys(problem.message.substr(known.size()));
        for (std::string key; std::getline(keys, key, ',');) {
            key = std::string(trim(key));
            CHECK_MESSAGE((plain.has(section + key) || elsewhere.count(key)),
                          fmt::format("{}{} is missing in conf/reference.yaml", section, key));
        }
    }
    CHECK(sections > 30);
}

}  // namespace penstock
