// For any processor: the same source, with whatever registers the compiler may suppose.
#include <utility>
#define WIDTH 4
#define MAKES(type) ((type) <= U8)
#if defined(GOSSAMER_AMX_EMULATED)  // tests only: AMX tiles emulated by loops
#define AMX_TILES
#define WIDEST 4
static constexpr int MAX_ROWS[5] = {0, 4, 4, 4, 4};
#else
#define WIDEST 1
static constexpr int MAX_ROWS[5] = {0, 1, 0, 0, 0};
#endif
#include "kernels.inc"

namespace gossamer {
static MICRO_KERNELS(PORTABLE_MICRO_KERNELS);
static constexpr Kernels PORTABLE_KERNELS = KERNELS;
const Isa PORTABLE = {"portable",
                      WIDTH,
                      WIDEST,
                      U8_TO_S8_OFFSET,
                      {F32, BF16, U8},
                      {PORTABLE_MICRO_KERNELS + F32, PORTABLE_MICRO_KERNELS + BF16, PORTABLE_MICRO_KERNELS + U8},
                      &PORTABLE_KERNELS,
                      USES_AMX_TILES,
                      DEPTHWISE_BYTES,
                      nullptr};
}  // namespace gossamer
