// A Convnet is a small convolutional network with fixed weights: an image of 3 x 16 x 16 floats in, the
// probabilities of ten classes out. Small, but the real thing: what it answers depends on every pixel and
// every weight, so a test can tell a right answer from one that was lost, mixed up or made up.
//
//     image ─ conv 3x3 ─ relu ─┬─ conv 3x3 ─ add ─ relu ─ max pool 2x2 ─ dense ─ softmax
//                              └───────────────┘
//
// Weights come from the seed by integer arithmetic and are exact in a float, so that anybody can make the
// same ones elsewhere (tests/scenario/lib/convnet.py does, and computes in double precision).
//
// Immutable after its constructor: any number of threads may ask it at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace penstock::reference {

constexpr size_t image_channels = 3, image_side = 16;
constexpr size_t image_values = image_channels * image_side * image_side;
constexpr size_t hidden_channels = 8, kernel_side = 3;
constexpr size_t pooled_side = image_side / 2;
constexpr size_t pooled_values = hidden_channels * pooled_side * pooled_side;
constexpr size_t classes = 10;

using Image = std::span<const float, image_values>;
using Probabilities = std::array<float, classes>;

// In this order from the seed; each kernel is [to][from][row][column], the dense layer [to][from].
struct Weights {
    explicit Weights(uint64_t seed);

    std::array<float, hidden_channels * image_channels * kernel_side * kernel_side> first;
    std::array<float, hidden_channels> first_bias;
    std::array<float, hidden_channels * hidden_channels * kernel_side * kernel_side> second;
    std::array<float, hidden_channels> second_bias;
    std::array<float, classes * pooled_values> dense;
    std::array<float, classes> dense_bias;
};

class Convnet {
  public:
    explicit Convnet(uint64_t seed) : weights_(std::make_unique<Weights>(seed)) {}

    // How many images the whole of `images` holds is how many results are written.
    void run(std::span<const float> images, std::span<Probabilities> out) const;

    static const char* platform() { return "penstock_cpu"; }

  private:
    const std::unique_ptr<const Weights> weights_;
};

}  // namespace penstock::reference
