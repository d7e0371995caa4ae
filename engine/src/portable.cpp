// For any processor: the same source, with whatever registers the compiler may suppose.
#include <utility>
#define WIDTH 4
#define MAKES(type) ((type) <= U8)
#if defined(GOSSAMER_BLOCKS)  // tests alone: blocks as AMX has them, by loops
#define BLOCKS
#define WIDEST 4
static constexpr int MOST[5] = {0, 4, 4, 4, 4};
#else
#define WIDEST 1
static constexpr int MOST[5] = {0, 1, 0, 0, 0};
#endif
#include "kernels.inc"

namespace gossamer {
static TILES(PORTABLE_TILES);
static constexpr Kernels PORTABLE_KERNELS = KERNELS;
const Level PORTABLE = {
    "portable", WIDTH, WIDEST, FLIP, {F32, BF16, U8},
    {PORTABLE_TILES + F32, PORTABLE_TILES + BF16, PORTABLE_TILES + U8},
    &PORTABLE_KERNELS, BY_BLOCKS};
}  // namespace gossamer
