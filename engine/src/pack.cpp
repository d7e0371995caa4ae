// Weights in the order in which the kernels read them: panels of columns, for tiles, for blocks, or at the points of minimal
// filtering, which is chosen here.
#include <algorithm>

#include "plan.h"
#include "winograd.h"

namespace gossamer {
namespace {

constexpr int64_t GATHERED_BYTES = 256 << 10;  // of what positions read, gathered for blocks: a part of the second cache
constexpr int64_t FILTERED_BYTES = 256 << 10;  // of squares at their points and what becomes of them: they stay in the second cache
constexpr int32_t MOST_POINTS = 10, MOST_PLACES = 7;  // of a side of those squares, and of a kernel's
constexpr int64_t LINE_BYTES = 64 << 10;       // of one position, at most
constexpr int64_t POSITIONS = 32;              // of a block
constexpr int64_t WORDS = 16;                  // of k that a block takes at once, at most
constexpr int64_t SQUARE = 16;                 // words and columns of weights packed at once

}  // namespace

int pick_vectors(const Level &level, int32_t n) {
  // of the tiles by their registers across; of three at most, the two widest have the same pace from registers, but tiles
  // of two read fewer weights
  static const double paces[2][5] = {{0, 0.75, 1.0, 1.0, 1.0}, {0, 0.75, 0.95, 1.0, 0.97}};
  const double *const pace = paces[level.widest > 3];
  int best = 1;
  double least = 1e30;
  for (int v = 1; v <= level.widest; v++) {
    const double cost = double(round_up(n, v * level.vector)) / pace[v];
    if (cost < least) least = cost, best = v;
  }
  return best;
}

namespace {

// Whether sums are made in blocks, and of what: d.words and d.tail are known. The bytes of a thread's scratch that it takes.
int64_t plan_blocks(const gossamer_model &m, Dense &d, int32_t type, int64_t taps, int64_t columns, Reading reading) {
  constexpr int64_t FEW = 4;  // words of k, for which a block is not worth its way
  const int64_t words = taps * d.words;
  if (!m.level->blocks || type == F32 || words < FEW) return 0;
  // What tiles need for a position, in cycles, is to be twice what it costs to gather what it reads.
  const int64_t tiled = columns * words / (type == U8 ? 32 : 8), gathered = 8 * taps + 10;
  if (reading == ANY && tiled < 2 * gathered) return 0;
  // Steps of equal size need no zeros behind the last word. Bytes may have others behind them, whose weights are 0, where
  // bfloat16 may have no numbers.
  const int64_t least = (words + WORDS - 1) / WORDS;
  int64_t step = WORDS;
  for (int64_t steps = least; step == WORDS && steps <= least + least / 2; steps++)
    if (words % steps == 0 && words / steps < WORDS) step = words / steps;
  const bool even = words % step == 0;
  const bool lies = reading != ANY && d.tail == 0xFFFFFFFFu && even;
  d.gathers = reading == ANY || (type == BF16 && !lies);
  d.line = round_up(words, step) * 4;
  if (d.gathers && (reading == AS_IT_LIES || d.line > LINE_BYTES)) return 0;
  d.step = int32_t(step);
  if (d.gathers) d.line = round_up(d.line, 64);
  d.at_once = std::clamp(GATHERED_BYTES / d.line / POSITIONS, int64_t(1), int64_t(8)) * POSITIONS;
  return d.gathers ? d.at_once * d.line : 0;
}

}  // namespace

// A layer's weights and biases in panels of `wide` columns: for each panel, tap and word of k, the columns side by side.
// n rows from `row0` on of (rows, k, taps) weights, which the type of the map that they meet says how to multiply.
bool pack(gossamer_model &m, Dense &d, int64_t weight, int64_t bias, int64_t scale, int32_t type, int64_t row0, int64_t n,
          int64_t channels, int64_t kh, int64_t kw, Reading reading, Step &step) {
  const int64_t k = d.lines ? channels * kw : channels, taps = d.lines ? kh : kh * kw, all = channels * kh * kw;
  const int32_t map = m.level->taken[d.in.type], size = size_of(map), each = 4 / size;  // each: channels of a word
  d.words = int32_t((k + each - 1) / each);
  d.tail = k % each ? (1u << (8 * size * (k % each))) - 1 : 0xFFFFFFFFu;
  step.wide = std::max(step.wide, size_t(plan_blocks(m, d, map, taps, n, reading)));
  if (d.step && reading != AS_IT_LIES) d.vectors = n > m.level->vector ? 2 : 1;  // what a block is wide
  const int64_t wide = d.vectors * m.level->vector, panels = round_up(n, wide) / wide;
  const int64_t words = d.step ? round_up(taps * d.words, d.step) : taps * d.words;
  d.panel = wide * 4 * words;
  const auto make = [&](size_t bytes) {
    m.packed.emplace_back();
    return m.packed.back().make(bytes) ? m.packed.back().data : nullptr;
  };
  uint8_t *to = make(size_t(panels * d.panel));
  uint8_t *const biases = make(size_t(panels * wide) * 4), *const scales = make(size_t(panels * wide) * 4);
  uint8_t *const zeros = make(size_t(k) * 4);
  if (!to || !biases || !scales || !zeros) return false;
  d.weight = to, d.tiles = m.level->tiles[map];
  const float *w = m.file.weights;
  const auto *bytes = reinterpret_cast<const int8_t *>(w + weight);
  const auto *halves = reinterpret_cast<const uint16_t *>(w + weight);
  // squares of words by columns, so that each cache line is read once and written once
  const auto square = [&](int64_t p, int64_t t, int64_t x0, int64_t j0) {
    const int64_t first = p * wide + j0, columns = std::min({SQUARE, wide - j0, n - first});
    for (int64_t at = x0 * each; at < std::min((x0 + SQUARE) * each, k); at++) {
      const int64_t channel = at % channels, tap = d.lines ? t * kw + at / channels : t;
      const int64_t from = (row0 + first) * all + channel * kh * kw + tap;
      uint8_t *o = to + p * d.panel + ((t * d.words + at / each) * wide + j0) * 4 + at % each * size;
      for (int64_t j = 0; j < columns; j++, o += 4) {
        const int64_t at = from + j * all;
        const int16_t wide = bytes[at];
        if (map == U8) *o = uint8_t(wide);
        else if (map == WIDE) std::memcpy(o, &wide, 2);
        else if (map == BF16) std::memcpy(o, &halves[at], 2);
        else {
          const float value = type == F32 ? w[weight + at] : type == BF16 ? from_bf16(halves[at]) : wide * w[scale + row0 + first + j];
          std::memcpy(o, &value, 4);
        }
      }
    }
  };
  for (int64_t p = 0; p < panels; p++)
    for (int64_t t = 0; t < taps; t++)
      for (int64_t x0 = 0; x0 < d.words; x0 += SQUARE)
        for (int64_t j0 = 0; j0 < std::min(wide, n - p * wide); j0 += SQUARE) square(p, t, x0, j0);
  auto *b = reinterpret_cast<float *>(biases), *s = reinterpret_cast<float *>(scales);
  for (int64_t j = 0; j < n; j++) {
    b[j] = w[bias + row0 + j];
    if (d.in.type != U8) continue;
    s[j] = w[scale + row0 + j] * d.in.scale;
    int64_t sum = 0;  // what the map's zero adds to every position, those outside among them
    for (int64_t i = 0; i < all; i++) sum += bytes[(row0 + j) * all + i];
    b[j] -= float(double(sum) * (d.in.zero - m.level->flip) * s[j]);
  }
  if (map == U8) std::memset(zeros, d.in.zero, size_t(k));
  if (map == WIDE) std::fill_n(reinterpret_cast<uint16_t *>(zeros), k, uint16_t(d.in.zero));
  d.bias = b, d.scale = s, d.zeros = zeros;
  return true;
}

// Squares that cover the outputs.
int64_t squares(const Dense &d, const Map &out) {
  const int32_t down = d.points_y - d.kh + 1, across = d.points_x - d.kw + 1;
  return int64_t((out.h + down - 1) / down) * ((out.w + across - 1) / across);
}

namespace {

// What squares are at their points: floats, or words.
int32_t at_points(const gossamer_model &m, const Dense &d) {
  return m.level->taken[d.in.type] == WIDE && in_words(d.points_y, d.points_x) ? WIDE : F32;
}

// Bytes of a square at one of the points: of its channels, and of all panels of columns.
int64_t square_bytes(const gossamer_model &m, const Dense &d) {
  return round_up(d.in.c, 16) * (at_points(m, d) == WIDE ? 2 : 4) + round_up(d.out.c, d.vectors * m.level->vector) * 4;
}

// How many squares at once: what they are at the points stays in the second cache, but weights that are read for a few
// squares only cost more than that. In equal parts.
int64_t squares_at_once(const gossamer_model &m, const Dense &d) {
  const int64_t points = int64_t(d.points_y) * d.points_x, all = squares(d, d.out);
  const int64_t most = std::max<int64_t>({FILTERED_BYTES / (points * square_bytes(m, d)), std::max(d.in.c, d.out.c) / 2, 1});
  const int64_t parts = (all + most - 1) / most;
  return (all + parts - 1) / parts;
}

int64_t squares_scratch(const gossamer_model &m, const Dense &d) {
  return int64_t(d.points_y) * d.points_x * (squares_at_once(m, d) * square_bytes(m, d) + 128);
}

// Cycles of so many products of words, which are of two instructions where they are of integers.
int64_t cycles_of(const gossamer_model &m, int64_t products, int32_t type) { return products / (type == WIDE ? 3 : 4) * 2 / m.level->vector; }

// Cycles that an image takes by squares: products, the ways to the points and back, or the weights, where they take longer.
// The factors are those of a processor with AVX2, whose memory gives a thread 4 bytes a cycle.
int64_t squares_cycles(const gossamer_model &m, const Dense &d) {
  const int32_t type = at_points(m, d);
  const int64_t points = int64_t(d.points_y) * d.points_x, n = d.out.c, count = squares(d, d.out);
  const int64_t words = type == WIDE ? (d.in.c + 1) / 2 : d.in.c;
  const int64_t products = cycles_of(m, points * count * words * n, type), ways = points * count * (words + n) / m.level->vector;
  return std::max(products * 6 / 5 + 5 * ways, points * words * n);
}

}  // namespace

// Whether sums are found by minimal filtering, and by squares of how many points.
void plan_points(const gossamer_model &m, const Op &op, Dense &d) {
  static constexpr int32_t SQUARES[][4] = {{3, 3, 6, 6}, {5, 5, 6, 6}, {1, 3, 1, 6}, {3, 1, 6, 1}, {1, 7, 1, 10},
                                           {7, 1, 10, 1}, {3, 3, 4, 4}, {1, 3, 1, 4}, {3, 1, 4, 1}};
  constexpr int32_t FEW = 8, MANY = 1024;  // channels; MANY: whose sums of words, 4 * 9 * 255 * 128 each at most, fit into 32 bits
  const int32_t taken = m.level->taken[d.in.type];
  if (op.groups != 1 || op.dilation != 1 || op.sh != 1 || op.sw != 1 || d.in.c < FEW || d.out.c < FEW) return;
  if (taken == U8 || (taken == BF16 && m.level->blocks) || (taken == WIDE && d.in.c > MANY)) return;  // U8, blocks: more products a cycle
  const int64_t words = taken == F32 ? d.in.c : (d.in.c + 1) / 2;
  int64_t least = cycles_of(m, int64_t(d.out.h) * d.out.w * d.kh * d.kw * words * d.out.c, taken);
  Dense tried = d;
  for (const auto &[kh, kw, y, x] : SQUARES) {
    if (kh != d.kh || kw != d.kw) continue;
    tried.points_y = y, tried.points_x = x;
    const int64_t cycles = squares_cycles(m, tried);
    if (cycles < least && squares_scratch(m, tried) <= SCRATCH_BYTES) least = cycles, d.points_y = y, d.points_x = x;
  }
}

// The weights at the points, each in panels as `pack` makes them, and what they are to be multiplied with.
bool pack_points(gossamer_model &m, Dense &d, const Op &op, Step &step) {
  const int64_t k = d.in.c, n = d.out.c, taps = int64_t(d.kh) * d.kw, points = int64_t(d.points_y) * d.points_x;
  const int64_t wide = d.vectors * m.level->vector, panels = round_up(n, wide) / wide;
  const int32_t type = at_points(m, d);
  const bool whole = type == WIDE;
  d.words = int32_t(whole ? (k + 1) / 2 : k), d.tail = 0xFFFFFFFFu, d.tiles = m.level->tiles[type];
  d.panel = wide * 4 * d.words, d.matrix = panels * d.panel;
  const auto make = [&](int64_t floats) {
    m.packed.emplace_back();
    return m.packed.back().make(size_t(floats) * 4) ? m.packed.back().floats() : nullptr;
  };
  float *const to = make(points * d.matrix / 4), *const bias = make(panels * wide), *const none = make(panels * wide);
  float *const scale = make(panels * wide), *const zeros = make(k);
  if (!to || !bias || !none || !scale || !zeros) return false;
  d.weight = reinterpret_cast<uint8_t *>(to), d.bias = bias, d.none = none, d.scale = scale, d.zeros = reinterpret_cast<uint8_t *>(zeros);
  const float *w = m.file.weights;
  const auto *bytes = reinterpret_cast<const int8_t *>(w + op.weight0);
  const auto *halves = reinterpret_cast<const uint16_t *>(w + op.weight0);
  std::memcpy(bias, w + op.bias0, size_t(n) * 4);
  const float unit = !whole ? d.in.scale : d.kh > 1 && d.kw > 1 ? 4 : 2;  // times which a kernel of integers has integers at the points
  for (int64_t j = 0; j < n && d.in.type == U8; j++) {
    int64_t sum = 0;
    for (int64_t i = 0; i < k * taps; i++) sum += bytes[j * k * taps + i];
    bias[j] -= float(double(sum) * d.in.zero) * (w[op.scale0 + j] * d.in.scale);
    scale[j] = w[op.scale0 + j] * d.in.scale / unit;
  }
  if (d.in.type == U8) std::memset(zeros, d.in.zero, size_t(k) * 4);
  typedef float Some __attribute__((vector_size(64)));  // kernels of as many columns side by side
  constexpr int64_t SOME = 16;
  std::vector<float> near(size_t(SOME * SQUARE * taps));  // theirs of a few channels, so that each cache line is read once
  const auto read = [&](int64_t j, int64_t at) {
    if (op.type0 == F32) return w[op.weight0 + at];
    return op.type0 == BF16 ? from_bf16(halves[at]) : bytes[at] * unit * (whole ? 1 : w[op.scale0 + j]);
  };
  for (int64_t j = 0; j < n; j += SOME)
    for (int64_t c = 0; c < k; c++) {
      const int64_t columns = std::min(SOME, n - j), ahead = c % SQUARE * taps;
      for (int64_t i = 0; i < columns && ahead == 0; i++)
        for (int64_t x = 0; x < std::min(SQUARE, k - c) * taps; x++) near[size_t(i * SQUARE * taps + x)] = read(j + i, ((j + i) * k + c) * taps + x);
      Some turned[MOST_POINTS][MOST_PLACES], column[MOST_POINTS];
      for (int32_t r = 0; r < d.kh; r++) {
        Some kernel[MOST_PLACES] = {}, across[MOST_POINTS];
        for (int64_t i = 0; i < columns; i++)
          for (int32_t q = 0; q < d.kw; q++) kernel[q][i] = near[size_t(i * SQUARE * taps + ahead + r * d.kw + q)];
        kernel_at_points(d.points_x, d.kw, kernel, across);
        for (int32_t q = 0; q < d.points_x; q++) turned[q][r] = across[q];
      }
      for (int32_t q = 0; q < d.points_x; q++) {
        kernel_at_points(d.points_y, d.kh, turned[q], column);
        for (int32_t r = 0; r < d.points_y; r++)
          for (int64_t i = 0, run; i < columns; i += run) {  // as far as a panel reaches
            run = std::min(columns - i, wide - (j + i) % wide);
            float *o = to + (r * d.points_x + q) * (d.matrix / 4) + (j + i) / wide * (d.panel / 4) + (whole ? c / 2 : c) * wide + (j + i) % wide;
            if (!whole) std::memcpy(o, reinterpret_cast<const float *>(&column[r]) + i, size_t(run) * 4);
            for (int64_t x = 0; x < run && whole; x++) reinterpret_cast<int16_t *>(o + x)[c % 2] = int16_t(column[r][i + x]);
          }
      }
    }
  d.at_once = squares_at_once(m, d);
  step.wide = std::max(step.wide, size_t(squares_scratch(m, d)));
  return true;
}

float *pad(gossamer_model &m, const float *bias, int64_t n, int64_t padded) {
  m.packed.emplace_back();
  if (!m.packed.back().make(size_t(padded) * 4)) return nullptr;
  std::memcpy(m.packed.back().data, bias, size_t(n) * 4);
  return m.packed.back().floats();
}

}  // namespace gossamer
