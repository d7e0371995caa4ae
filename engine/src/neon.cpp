// Any 64-bit ARM: 32 registers of four floats; a tile of bfloat16 weights holds its columns twice.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define NAME NEON
#define TEXT "neon"
static constexpr int MOST[5] = {0, 14, 12, 7, 5};
#include "kernels.inc"
