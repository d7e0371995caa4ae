#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) <= U8)
static constexpr int MAX_ROWS[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"

namespace gossamer {
MICRO_KERNELS(AVX512_MICRO_KERNELS);
constexpr Kernels AVX512_KERNELS = KERNELS;
const Isa AVX512 = {
    "avx512",        WIDTH,
    WIDEST,          U8_TO_S8_OFFSET,
    {F32, BF16, U8}, {AVX512_MICRO_KERNELS + F32, AVX512_MICRO_KERNELS + BF16, AVX512_MICRO_KERNELS + U8},
    &AVX512_KERNELS, false,
    DEPTHWISE_BYTES, nullptr};
}  // namespace gossamer
