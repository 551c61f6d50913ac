// The KServe v2 protocol's JSON (what Triton speaks, too): bytes to tensors, and back. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "reference_worker/convnet.h"

namespace penstock::reference {

constexpr size_t largest_batch = 32;

struct InferRequest {
    std::string id;
    std::vector<float> images;  // one after the other

    size_t batch() const { return images.size() / image_values; }
};

// The error says what is wrong with it and what would be right; the status is 400 then.
Result<InferRequest> read_infer_request(std::string_view body);

std::string server_metadata();
std::string model_metadata(std::string_view model);
std::string infer_response(std::string_view model, const InferRequest& request,
                           std::span<const Probabilities> results);
std::string error_body(std::string_view message);

}  // namespace penstock::reference
