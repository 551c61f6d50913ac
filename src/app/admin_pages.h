// What the admin address answers, without sockets: a method and a target in, a page out.
//
//     /metrics   for Prometheus            /healthz   200 while the process runs its loop
//     /status    JSON, for people and us   /readyz    200 where traffic makes sense, else 503 and why
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "app/metrics.h"
#include "app/status.h"
#include "http/head.h"

namespace penstock {

struct Page {
    uint16_t status = 200;
    std::string_view content_type;
    std::string body;
    std::string_view allow;  // of a 405
};

class AdminPages {
  public:
    AdminPages(const SeriesBook& series, StatusSource& source) : metrics_(series, source), source_(source) {}

    // `target` as sent; its query is ignored. HEAD gets the page of GET: leaving out the body is the
    // caller's.
    Page page(Method method, std::string_view target) const;

  private:
    Page ready() const;

    Metrics metrics_;
    StatusSource& source_;
};

}  // namespace penstock
