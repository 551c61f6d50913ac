"""The network of src/reference_worker/convnet.h once more, written from its description: plain Python, double
precision. What the worker answers must be this, to the precision of a float."""
import math

channels, side, hidden, classes = 3, 16, 8, 10
mask = (1 << 64) - 1


class Source:
    """splitmix64; each number a multiple of 2^-23 between -1 and 1."""

    def __init__(self, seed):
        self.state = seed

    def draw(self):
        self.state = (self.state + 0x9e3779b97f4a7c15) & mask
        z = self.state
        z = ((z ^ z >> 30) * 0xbf58476d1ce4e5b9) & mask
        z = ((z ^ z >> 27) * 0x94d049bb133111eb) & mask
        return z ^ z >> 31

    def numbers(self, count, scale):
        return [((self.draw() >> 40) / 2**23 - 1) * scale for _ in range(count)]


def convolve(planes, kernels, biases):
    """planes[channel][y][x]; what lies outside is zero."""
    out = []
    for kernel_number, bias in enumerate(biases):
        plane = [[bias] * side for _ in range(side)]
        for number, image in enumerate(planes):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    at = ((kernel_number * len(planes) + number) * 3 + dy + 1) * 3 + dx + 1
                    for y in range(max(0, -dy), min(side, side - dy)):
                        for x in range(max(0, -dx), min(side, side - dx)):
                            plane[y][x] += kernels[at] * image[y + dy][x + dx]
        out.append(plane)
    return out


def probabilities(image, seed=1):
    """Of the ten classes, for 768 numbers."""
    source = Source(seed)
    first = source.numbers(hidden * channels * 9, 1 / 4)
    first_bias = source.numbers(hidden, 1 / 8)
    second = source.numbers(hidden * hidden * 9, 1 / 8)
    second_bias = source.numbers(hidden, 1 / 8)
    dense = source.numbers(classes * hidden * (side // 2) ** 2, 1 / 16)
    dense_bias = source.numbers(classes, 1 / 8)

    planes = [[image[(c * side + y) * side:(c * side + y + 1) * side] for y in range(side)] for c in range(channels)]
    before = [[[max(v, 0.0) for v in row] for row in plane] for plane in convolve(planes, first, first_bias)]
    after = convolve(before, second, second_bias)
    features = []
    for skipped, plane in zip(before, after):
        summed = [[max(a + b, 0.0) for a, b in zip(*rows)] for rows in zip(skipped, plane)]
        for y in range(0, side, 2):
            for x in range(0, side, 2):
                features.append(max(summed[y][x], summed[y][x + 1], summed[y + 1][x], summed[y + 1][x + 1]))
    scores = [bias + sum(w * f for w, f in zip(dense[i * len(features):], features))
              for i, bias in enumerate(dense_bias)]
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]
