// Loading text in tests: on a machine with two cores, HOME, COUNT and EMPTY in its environment.
#pragma once

#include <doctest/doctest.h>
#include <string>
#include <string_view>
#include <vector>

#include "config/load.h"

namespace penstock {

inline Loaded load_text(std::string_view text) {
    Surroundings surroundings{2, {{"HOME", "/home/me"}, {"COUNT", "3"}, {"EMPTY", ""}}};
    return load(text, "p.yaml", surroundings);
}

inline std::vector<std::string> texts(const std::vector<Problem>& problems) {
    std::vector<std::string> out;
    for (const Problem& problem : problems) out.push_back(problem.text());
    return out;
}

inline std::string joined(const std::vector<Problem>& problems) {
    std::string out;
    for (const Problem& problem : problems) out += problem.text() + "\n";
    return out;
}

// What loading says is wrong, a line each.
inline std::string errors_of(std::string_view text) { return joined(load_text(text).errors); }
inline std::string warnings_of(std::string_view text) {
    Loaded loaded = load_text(text);
    return joined(loaded.errors) + joined(loaded.warnings);
}

// `settings` (YAML in flow style, without the braces) of an upstream with one server.
inline std::string with_server(std::string_view settings) {
    return "upstreams: {a: {servers: [10.0.0.1:80], " + std::string(settings) + "}}\n";
}

// The same with workers: `settings` of the upstream, and of the workers.
inline std::string with_workers(std::string_view settings, std::string_view workers = "") {
    return "upstreams:\n  a:\n    workers: {command: \"serve ${SOCKET}\", " + std::string(workers) + "}\n" +
           (settings.empty() ? std::string() : "    " + std::string(settings) + "\n");
}

// What loads without an error; its one upstream.
inline Config good(std::string_view text) {
    Loaded loaded = load_text(text);
    CHECK(joined(loaded.errors) == "");
    return loaded.config;
}

inline Upstream upstream(std::string_view text) {
    Config config = good(text);
    REQUIRE(config.upstreams.size() == 1);
    return config.upstreams[0];
}

// Other settings beside a good upstream.
inline std::string beside(std::string_view settings) {
    return std::string(settings) + "\nupstreams: {a: {servers: [10.0.0.1:80]}}\n";
}

}  // namespace penstock
