#include <utility>
#define WIDTH 16
#define WIDEST 4
#define NAME AVX512_BF16
#define TEXT "avx512_bf16"
static constexpr int MOST[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"
