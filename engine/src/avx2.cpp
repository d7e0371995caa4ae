// Bytes are widened to words before they meet weights: without VNNI the products of bytes would saturate.
#include <utility>
#define WIDTH 8
#define WIDEST 3
#define MAKES(type) ((type) == F32 || (type) == S16)
static constexpr int MAX_ROWS[5] = {0, 12, 6, 4, 0};
#include "kernels.inc"

namespace gossamer {
static MICRO_KERNELS(AVX2_MICRO_KERNELS);
static constexpr Kernels AVX2_KERNELS = KERNELS;
const Isa AVX2 = {"avx2",          WIDTH,
                  WIDEST,          U8_TO_S8_OFFSET,
                  {F32, F32, S16}, {AVX2_MICRO_KERNELS + F32, nullptr, nullptr, AVX2_MICRO_KERNELS + S16},
                  &AVX2_KERNELS,   false,
                  DEPTHWISE_BYTES, nullptr};
}  // namespace gossamer
