// What AVX-512 offers, except the micro-kernels of bytes and depthwise layers of words of them.
#include <utility>
#define WIDTH 16
#define WIDEST 4
#define MAKES(type) ((type) == U8)
static constexpr int MAX_ROWS[5] = {0, 14, 12, 8, 6};
#include "depthwise_words.inc"
#include "microkernel.inc"

namespace gossamer {
MICRO_KERNELS(AVX512_VNNI_MICRO_KERNELS);
constexpr DepthwiseWords AVX512_VNNI_DEPTHWISE_WORDS[] = {depthwise_words<3, 1>, depthwise_words<3, 2>,
                                                          depthwise_words<5, 1>, depthwise_words<5, 2>};
static_assert(sizeof AVX512_VNNI_DEPTHWISE_WORDS / sizeof(DepthwiseWords) == DEPTHWISE_SHAPE_COUNT);
const Isa AVX512_VNNI = {
    "avx512_vnni",   WIDTH,
    WIDEST,          U8_TO_S8_OFFSET,
    {F32, BF16, U8}, {AVX512_MICRO_KERNELS + F32, AVX512_MICRO_KERNELS + BF16, AVX512_VNNI_MICRO_KERNELS + U8},
    &AVX512_KERNELS, false,
    DEPTHWISE_BYTES, AVX512_VNNI_DEPTHWISE_WORDS};
}  // namespace gossamer
