#include "reference_worker/convnet.h"

namespace penstock::reference {

namespace {

class Source {
  public:
    explicit Source(uint64_t seed) : state_(seed) {}

    // Between -scale and scale: 24 bits of splitmix64, and `scale` a power of two, so nothing is rounded.
    void fill(std::span<float> values, float scale) {
        for (float& value : values) value = (static_cast<float>(draw() >> 40) * 0x1p-23f - 1) * scale;
    }

  private:
    uint64_t draw() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    uint64_t state_;
};

}  // namespace

// Scales near 1 / sqrt(inputs) keep the sums of every layer of the size of one.
Weights::Weights(uint64_t seed) {
    Source source(seed);
    source.fill(first, 0.25F);
    source.fill(first_bias, 0.125F);
    source.fill(second, 0.125F);
    source.fill(second_bias, 0.125F);
    source.fill(dense, 0.0625F);
    source.fill(dense_bias, 0.125F);
}

}  // namespace penstock::reference
