// What the statistics say of work that nobody waited for any more, once it is over.
#pragma once

#include "http/cause.h"
#include "policy/admission.h"
#include "proxy/stats.h"

namespace penstock {

class DataLoop;
class LiveUpstream;

struct AbandonedWork {
    Cause why = Cause::none;
    ModelLabel model = ModelLabel::none;
};
void count_abandoned(DataLoop& loop, const LiveUpstream& upstream, AbandonedWork work, const Ended& ended,
                     Outcome outcome);

}  // namespace penstock
