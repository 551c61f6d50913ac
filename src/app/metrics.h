// /metrics: turns the counters of all threads, the Status and what the kernel knows into Prometheus families,
// when somebody scrapes. Main thread. What it reads from outlives it.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <string>
#include <vector>

#include "app/status.h"
#include "base/counters.h"

namespace penstock {

class Metrics final : public prometheus::Collectable {
  public:
    Metrics(const SeriesBook& series, StatusSource& source) : series_(series), source_(source) {}

    std::vector<prometheus::MetricFamily> Collect() const override;
    std::string text() const;  // of Prometheus' exposition format

    static constexpr std::string_view content_type = "text/plain; version=0.0.4; charset=utf-8";

  private:
    const SeriesBook& series_;
    StatusSource& source_;
};

}  // namespace penstock
