// For any processor: the same source, with whatever registers the compiler may suppose.
#include <utility>
#define WIDTH 4
#define WIDEST 1
#define NAME PORTABLE
#define TEXT "portable"
static constexpr int MOST[5] = {0, 1, 0, 0, 0};
#include "kernels.inc"
