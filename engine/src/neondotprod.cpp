// 64-bit ARM with dot products of bytes, of which the tiles of bytes are made.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define MAKES(type) ((type) == U8)
static constexpr int MOST[5] = {0, 14, 10, 7, 5};
#include "tiles.inc"

namespace gossamer {
static TILES(NEON_DOTPROD_TILES);
const Level NEON_DOTPROD = {
    "neon_dotprod", WIDTH, WIDEST, FLIP, {F32, BF16, U8},
    {NEON_TILES + F32, NEON_TILES + BF16, NEON_DOTPROD_TILES + U8},
    &NEON_KERNELS, false};
}  // namespace gossamer
