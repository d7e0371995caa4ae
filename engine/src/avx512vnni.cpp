// What AVX-512 offers, but for the tiles of bytes.
#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) == U8)
static constexpr int MOST[5] = {0, 14, 12, 8, 6};
#include "tiles.inc"

namespace gossamer {
TILES(AVX512_VNNI_TILES);
const Level AVX512_VNNI = {
    "avx512_vnni", WIDTH, WIDEST, FLIP, {F32, BF16, U8},
    {AVX512_TILES + F32, AVX512_TILES + BF16, AVX512_VNNI_TILES + U8},
    &AVX512_KERNELS, false};
}  // namespace gossamer
