// Heads as the real reader sees them.
#pragma once

#include <string_view>

#include "codec/h1_reader.h"

namespace penstock::sim {

// Both point into the text, and into fields that the next call overwrites: copy_head() them.
struct ParsedRequest {
    Head head;
    Framing framing;
};
struct ParsedResponse {
    Head head;
    Framing framing;
};
ParsedRequest parse_request(std::string_view text);
ParsedResponse parse_response(std::string_view text, const Asked& asked);

// Requests are numbered in their target: /pool0/17.
uint32_t number_of(const Head& request);

}  // namespace penstock::sim
