// 64-bit ARM with dot products of bytes, which the micro-kernels of bytes use.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define MAKES(type) ((type) == U8)
static constexpr int MAX_ROWS[5] = {0, 14, 10, 7, 5};
#include "microkernel.inc"

namespace gossamer {
static MICRO_KERNELS(NEON_DOTPROD_MICRO_KERNELS);
const Isa NEON_DOTPROD = {
    "neon_dotprod",  WIDTH,
    WIDEST,          U8_TO_S8_OFFSET,
    {F32, BF16, U8}, {NEON_MICRO_KERNELS + F32, NEON_MICRO_KERNELS + BF16, NEON_DOTPROD_MICRO_KERNELS + U8},
    &NEON_KERNELS,   false,
    DEPTHWISE_BYTES, nullptr};
}  // namespace gossamer
