// Micro-kernels of bfloat16, and kernels that write it by one instruction; those of floats and bytes are the lesser ISAs'. With
// AMX, bytes and bfloat16 are multiplied in AMX tiles.
#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) == BF16)
#if defined(GOSSAMER_AMX)
#define AMX_TILES
#endif
static constexpr int MAX_ROWS[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"

namespace gossamer {
static MICRO_KERNELS(AVX512_BF16_MICRO_KERNELS);
static constexpr Kernels AVX512_BF16_KERNELS = KERNELS;
#define ISA(text, amx_tiles, depthwise_words)                                                      \
  {text,                                                                                           \
   WIDTH,                                                                                          \
   WIDEST,                                                                                         \
   U8_TO_S8_OFFSET,                                                                                \
   {F32, BF16, U8},                                                                                \
   {AVX512_MICRO_KERNELS + F32, AVX512_BF16_MICRO_KERNELS + BF16, AVX512_VNNI_MICRO_KERNELS + U8}, \
   &AVX512_BF16_KERNELS,                                                                           \
   amx_tiles,                                                                                      \
   DEPTHWISE_BYTES,                                                                                \
   depthwise_words}
const Isa AVX512_BF16 = ISA("avx512_bf16", false, AVX512_VNNI_DEPTHWISE_WORDS);
#if defined(GOSSAMER_AMX)
const Isa AMX = ISA("amx", true, nullptr);
#endif
}  // namespace gossamer
