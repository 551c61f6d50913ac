#include "config/unsupported.h"

#include <fmt/format.h>

namespace penstock {

namespace {

class Refusals {
  public:
    explicit Refusals(const Places& places) : places_(places) {}

    void add(std::string path, std::string_view what, std::string_view instead = "leave it out") {
        found_.push_back(places_.problem(std::move(path),
                                         fmt::format("{} not supported by this version; {}", what, instead)));
    }
    std::vector<Problem> take() {
        sort_by_place(found_);
        return std::move(found_);
    }

  private:
    const Places& places_;
    std::vector<Problem> found_;
};

}  // namespace

std::vector<Problem> unsupported(const Config& config, const Places& places) {
    Refusals out(places);
    if (!config.devices.empty()) out.add("devices", "slots of devices are");
    return out.take();
}

}  // namespace penstock
