// Any 64-bit ARM: 32 registers of four floats, all used by the micro-kernels of floats, none spilled.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define MAKES(type) ((type) <= U8)
static constexpr int MAX_ROWS[5] = {0, 14, 10, 7, 5};
#include "kernels.inc"

namespace gossamer {
MICRO_KERNELS(NEON_MICRO_KERNELS);
constexpr Kernels NEON_KERNELS = KERNELS;
const Isa NEON = {"neon",          WIDTH,
                  WIDEST,          U8_TO_S8_OFFSET,
                  {F32, BF16, U8}, {NEON_MICRO_KERNELS + F32, NEON_MICRO_KERNELS + BF16, NEON_MICRO_KERNELS + U8},
                  &NEON_KERNELS,   false,
                  DEPTHWISE_BYTES, nullptr};
}  // namespace gossamer
