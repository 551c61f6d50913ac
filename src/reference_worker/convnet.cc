// The network, in plain loops.
#include "reference_worker/convnet.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace penstock::reference {

namespace {

constexpr size_t plane = image_side * image_side;

// One channel out, same size: what lies outside of the image is zero. A tap of the kernel moves each row by
// `down` - 1 and `right` - 1.
void convolve(std::span<const float> in, std::span<const float> kernels, float bias, std::span<float> out) {
    std::ranges::fill(out, bias);
    for (size_t from = 0; from * plane < in.size(); ++from) {
        const float* image = in.data() + from * plane;
        const float* kernel = kernels.data() + from * kernel_side * kernel_side;
        for (size_t down = 0; down < kernel_side; ++down)
            for (size_t right = 0; right < kernel_side; ++right) {
                const float weight = kernel[down * kernel_side + right];
                for (size_t y = down == 0; y < image_side - (down == 2); ++y)
                    for (size_t x = right == 0; x < image_side - (right == 2); ++x)
                        out[y * image_side + x] +=
                            weight * image[(y + down - 1) * image_side + x + right - 1];
            }
    }
}

void rectify(std::span<float> values) {
    for (float& value : values) value = std::max(value, 0.0F);
}

float largest_of_four(const float* at) {
    return std::max({at[0], at[1], at[image_side], at[image_side + 1]});
}

void softmax(Probabilities& values) {
    const float largest = *std::ranges::max_element(values);
    float sum = 0;
    for (float& value : values) sum += value = std::exp(value - largest);
    for (float& value : values) value /= sum;
}

void classify(const Weights& weights, Image image, Probabilities& out) {
    std::vector<float> first(hidden_channels * plane), second(first.size());
    constexpr size_t first_kernel = image_channels * kernel_side * kernel_side;
    constexpr size_t second_kernel = hidden_channels * kernel_side * kernel_side;
    for (size_t i = 0; i < hidden_channels; ++i)
        convolve(image, std::span(weights.first).subspan(i * first_kernel, first_kernel),
                 weights.first_bias[i], std::span(first).subspan(i * plane, plane));
    rectify(first);
    for (size_t i = 0; i < hidden_channels; ++i)
        convolve(first, std::span(weights.second).subspan(i * second_kernel, second_kernel),
                 weights.second_bias[i], std::span(second).subspan(i * plane, plane));
    for (size_t i = 0; i < second.size(); ++i) second[i] += first[i];
    rectify(second);

    out = weights.dense_bias;
    for (size_t i = 0; i < pooled_values; ++i) {
        const size_t channel = i / (pooled_side * pooled_side), row = i / pooled_side % pooled_side;
        const float pooled =
            largest_of_four(&second[channel * plane + 2 * row * image_side + 2 * (i % pooled_side)]);
        for (size_t to = 0; to < classes; ++to) out[to] += weights.dense[to * pooled_values + i] * pooled;
    }
    softmax(out);
}

}  // namespace

void Convnet::run(std::span<const float> images, std::span<Probabilities> out) const {
    for (size_t i = 0; i < out.size(); ++i)
        classify(*weights_, Image(images.subspan(i * image_values).first<image_values>()), out[i]);
}
}  // namespace penstock::reference
