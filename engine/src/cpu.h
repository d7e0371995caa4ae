// What an x86-64 processor can run, asked by its own instruction: __builtin_cpu_supports needs a compiler's run time library,
// and where zig's clang links one, it answers no to everything.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>

namespace gossamer {

// Groups of instructions, each with all that the files compiled for it use, and only where the system saves the registers.
struct Cpu {
  bool pclmul = false, avx2 = false, avx512 = false, vnni = false, bf16 = false, amx = false;

  Cpu() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const auto bit = [](unsigned value, int place) { return (value >> place & 1) != 0; };
    pclmul = bit(c, 1) && bit(c, 19);  // PCLMULQDQ, SSE4.1
    const bool fma = bit(c, 12), avx = bit(c, 28), saves = bit(c, 27);
    if (!(fma && avx && saves)) return;
    uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr uint32_t YMM = 0x06, ZMM = 0xE6;  // with those below them
    if ((low & YMM) != YMM || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    avx2 = bit(b, 5);
    avx512 = avx2 && (low & ZMM) == ZMM && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // F, DQ, BW, VL
    vnni = avx512 && bit(c, 11);
    amx = bit(d, 22) && bit(d, 24) && bit(d, 25);  // BF16, tiles, INT8; the system grants their registers when asked
    bf16 = vnni && __get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 5);
  }
};

inline const Cpu &cpu() {
  static const Cpu found;
  return found;
}

}  // namespace gossamer
#endif
