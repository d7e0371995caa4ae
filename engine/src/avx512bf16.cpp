// Tiles of bfloat16, and kernels that write it by one instruction; those of floats and bytes are the lesser levels'. With
// AMX, bytes and bfloat16 meet their weights in blocks.
#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) == BF16)
#if defined(GOSSAMER_AMX)
#define BLOCKS
#endif
static constexpr int MOST[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"

namespace gossamer {
static TILES(AVX512_BF16_TILES);
static constexpr Kernels AVX512_BF16_KERNELS = KERNELS;
#define LEVEL(text, blocks)                                                                                              \
  {text, WIDTH, WIDEST, FLIP, {F32, BF16, U8}, {AVX512_TILES + F32, AVX512_BF16_TILES + BF16, AVX512_VNNI_TILES + U8}, \
   &AVX512_BF16_KERNELS, blocks}
const Level AVX512_BF16 = LEVEL("avx512_bf16", false);
#if defined(GOSSAMER_AMX)
const Level AMX = LEVEL("amx", true);
#endif
}  // namespace gossamer
