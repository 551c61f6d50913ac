#include "reference_worker/kserve.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace penstock::reference {

namespace {

using nlohmann::json;

constexpr std::string_view input_name = "image", output_name = "probabilities", data_type = "FP32";

std::string text(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

json tensor(std::string_view name, json shape) {
    return {{"name", name}, {"datatype", data_type}, {"shape", std::move(shape)}};
}

// Tensors may come flat or nested; either way it is the numbers in their order that count.
bool flatten(const json& data, std::vector<float>& out, unsigned depth = 0) {
    if (data.is_number()) {
        out.push_back(data.get<float>());
        return true;
    }
    if (!data.is_array() || depth > 4) return false;
    for (const json& part : data)
        if (out.size() > largest_batch * image_values || !flatten(part, out, depth + 1)) return false;
    return true;
}

Result<InferRequest> read(const json& body) {
    if (!body.is_object() || !body.contains("inputs") || !body["inputs"].is_array() ||
        body["inputs"].size() != 1)
        return failure(fmt::format("one input is expected, called {}", input_name));
    const json& input = body["inputs"][0];
    if (!input.is_object() || input.value("name", "") != input_name)
        return failure(fmt::format("the input is called {}", input_name));
    if (input.value("datatype", "") != data_type)
        return failure(fmt::format("the datatype of {} is {}", input_name, data_type));

    const json shape = input.value("shape", json::array());
    const json expected = {shape.empty() ? json() : shape[0], image_channels, image_side, image_side};
    if (shape != expected || !shape[0].is_number_unsigned() || shape[0] < 1U || shape[0] > largest_batch)
        return failure(fmt::format("the shape of {} is [1 to {}, {}, {}, {}], not {}", input_name,
                                   largest_batch, image_channels, image_side, image_side, text(shape)));
    const auto values = shape[0].get<size_t>() * image_values;

    InferRequest out;
    if (body.contains("id")) out.id = body["id"].get<std::string>();
    out.images.reserve(values);
    if (!input.contains("data") || !flatten(input["data"], out.images))
        return failure(fmt::format("data of {} are numbers, flat or nested", input_name));
    if (out.images.size() != values)
        return failure(fmt::format("the shape of {} asks for {} numbers; {} are there", input_name, values,
                                   out.images.size()));
    return out;
}

}  // namespace

Result<InferRequest> read_infer_request(std::string_view body) {
    const json parsed = json::parse(body, nullptr, false);
    if (parsed.is_discarded()) return failure("the body is no JSON");
    try {
        return read(parsed);
    } catch (const json::exception& error) {  // a member of another type than it should be
        return failure(error.what());
    }
}

std::string server_metadata() {
    return text({{"name", "penstock-reference-worker"},
                 {"version", PENSTOCK_VERSION},
                 {"extensions", json::array()}});
}

std::string model_metadata(std::string_view model) {
    return text({{"name", model},
                 {"versions", {"1"}},
                 {"platform", Convnet::platform()},
                 {"inputs", json::array({tensor(input_name, {-1, image_channels, image_side, image_side})})},
                 {"outputs", json::array({tensor(output_name, {-1, classes})})}});
}

std::string infer_response(std::string_view model, const InferRequest& request,
                           std::span<const Probabilities> results) {
    json data = json::array();
    for (const Probabilities& result : results)
        for (float value : result) data.push_back(value);
    json output = tensor(output_name, {results.size(), classes});
    output["data"] = std::move(data);
    json out = {{"model_name", model}, {"model_version", "1"}};
    out["outputs"].push_back(std::move(output));
    if (!request.id.empty()) out["id"] = request.id;
    return text(out);
}

std::string error_body(std::string_view message) { return text({{"error", message}}); }

}  // namespace penstock::reference
