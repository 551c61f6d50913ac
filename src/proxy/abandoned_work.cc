#include "proxy/abandoned_work.h"

#include "proxy/data_loop.h"
#include "proxy/reply.h"

namespace penstock {

void count_abandoned(DataLoop& loop, const LiveUpstream& upstream, AbandonedWork work, const Ended& ended,
                     Outcome outcome) {
    AbandonOutcome how = AbandonOutcome::closed;
    if (ended.by == Ended::By::worker_exit)
        how = AbandonOutcome::worker_exit;
    else if (ended.by == Ended::By::given_up)
        how = AbandonOutcome::given_up;
    else if (outcome == Outcome::answered)
        how = AbandonOutcome::completed;
    loop.stats().abandoned(upstream.label(), how);
    loop.stats().wasted(upstream.label(), work.model,
                        {static_cast<uint8_t>(work.why), answer_to(work.why, Rule::ok, nullptr).reason},
                        ended.wasted);
}

}  // namespace penstock
