// Weights in the order in which the kernels read them: panels of columns for micro-kernels or AMX tiles, or transformed for
// Winograd convolution, which is chosen here.
#include <algorithm>
#include <cmath>

#include "plan.h"
#include "winograd.h"

namespace gossamer {
namespace {

constexpr int64_t IM2COL_BYTES = 256 << 10;    // of gathered inputs for AMX tiles: part of the L2 cache
constexpr int64_t WINOGRAD_BYTES = 256 << 10;  // of transformed inputs and products: they stay in the L2 cache
constexpr int32_t MAX_POINTS = 10, MAX_KERNEL_SIDE = 7;  // of the side of a Winograd tile, and of a kernel
constexpr int64_t MAX_IM2COL_STRIDE = 64 << 10;          // of one position, at most
constexpr int64_t POSITIONS = 32;                        // of a pair of AMX tiles
constexpr int64_t WORDS = 16;                            // of k in one AMX tile, at most
constexpr int64_t PACK_BLOCK = 16;                       // words and columns of weights packed at once

}  // namespace

int pick_vectors(const Isa &isa, int32_t n) {
  // relative speed of micro-kernels by their registers across; where three is the most, the two widest are equally fast, but
  // two registers read fewer weights
  static const double paces[2][5] = {{0, 0.75, 1.0, 1.0, 1.0}, {0, 0.75, 0.95, 1.0, 0.97}};
  const double *const pace = paces[isa.widest > 3];
  int best = 1;
  double least = 1e30;
  for (int v = 1; v <= isa.widest; v++) {
    const double cost = double(round_up(n, v * isa.vector)) / pace[v];
    if (cost < least) least = cost, best = v;
  }
  return best;
}

namespace {

// Decide whether AMX tiles compute the layer, and how; d.words and d.tail are known. Returns the bytes of scratch a thread needs.
int64_t plan_amx_tiles(const gossamer_model &m, Dense &d, int32_t type, int64_t taps, int64_t columns,
                       InputAccess access) {
  constexpr int64_t MIN_SIZE = 4;  // words of k, for which AMX tiles do not pay
  const int64_t words = taps * d.words;
  if (!m.isa->amx_tiles || type == F32 || words < MIN_SIZE) return 0;
  // The cycles that micro-kernels need for a position must be twice those of gathering its inputs.
  const int64_t direct = columns * words / (type == U8 ? 32 : 8), copied = 8 * taps + 10;
  if (access == WINDOWED && direct < 2 * copied) return 0;
  // Steps of equal size need no padding after the last word. After bytes any other bytes may follow, whose weights are 0; after
  // bfloat16 NaN may not.
  const int64_t least = (words + WORDS - 1) / WORDS;
  int64_t step = WORDS;
  for (int64_t steps = least; step == WORDS && steps <= least + least / 2; steps++)
    if (words % steps == 0 && words / steps < WORDS) step = words / steps;
  const bool even = words % step == 0;
  const bool in_place = access != WINDOWED && d.tail == 0xFFFFFFFFu && even;
  d.uses_im2col = access == WINDOWED || (type == BF16 && !in_place);
  d.im2col_stride = round_up(words, step) * 4;
  if (d.uses_im2col && (access == IN_PLACE || d.im2col_stride > MAX_IM2COL_STRIDE)) return 0;
  d.tile_words = int32_t(step);
  if (d.uses_im2col) d.im2col_stride = round_up(d.im2col_stride, 64);
  d.block_positions = std::clamp(IM2COL_BYTES / d.im2col_stride / POSITIONS, int64_t(1), int64_t(8)) * POSITIONS;
  return d.uses_im2col ? d.block_positions * d.im2col_stride : 0;
}

}  // namespace

SplitBias split_bias(float bias, float step, int64_t most) {
  constexpr double FLOAT_ERROR = 1.2e-7, MAX_ERROR = 0.25;  // of a product in float32; of one that is still the nearest
  const double steps = double(bias) / double(step), whole = std::nearbyint(steps);
  const double error = FLOAT_ERROR * std::abs(whole) + 1e-5;
  // not for NaN and infinity
  const bool is_whole = std::abs(steps - whole) <= error && error <= MAX_ERROR && std::abs(whole) <= double(most);
  return is_whole ? SplitBias{int32_t(whole), 0} : SplitBias{0, bias};
}

// A layer's weights and biases in panels of `panel_columns` columns: for each panel, tap and word of k, the columns side by side.
// n rows from `row0` on of (rows, k, taps) weights, which the type of the map that they meet says how to multiply.
bool pack(gossamer_model &m, Dense &d, int64_t weight, int64_t bias, int64_t scale, int32_t type, int64_t row0,
          int64_t n, int64_t channels, int64_t kh, int64_t kw, InputAccess access, Step &step) {
  const int64_t k = d.contiguous_rows ? channels * kw : channels, taps = d.contiguous_rows ? kh : kh * kw,
                all = channels * kh * kw;
  const int32_t map = m.isa->compute_type[d.in.type], size = size_of(map),
                word_channels = 4 / size;  // each: channels of a word
  d.words = int32_t((k + word_channels - 1) / word_channels);
  d.tail = k % word_channels ? (1u << (8 * size * (k % word_channels))) - 1 : 0xFFFFFFFFu;
  step.scratch = std::max(step.scratch, size_t(plan_amx_tiles(m, d, map, taps, n, access)));
  if (d.tile_words && access != IN_PLACE) d.vectors = n > m.isa->vector ? 2 : 1;  // registers of a pair of AMX tiles
  const int64_t panel_columns = d.vectors * m.isa->vector, panels = round_up(n, panel_columns) / panel_columns;
  const int64_t words = d.tile_words ? round_up(taps * d.words, d.tile_words) : taps * d.words;
  d.panel_stride = panel_columns * 4 * words;
  const auto make = [&](size_t bytes) {
    m.packed.emplace_back();
    return m.packed.back().allocate(bytes) ? m.packed.back().data : nullptr;
  };
  uint8_t *to = make(size_t(panels * d.panel_stride));
  uint8_t *const biases = make(size_t(panels * panel_columns) * 4), *const scales =
                                                                        make(size_t(panels * panel_columns) * 4);
  uint8_t *const zeros = make(size_t(k) * 4), *const starts = make(size_t(panels * panel_columns) * 4);
  if (!to || !biases || !scales || !zeros || !starts) return false;
  d.weight = to, d.micro_kernels = m.isa->micro_kernels[map];
  const float *w = m.file.weights;
  const auto *bytes = reinterpret_cast<const int8_t *>(w + weight);
  const auto *halves = reinterpret_cast<const uint16_t *>(w + weight);
  // PACKED_AT_ONCE words by as many columns, so that each cache line is read once and written once
  const auto pack_block = [&](int64_t p, int64_t t, int64_t x0, int64_t j0) {
    const int64_t first = p * panel_columns + j0, columns = std::min({PACK_BLOCK, panel_columns - j0, n - first});
    for (int64_t at = x0 * word_channels; at < std::min((x0 + PACK_BLOCK) * word_channels, k); at++) {
      const int64_t channel = at % channels, tap = d.contiguous_rows ? t * kw + at / channels : t;
      const int64_t from = (row0 + first) * all + channel * kh * kw + tap;
      uint8_t *o = to + p * d.panel_stride + ((t * d.words + at / word_channels) * panel_columns + j0) * 4 +
                   at % word_channels * size;
      for (int64_t j = 0; j < columns; j++, o += 4) {
        const int64_t at = from + j * all;
        const int16_t value = bytes[at];
        if (map == U8) *o = uint8_t(value);
        else if (map == S16) std::memcpy(o, &value, 2);
        else if (map == BF16) std::memcpy(o, &halves[at], 2);
        else {
          const float number = type == F32    ? w[weight + at]
                               : type == BF16 ? from_bf16(halves[at])
                                              : value * w[scale + row0 + first + j];
          std::memcpy(o, &number, 4);
        }
      }
    }
  };
  for (int64_t p = 0; p < panels; p++)
    for (int64_t t = 0; t < taps; t++)
      for (int64_t x0 = 0; x0 < d.words; x0 += PACK_BLOCK)
        for (int64_t j0 = 0; j0 < std::min(panel_columns, n - p * panel_columns); j0 += PACK_BLOCK)
          pack_block(p, t, x0, j0);
  auto *b = reinterpret_cast<float *>(biases), *s = reinterpret_cast<float *>(scales);
  auto *const start = reinterpret_cast<int32_t *>(starts);
  if (d.in.type == U8) d.epilogue.unit = unit_of(d.epilogue, d.out.type, d.out.scale, d.other.c ? d.other.type : -1);
  for (int64_t j = 0; j < n; j++) {
    b[j] = w[bias + row0 + j];
    if (d.in.type != U8) continue;
    const float product_step = w[scale + row0 + j] * d.in.scale;
    int64_t sum = 0, total = 0;  // sum: what the map's zero adds to every position, those outside among them
    for (int64_t i = 0; i < all; i++) {
      const int64_t value = bytes[(row0 + j) * all + i];
      sum += value, total += std::abs(value);
    }
    const SplitBias split = split_bias(b[j], product_step, INT32_MAX - 255 * total);
    start[j] = int32_t(split.steps - sum * (d.in.zero - m.isa->u8_to_s8_offset));
    s[j] = product_step / d.epilogue.unit, b[j] = split.rest / d.epilogue.unit;
  }
  d.start = start;
  if (map == U8) std::memset(zeros, d.in.zero, size_t(k));
  if (map == S16) std::fill_n(reinterpret_cast<uint16_t *>(zeros), k, uint16_t(d.in.zero));
  d.bias = b, d.scale = s, d.zeros = zeros;
  return true;
}

// Winograd tiles that cover the output.
int64_t winograd_tiles(const Dense &d, const Map &out) {
  const int32_t down = d.winograd_h - d.kh + 1, across = d.winograd_w - d.kw + 1;
  return int64_t((out.h + down - 1) / down) * ((out.w + across - 1) / across);
}

namespace {

// Type of transformed inputs: float32, or int16.
int32_t winograd_type(const gossamer_model &m, const Dense &d) {
  return m.isa->compute_type[d.in.type] == S16 ? S16 : F32;
}

// Bytes of a tile at one interpolation point: of its input channels, and of all panels of output columns.
int64_t tile_bytes(const gossamer_model &m, const Dense &d) {
  return round_up(d.in.c, 16) * (winograd_type(m, d) == S16 ? 2 : 4) + round_up(d.out.c, d.vectors * m.isa->vector) * 4;
}

// Tiles transformed at once: their data stays in the L2 cache, but too few tiles would read the weights too often. In equal
// parts.
int64_t tiles_at_once(const gossamer_model &m, const Dense &d) {
  const int64_t points = int64_t(d.winograd_h) * d.winograd_w, all = winograd_tiles(d, d.out);
  const int64_t most =
      std::max<int64_t>({WINOGRAD_BYTES / (points * tile_bytes(m, d)), std::max(d.in.c, d.out.c) / 2, 1});
  const int64_t parts = (all + most - 1) / most;
  return (all + parts - 1) / parts;
}

int64_t winograd_scratch(const gossamer_model &m, const Dense &d) {
  return int64_t(d.winograd_h) * d.winograd_w * (tiles_at_once(m, d) * tile_bytes(m, d) + 128);
}

// Cycles of so many products of words; a product of integers takes two instructions.
int64_t cycles_of(const gossamer_model &m, int64_t products, int32_t type) {
  return products / (type == S16 ? 3 : 4) * 2 / m.isa->vector;
}

// Cycles of one image by Winograd convolution: products and transforms, or the weights where reading them takes longer.
// The factors were measured on a processor with AVX2 whose memory delivers 4 bytes per cycle to a thread.
int64_t winograd_cycles(const gossamer_model &m, const Dense &d) {
  const int32_t type = winograd_type(m, d);
  const int64_t points = int64_t(d.winograd_h) * d.winograd_w, n = d.out.c, count = winograd_tiles(d, d.out);
  const int64_t words = type == S16 ? (d.in.c + 1) / 2 : d.in.c;
  const int64_t products = cycles_of(m, points * count * words * n, type),
                transforms = points * count * (words + n) / m.isa->vector;
  return std::max(products * 6 / 5 + 5 * transforms, points * words * n);
}

}  // namespace

// Choose Winograd convolution, and the sides of its tiles, where it is estimated faster than direct sums.
void plan_winograd(const gossamer_model &m, const Op &op, Dense &d) {
  constexpr int32_t MIN_SIZE = 8;  // channels
  const int32_t compute = m.isa->compute_type[d.in.type];
  if (op.groups != 1 || op.dilation != 1 || op.sh != 1 || op.sw != 1 || d.in.c < MIN_SIZE || d.out.c < MIN_SIZE) return;
  if (compute == U8 || (compute == BF16 && m.isa->amx_tiles)) return;  // more products per cycle
  const int64_t words = compute == F32 ? d.in.c : (d.in.c + 1) / 2;
  int64_t least = cycles_of(m, int64_t(d.out.h) * d.out.w * d.kh * d.kw * words * d.out.c, compute);
  int64_t range = 0;  // of integer sums, the most of any output channel
  if (compute == S16) {
    const auto *bytes = reinterpret_cast<const int8_t *>(m.file.weights + op.weight0);
    const int64_t all = int64_t(d.in.c) * d.kh * d.kw;
    for (int64_t j = 0; j < d.out.c; j++) {
      int64_t total = 0;
      for (int64_t i = 0; i < all; i++) total += std::abs(int64_t(bytes[j * all + i]));
      range = std::max(range, 255 * total + 2);
    }
  }
  Dense candidate = d;
  for (const WinogradTile &tile : WINOGRAD_TILES) {
    const auto &[kh, kw, y, x] = tile;
    // bytes only where all sums are of integers: those of floats would now and then round to another byte
    if (kh != d.kh || kw != d.kw || (compute != S16 && integers_only(tile))) continue;
    if (compute == S16 && (!in_int16(y, x, kh, kw) || range >> (32 - integer_shift(y) - integer_shift(x)))) continue;
    candidate.winograd_h = y, candidate.winograd_w = x;
    const int64_t cycles = winograd_cycles(m, candidate);
    if (cycles < least && winograd_scratch(m, candidate) <= SCRATCH_BYTES)
      least = cycles, d.winograd_h = y, d.winograd_w = x;
  }
}

// The transformed weights, in panels as `pack` makes them for each interpolation point, with biases and scales.
bool pack_winograd(gossamer_model &m, Dense &d, const Op &op, Step &step) {
  const int64_t k = d.in.c, n = d.out.c, taps = int64_t(d.kh) * d.kw, points = int64_t(d.winograd_h) * d.winograd_w;
  const int64_t panel_columns = d.vectors * m.isa->vector, panels = round_up(n, panel_columns) / panel_columns;
  const int32_t type = winograd_type(m, d);
  const bool int16 = type == S16;
  d.words = int32_t(int16 ? (k + 1) / 2 : k), d.tail = 0xFFFFFFFFu, d.micro_kernels = m.isa->micro_kernels[type];
  d.panel_stride = panel_columns * 4 * d.words, d.point_stride = panels * d.panel_stride;
  const auto make = [&](int64_t floats) {
    m.packed.emplace_back();
    return m.packed.back().allocate(size_t(floats) * 4) ? m.packed.back().floats() : nullptr;
  };
  float *const to = make(points * d.point_stride / 4), *const bias = make(panels * panel_columns),
               *const zero_bias = make(panels * panel_columns);
  float *const scale = make(panels * panel_columns), *const zeros = make(k);
  auto *const start = reinterpret_cast<int32_t *>(make(panels * panel_columns)), *const middle =
                                                                                     reinterpret_cast<int32_t *>(
                                                                                         make(panels * panel_columns));
  if (!to || !bias || !zero_bias || !scale || !zeros || !start || !middle) return false;
  d.weight = reinterpret_cast<uint8_t *>(to), d.bias = bias, d.zero_bias = zero_bias, d.scale = scale,
  d.zeros = reinterpret_cast<uint8_t *>(zeros);
  const float *w = m.file.weights;
  const auto *bytes = reinterpret_cast<const int8_t *>(w + op.weight0);
  const auto *halves = reinterpret_cast<const uint16_t *>(w + op.weight0);
  std::memcpy(bias, w + op.bias0, size_t(n) * 4);
  if (int16) d.epilogue.unit = unit_of(d.epilogue, d.out.type, d.out.scale, d.other.c ? d.other.type : -1);
  for (int64_t j = 0; j < n && int16; j++) {
    int64_t sum = 0, total = 0;
    for (int64_t i = 0; i < k * taps; i++)
      sum += bytes[j * k * taps + i], total += std::abs(int64_t(bytes[j * k * taps + i]));
    const float product_step = w[op.scale0 + j] * d.in.scale;
    const SplitBias split = split_bias(bias[j], product_step, INT32_MAX - 255 * total);
    // Shifted sums hold fewer bits: they are taken from the middle of their range.
    const int64_t half = 255 * sum / 2, shift = integer_shift(d.winograd_h) + integer_shift(d.winograd_w);
    middle[j] = int32_t(uint32_t(-half) << shift);
    start[j] = int32_t(split.steps - sum * d.in.zero + half);
    scale[j] = product_step / d.epilogue.unit, bias[j] = split.rest / d.epilogue.unit;
  }
  d.winograd_middle = middle, d.start = start;
  if (d.in.type == U8) std::memset(zeros, d.in.zero, size_t(k) * 4);
  typedef float Columns __attribute__((vector_size(64)));  // kernels of 16 columns side by side
  constexpr int64_t COLUMNS = 16;
  std::vector<float> cached(
      size_t(COLUMNS * PACK_BLOCK * taps));  // theirs of a few channels, so that each cache line is read once
  const auto read = [&](int64_t j, int64_t at) {
    if (op.type0 == F32) return w[op.weight0 + at];
    return op.type0 == BF16 ? from_bf16(halves[at]) : bytes[at] * (int16 ? 1 : w[op.scale0 + j]);
  };
  for (int64_t j = 0; j < n; j += COLUMNS)
    for (int64_t c = 0; c < k; c++) {
      const int64_t columns = std::min(COLUMNS, n - j), ahead = c % PACK_BLOCK * taps;
      for (int64_t i = 0; i < columns && ahead == 0; i++)
        for (int64_t x = 0; x < std::min(PACK_BLOCK, k - c) * taps; x++)
          cached[size_t(i * PACK_BLOCK * taps + x)] = read(j + i, ((j + i) * k + c) * taps + x);
      Columns transformed[MAX_POINTS][MAX_KERNEL_SIDE], column[MAX_POINTS];
      for (int32_t r = 0; r < d.kh; r++) {
        Columns kernel[MAX_KERNEL_SIDE] = {}, across[MAX_POINTS];
        for (int64_t i = 0; i < columns; i++)
          for (int32_t q = 0; q < d.kw; q++)
            kernel[q][i] = cached[size_t(i * PACK_BLOCK * taps + ahead + r * d.kw + q)];
        kernel_transform(d.winograd_w, d.kw, int16, kernel, across);
        for (int32_t q = 0; q < d.winograd_w; q++) transformed[q][r] = across[q];
      }
      for (int32_t q = 0; q < d.winograd_w; q++) {
        kernel_transform(d.winograd_h, d.kh, int16, transformed[q], column);
        for (int32_t r = 0; r < d.winograd_h; r++) {
          const int32_t factor = integer_factor(d.winograd_h, r) * integer_factor(d.winograd_w, q);
          for (int64_t i = 0, run; i < columns; i += run) {  // as far as a panel reaches
            run = std::min(columns - i, panel_columns - (j + i) % panel_columns);
            float *o = to + (r * d.winograd_w + q) * (d.point_stride / 4) +
                       (j + i) / panel_columns * (d.panel_stride / 4) + (int16 ? c / 2 : c) * panel_columns +
                       (j + i) % panel_columns;
            if (!int16) std::memcpy(o, reinterpret_cast<const float *>(&column[r]) + i, size_t(run) * 4);
            for (int64_t x = 0; x < run && int16; x++)
              reinterpret_cast<int16_t *>(o + x)[c % 2] = int16_t(std::nearbyint(column[r][i + x] * float(factor)));
          }
        }
      }
    }
  d.block_positions = tiles_at_once(m, d);
  step.scratch = std::max(step.scratch, size_t(winograd_scratch(m, d)));
  return true;
}

float *pad(gossamer_model &m, const float *bias, int64_t n, int64_t padded) {
  m.packed.emplace_back();
  if (!m.packed.back().allocate(size_t(padded) * 4)) return nullptr;
  std::memcpy(m.packed.back().data, bias, size_t(n) * 4);
  return m.packed.back().floats();
}

}  // namespace gossamer
