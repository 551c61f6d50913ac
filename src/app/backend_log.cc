#include "app/backend_log.h"

#include <fmt/format.h>

namespace penstock {

namespace {

std::string ejected(const BackendChange& change) {
    std::string text =
        fmt::format("is ejected for {:.3f}s: {}", seconds(change.time), to_string(change.reason));
    if (change.row > 1) text += fmt::format(" (ejection {} in a row)", change.row);
    return text;
}

std::string kept(const BackendChange& change) {
    const std::string_view limit = change.verdict == EjectVerdict::min_healthy
                                       ? "too few others are ready (min_healthy)"
                                       : "enough others are ejected (max_ejection_percent)";
    return fmt::format("stays in service in spite of {}: {}", to_string(change.reason), limit);
}

}  // namespace

BackendLine line_of(const BackendChange& change, std::string_view upstream, std::string_view backend) {
    using Kind = BackendChange::Kind;
    log::Level level = log::Level::warn;
    std::string what;
    switch (change.kind) {
        case Kind::suspect: what = "is suspect: a connection to it failed, or ended without an answer"; break;
        case Kind::trusted:
            level = log::Level::info;
            what = "is trusted again: it accepts connections";
            break;
        case Kind::ejected: what = ejected(change); break;
        case Kind::kept: what = kept(change); break;
        case Kind::probed:
            level = log::Level::info;
            what = fmt::format("gets one probing request, {:.3f}s after its ejection", seconds(change.time));
            break;
        case Kind::back:
            level = log::Level::info;
            what = fmt::format("is back, {:.3f}s after its ejection", seconds(change.time));
            break;
    }
    return {level, fmt::format("upstream {}: backend {} {}", upstream, backend, what)};
}

}  // namespace penstock
