// What a compiled network becomes on an ISA: its operations planned, their weights packed, their maps placed.
#pragma once
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "isa.h"
#include "model.h"

namespace gossamer {

constexpr int64_t SCRATCH_BYTES =
    1 << 30;  // of the expanded rows, the widened rows or the Winograd tiles, at most: hostile files ask for more
constexpr int64_t SLACK = 256;  // bytes after a buffer, for full registers

struct Kernel;

// 64-byte aligned memory, zeroed.
struct Bytes {
  uint8_t *data = nullptr;
  void *allocation = nullptr;
  Bytes() = default;
  Bytes(const Bytes &) = delete;
  Bytes &operator=(const Bytes &) = delete;
  Bytes(Bytes &&other) noexcept : data(other.data), allocation(other.allocation) { other.allocation = nullptr; }
  ~Bytes() { std::free(allocation); }
  bool allocate(size_t size) {
    allocation = std::calloc(size + SLACK + 63, 1);  // large ones take no memory before they are written
    data = reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(allocation) + 63) / 64 * 64);
    return allocation != nullptr;
  }
  float *floats() const { return reinterpret_cast<float *>(data); }
};

// One operation, planned; only the addresses of its maps are missing.
struct Step {
  const Kernel *kernel = nullptr;    // that runs it
  std::vector<Dense> dense;          // one a group
  FullyConnected fully_connected{};  // used instead of them where it has weights
  Fused fused{};
  size_t expanded = 0, middle = 0, scratch = 0, shared = 0;  // bytes of scratch: three per thread, one shared
};

}  // namespace gossamer

struct gossamer_model {
  gossamer::Model file;
  const gossamer::Isa *isa = nullptr;   // null: the reference
  std::vector<gossamer::Value> values;  // of the file, of the types that the ISA computes in
  std::vector<gossamer::Step> steps;
  std::vector<gossamer::Bytes> packed;
  std::vector<int64_t> offsets, ld;  // of each root value: offset in the arena and bytes a position
  bool quantised = false;            // whether a map is of uint8, which has no NaN
  size_t arena = 0, expanded = 0, middle = 0, scratch = 0, shared = 0;
  ~gossamer_model() {
    if (file.data) munmap(const_cast<uint8_t *>(file.data), file.size);
  }
};

namespace gossamer {

inline int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value)
    return uint16_t(bits >> 16 | 0x40);  // a NaN, which rounding could turn into infinity or a finite value
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// How a layer reads its map: each position once, and only in place; each position once; or by windows.
enum InputAccess { IN_PLACE, POINTWISE, WINDOWED };

// Of the registers across a panel of n columns, the best number.
int pick_vectors(const Isa &isa, int32_t n);

// The type of a value's map, its sides, and the bytes from one position to the next; no address.
Map shape(const gossamer_model &m, int32_t index);

// A layer's weights and biases in panels of `panel_columns` columns: for each panel, tap and word of k, the columns side by side.
// n rows from `row0` on of (rows, k, taps) weights, which the type of the map that they meet says how to multiply.
bool pack(gossamer_model &m, Dense &d, int64_t weight, int64_t bias, int64_t scale, int32_t type, int64_t row0,
          int64_t n, int64_t channels, int64_t kh, int64_t kw, InputAccess access, Step &step);

// Winograd tiles that cover the output.
int64_t winograd_tiles(const Dense &d, const Map &out);

// Choose Winograd convolution, and the sides of its tiles, where it is estimated faster than direct sums.
void plan_winograd(const gossamer_model &m, const Op &op, Dense &d);

// The transformed weights, in panels as `pack` makes them for each interpolation point, with biases and scales.
bool pack_winograd(gossamer_model &m, Dense &d, const Op &op, Step &step);

// A bias as integer steps of its sum, and what is left of it: nothing where the file had it in int32.
struct SplitBias {
  int32_t steps;
  float rest;
};
SplitBias split_bias(float bias, float step, int64_t most);

// Floats padded with zeros; null where there is no memory.
float *pad(gossamer_model &m, const float *bias, int64_t n, int64_t padded);

// All of it, of a file that was checked; 0 or a gossamer_error.
int prepare(gossamer_model &m);

}  // namespace gossamer
