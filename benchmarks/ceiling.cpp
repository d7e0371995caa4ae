// The most multiply-adds a second that the cores of this machine do, from registers alone: one JSON object a type.
//
//     ceiling THREADS...   ->   {"fp32": {"1": MACs/s, ..}, "bf16": .., "int8": ..}
//
// Each loop holds independent chains of one instruction: 24 cover its latency (4 to 6 cycles) times two units, and fit
// the 32 registers of AVX-512; 12 fit the 16 of AVX2; AMX has eight, six of them for sums. A type for which the processor
// has no such instruction is left out.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <immintrin.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

constexpr long steps = 1 << 20;  // of a loop between two looks at the clock: tens of milliseconds
constexpr int wide_chains = 24, narrow_chains = 12;

// asm volatile: the compiler neither merges equal chains nor moves them out of the loop
#define LOOP(NAME, TARGET, REGISTER, CHAINS, INSTRUCTION)                                                          \
  __attribute__((target(TARGET))) static void NAME() {                                                             \
    REGISTER a{}, b{}, sums[CHAINS]{};                                                                             \
    for (long step = 0; step < steps; ++step) {                                                                    \
      _Pragma("GCC unroll 24") for (int i = 0; i < CHAINS;                                                         \
                                    ++i) asm volatile(INSTRUCTION " %2, %1, %0" : "+v"(sums[i]) : "v"(a), "v"(b)); \
    }                                                                                                              \
  }

LOOP(fma512, "avx512f", __m512, wide_chains, "vfmadd231ps")
LOOP(bf16dot512, "avx512f", __m512, wide_chains, "vdpbf16ps")
LOOP(int8dot512, "avx512f", __m512, wide_chains, "vpdpbusd")
LOOP(fma256, "avx2,fma", __m256, narrow_chains, "vfmadd231ps")

#if defined(__GNUC__) && __GNUC__ >= 11  // which knows AMX; clang says 4
constexpr long amx_steps = steps / 8;
constexpr double amx_chains = 6, amx_bytes = 16 * 16 * 64;  // multiply-adds of bytes of one instruction

#define AMX(NAME, INSTRUCTION)                                                                           \
  __attribute__((target("amx-tile,amx-int8,amx-bf16"))) static void NAME() {                             \
    struct alignas(64) { /* eight registers of 16 rows of 64 bytes */                                    \
      unsigned char palette = 1, start = 0, reserved[14] = {};                                           \
      unsigned short bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};                                       \
      unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};                                         \
    } layout;                                                                                            \
    asm volatile("ldtilecfg %0" : : "m"(layout));                                                        \
    for (long step = 0; step < amx_steps; ++step)                                                        \
      asm volatile(INSTRUCTION " %tmm7, %tmm6, %tmm0\n" INSTRUCTION " %tmm7, %tmm6, %tmm1\n" INSTRUCTION \
                               " %tmm7, %tmm6, %tmm2\n" INSTRUCTION " %tmm7, %tmm6, %tmm3\n" INSTRUCTION \
                               " %tmm7, %tmm6, %tmm4\n" INSTRUCTION " %tmm7, %tmm6, %tmm5");             \
    asm volatile("tilerelease");                                                                         \
  }
AMX(amx_bf16, "tdpbf16ps")
AMX(amx_int8, "tdpbusd")

static bool has_amx() {  // and may use it: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#else
constexpr double amx_steps = 0, amx_chains = 0, amx_bytes = 0;
static void amx_bf16() {}
static void amx_int8() {}
static bool has_amx() { return false; }
#endif

struct Kind {
  const char *name;
  bool here;
  void (*loop)();
  double macs;  // of one call
};

// Multiply-adds a second of `threads` threads together, the best of ten tries: others may use the machine meanwhile.
static double rate(const Kind &kind, int threads) {
  double best = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    std::atomic<int> ready{0};
    std::vector<std::thread> others;
    auto work = [&] {
      kind.loop();  // to warm up: wide instructions may change the clock
      ++ready;
      while (ready < threads) {}
      kind.loop();
      kind.loop();
    };
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    kind.loop();
    ++ready;
    while (ready < threads) {}
    const auto start = std::chrono::steady_clock::now();
    kind.loop();
    kind.loop();
    for (auto &other : others) other.join();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2 * threads * kind.macs / spent.count());
  }
  return best;
}

int main(int count, char **arguments) {
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f");
  const bool amx = has_amx();
  const double all = double(steps) * wide_chains, amx_all = amx_steps * amx_chains * amx_bytes;
  const Kind kinds[] = {
      {"fp32", wide, fma512, 16 * all},
      {"fp32", !wide && __builtin_cpu_supports("fma"), fma256, 8.0 * steps * narrow_chains},
      {"bf16", amx, amx_bf16, amx_all / 2},
      {"bf16", !amx && wide && __builtin_cpu_supports("avx512bf16"), bf16dot512, 32 * all},
      {"int8", amx, amx_int8, amx_all},
      {"int8", !amx && wide && __builtin_cpu_supports("avx512vnni"), int8dot512, 64 * all},
  };
  const char *comma = "{";
  for (const Kind &kind : kinds) {
    if (!kind.here) continue;
    std::printf("%s\"%s\": {", comma, kind.name);
    for (int i = 1; i < count; ++i)
      std::printf("%s\"%s\": %.4g", i > 1 ? ", " : "", arguments[i], rate(kind, std::atoi(arguments[i])));
    std::printf("}");
    comma = ", ";
  }
  std::puts(*comma == '{' ? "{}" : "}");
}
