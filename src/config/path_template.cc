#include "config/path_template.h"

#include <algorithm>
#include <fmt/format.h>

namespace penstock {

namespace {

bool is_name(std::string_view name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    });
}

}  // namespace

Result<std::vector<std::string>> template_names(std::string_view text) {
    std::vector<std::string> names;
    size_t at = 0;
    while (at < text.size()) {
        size_t open = text.find_first_of("{}", at);
        if (open == text.npos) break;
        size_t close = text.find_first_of("{}", open + 1);
        if (text[open] == '}' || close == text.npos || text[close] == '{') {
            return failure(fmt::format("\"{}\" has a brace without its other half; write {{name}}", text));
        }
        std::string_view name = text.substr(open + 1, close - open - 1);
        if (!is_name(name)) {
            return failure(
                fmt::format("\"{{{}}}\" is not a name; write letters, digits and _ inside the braces", name));
        }
        if (at > 0 && open == at) {
            return failure(fmt::format("\"{}\" has two names that touch; put something between them", text));
        }
        if (std::find(names.begin(), names.end(), name) != names.end()) {
            return failure(fmt::format("\"{{{}}}\" is there twice; give the two different names", name));
        }
        names.emplace_back(name);
        at = close + 1;
    }
    return names;
}

}  // namespace penstock
