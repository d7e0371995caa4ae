#include <utility>
#define WIDTH 8
#define WIDEST 3
#define NAME AVX2
#define TEXT "avx2"
static constexpr int MOST[5] = {0, 12, 6, 4, 0};
#include "kernels.inc"
