// What outlier detection hears of a try: how the data path's facts (a complete response, a cause) become an
// Outcome or a blame. The counting itself is policy/outlier, in the park.
#pragma once

#include "http/head.h"
#include "policy/admission.h"
#include "policy/outlier.h"

namespace penstock {

struct Upstream;

// Of a complete response. Of gRPC its grpc-status counts. 429, and 503 with Retry-After or the refusal of
// another penstock, only say that the backend is full.
Outcome outcome_of(const Head& response, const Head& trailers);

std::optional<OutlierRules> outlier_rules_of(const Upstream& settings);

}  // namespace penstock
