// 64-bit ARM with dot products of bytes.
#include <utility>
#define WIDTH 4
#define WIDEST 4
#define NAME NEON_DOTPROD
#define TEXT "neon_dotprod"
static constexpr int MOST[5] = {0, 14, 10, 7, 5};
#include "kernels.inc"
