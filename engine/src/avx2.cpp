// Bytes are widened to words before they meet weights: without VNNI the products of bytes would saturate.
#include <utility>
#define WIDTH 8
#define WIDEST 3
#define MAKES(type) ((type) == F32 || (type) == WIDE)
static constexpr int MOST[5] = {0, 12, 6, 4, 0};
#include "kernels.inc"

namespace gossamer {
static TILES(AVX2_TILES);
static constexpr Kernels AVX2_KERNELS = KERNELS;
const Level AVX2 = {
    "avx2", WIDTH, WIDEST, FLIP, {F32, F32, WIDE},
    {AVX2_TILES + F32, nullptr, nullptr, AVX2_TILES + WIDE},
    &AVX2_KERNELS, false};
}  // namespace gossamer
