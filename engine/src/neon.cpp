// Any 64-bit ARM: 32 registers of four floats, of which a tile of floats leaves none unused and spills none.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define NAME NEON
#define TEXT "neon"
static constexpr int MOST[5] = {0, 14, 10, 7, 5};
#include "kernels.inc"
