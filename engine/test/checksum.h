// Writes the checksum of a changed file, so that the rules behind the checksum are reached.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

inline uint32_t crc32(const uint8_t *data, size_t size) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < size; i++) {
    crc ^= data[i];
    for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xEDB88320u ^ (crc >> 1) : crc >> 1;
  }
  return crc ^ 0xFFFFFFFFu;
}

inline void set_checksum(uint8_t *file, size_t size) {
  const uint32_t crc = crc32(file + 16, size - 16);
  std::memcpy(file + 12, &crc, 4);
}
