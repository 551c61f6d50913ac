// A request target and its parts. We route on a normalised copy of the path and forward the bytes that came.
// That is safe only while backend and router cannot read the same bytes as two different places, so
// what could be read in two ways is refused: see routing_path().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "http/head.h"
#include "http/rules.h"

namespace penstock {

struct Target {
    enum class Form : uint8_t { origin, absolute, authority, asterisk };

    Form form = Form::origin;
    std::string_view scheme;     // absolute only
    std::string_view authority;  // absolute and authority only: host, with port where one is given
    std::string_view path;       // as sent; may be empty in absolute form, which means "/"
    std::string_view query;      // without the '?'
    std::string_view origin;     // path and query as sent: what goes to an origin server; never empty
};

// The form must fit the method: authority for CONNECT alone, asterisk for OPTIONS alone. Only visible ASCII,
// no
// '#', no user information.
Rule parse_target(Method method, std::string_view text, Target& target);

// The path on which routes are matched: escapes of unreserved characters decoded ("%41" is "A"), others kept
// in upper case ("%2F" stays and separates nothing), dot segments resolved. Slashes are not merged. Refused:
// a broken escape or one of a control character or DEL (target_escape); climbing above the root
// (path_above_root); dot segments that exist only for who decodes "%2f" or "%5c" or takes '\' for
// '/' (path_ambiguous). `out` needs path.size() + 1 bytes; `size` is what was used.
Rule routing_path(std::string_view path, char* out, size_t& size);

// What to send instead of the target when the route strips `prefix` ("/api" and "/api/" do the same): never
// empty; the writer puts '/' before what has none. The bytes that came are kept as they are unless the prefix
// was found, or could be climbed out of, only by normalising; then the rest of `routed` (routing_path's
// result) is sent.
std::string_view strip_prefix(const Target& target, std::string_view routed, std::string_view prefix,
                              Arena& arena);

// "host", "host:80", "[::1]:80": the same place for this scheme? Letter case and a default port do not
// matter.
bool same_authority(std::string_view a, std::string_view b, std::string_view scheme);
// Host without its port and in its brackets.
std::string_view host_of(std::string_view authority);

}  // namespace penstock
