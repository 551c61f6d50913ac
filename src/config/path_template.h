// {name} in a route's path, as in /v2/models/{model}/infer: what the names are, and whether the text is
// well formed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock {

// The names in the order of the text. Two that touch, two that are equal, and braces that don't match are
// refused.
Result<std::vector<std::string>> template_names(std::string_view text);

}  // namespace penstock
