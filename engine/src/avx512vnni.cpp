#include <utility>
#define WIDTH 16
#define WIDEST 4
#define NAME AVX512_VNNI
#define TEXT "avx512_vnni"
static constexpr int MOST[5] = {0, 14, 12, 8, 6};
#include "kernels.inc"
