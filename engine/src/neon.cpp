// Any 64-bit ARM: 32 registers of four floats, of which a tile of floats leaves none unused and spills none.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define MAKES(type) ((type) <= U8)
static constexpr int MOST[5] = {0, 14, 10, 7, 5};
#include "kernels.inc"

namespace gossamer {
TILES(NEON_TILES);
constexpr Kernels NEON_KERNELS = KERNELS;
const Level NEON = {
    "neon", WIDTH, WIDEST, FLIP, {F32, BF16, U8},
    {NEON_TILES + F32, NEON_TILES + BF16, NEON_TILES + U8},
    &NEON_KERNELS, false};
}  // namespace gossamer
