// The answers that penstock gives itself: one table from cause to status, reason and words, and the one
// function that fills a response with them.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/arena.h"
#include "config/config.h"
#include "http/cause.h"
#include "http/message.h"

namespace penstock {

struct Answer {
    uint16_t status;
    std::string_view reason;   // of x-penstock-reason
    std::string_view message;  // for people
};

// What a cause means to a client. `codes` are the upstream's (null where there is none yet); `rule` matters
// for bad_request only.
Answer answer_to(Cause cause, Rule rule, const StatusCodes* codes);

// Fills a response that nothing was filled into: head, JSON body, complete. Every refusal has a Retry-After
// of at least 1; `retry_after` is what the park estimated, 0 where nobody knows.
void fill_answer(Message& response, Arena& arena, const Answer& answer, Rule rule, uint32_t retry_after);
// The same to a gRPC request: 200, trailers-only, with the cause's grpc-status. A refusal says with
// grpc-retry-pushback-ms when to come again; of anything else a backend may have seen something.
void fill_grpc_answer(Message& response, Arena& arena, const Answer& answer, Cause cause,
                      uint32_t retry_after);

}  // namespace penstock
