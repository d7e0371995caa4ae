#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) <= U8)
static constexpr int MOST[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"

namespace gossamer {
TILES(AVX512_TILES);
constexpr Kernels AVX512_KERNELS = KERNELS;
const Level AVX512 = {
    "avx512", WIDTH, WIDEST, FLIP, {F32, BF16, U8},
    {AVX512_TILES + F32, AVX512_TILES + BF16, AVX512_TILES + U8},
    &AVX512_KERNELS, false};
}  // namespace gossamer
