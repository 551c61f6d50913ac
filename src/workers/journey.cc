#include "workers/journey.h"

#include <fmt/format.h>

namespace penstock {

void Journey::tried(std::string outcome) {
    if (outcome != outcome_) tries_ = 0;
    outcome_ = std::move(outcome);
    ++tries_;
}

std::string Journey::text() const {
    if (exec_at_ == never) return "exec not done";
    std::string text = fmt::format("exec ok {:.2f}s", seconds(exec_at_ - begun_));
    if (open_at_ == never) {
        text += fmt::format(", {} never open", where_);
    } else {
        text += fmt::format(", {} open {:.2f}s", where_, seconds(open_at_ - begun_));
    }
    if (tries_ > 0) text += fmt::format(", {} ({} {})", outcome_, tries_, tries_ == 1 ? "try" : "tries");
    return text;
}

}  // namespace penstock
