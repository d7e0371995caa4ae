// The checksum of a file, zlib's CRC-32.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu.h"
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace gossamer {

// Eight tables for eight bytes at once. `crc` is that of the bytes before, inverted.
inline uint32_t crc32_by_tables(uint32_t crc, const uint8_t *data, size_t size) {
  static const auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> t{};
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xEDB88320u ^ (value >> 1) : value >> 1;
      t[0][i] = value;
    }
    for (size_t k = 1; k < 8; k++)
      for (size_t i = 0; i < 256; i++) t[k][i] = t[0][t[k - 1][i] & 255] ^ (t[k - 1][i] >> 8);
    return t;
  }();
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const uint8_t *b = data + i;
    const uint32_t low = crc ^ (uint32_t(b[0]) | uint32_t(b[1]) << 8 | uint32_t(b[2]) << 16 | uint32_t(b[3]) << 24);
    crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
          tables[3][b[4]] ^ tables[2][b[5]] ^ tables[1][b[6]] ^ tables[0][b[7]];
  }
  for (; i < size; i++) crc = tables[0][(crc ^ data[i]) & 255] ^ (crc >> 8);
  return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
// A multiple of 16 bytes, 64 at least, folded by carry-less products: V. Gopal et al., "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ Instruction", Intel 2009; the constants are those of the reflected polynomial.
__attribute__((target("pclmul,sse4.1"))) inline uint32_t crc32_by_folding(uint32_t crc, const uint8_t *data,
                                                                          size_t size) {
  const auto at = [](const uint8_t *p) __attribute__((target("pclmul,sse4.1"))) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  };
  const auto fold = [](__m128i sum, __m128i by, __m128i next) __attribute__((target("pclmul,sse4.1"))) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(sum, by, 0x00), _mm_clmulepi64_si128(sum, by, 0x11)), next);
  };
  const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
  __m128i sum[4];
  for (int i = 0; i < 4; i++) sum[i] = at(data + 16 * i);
  sum[0] = _mm_xor_si128(sum[0], _mm_cvtsi32_si128(int(crc)));
  for (data += 64, size -= 64; size >= 64; data += 64, size -= 64)
    for (int i = 0; i < 4; i++) sum[i] = fold(sum[i], by_64, at(data + 16 * i));
  for (int i = 1; i < 4; i++) sum[0] = fold(sum[0], by_16, sum[i]);
  for (; size >= 16; data += 16, size -= 16) sum[0] = fold(sum[0], by_16, at(data));
  // 128 bits are as many as the tables take in two steps, from nothing
  uint8_t left[16];
  _mm_storeu_si128(reinterpret_cast<__m128i *>(left), sum[0]);
  return crc32_by_tables(0, left, sizeof left);
}
#endif

// `crc` of the bytes before, 0 at the beginning.
inline uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size) {
  crc = ~crc;
#if defined(__x86_64__) && defined(__GNUC__)
  if (size >= 64 && cpu().pclmul) {
    const size_t folded = size / 16 * 16;
    crc = crc32_by_folding(crc, data, folded);
    data += folded, size -= folded;
  }
#endif
  return ~crc32_by_tables(crc, data, size);
}

}  // namespace gossamer
