// The planner, the session and the C interface. Settings, weights and scratch are three structures: what was asked for,
// what all sessions of a model share, and what one session writes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(GOSSAMER_AMX)
#include <sys/syscall.h>
#endif
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../include/gossamer.h"
#include "kernels.h"
#include "model.h"
#include "pool.h"
#include "winograd.h"

using namespace gossamer;

namespace {

constexpr int64_t MIDDLE_BYTES = 768 << 10;    // of the depthwise rows of all chunks: they stay in the second cache
constexpr int64_t EXPANDED_BYTES = 128 << 10;  // of the expanded rows of one chunk
constexpr int64_t WIDE_BYTES = 128 << 10;      // of the widened rows of a map of bytes
constexpr int64_t GATHERED_BYTES = 256 << 10;  // of what positions read, gathered for blocks: a part of the second cache
constexpr int64_t FILTERED_BYTES = 256 << 10;  // of squares at their points and what becomes of them: they stay in the second cache
constexpr int32_t MOST_POINTS = 10, MOST_PLACES = 7;  // of a side of those squares, and of a kernel's
constexpr int64_t LINE_BYTES = 64 << 10;       // of one position, at most
constexpr int64_t POSITIONS = 32;              // of a block
constexpr int64_t WORDS = 16;                  // of k that a block takes at once, at most
constexpr int64_t SCRATCH_BYTES = 1 << 30;     // of the expanded or the widened rows, at most: hostile files ask for more
constexpr size_t OWN_BYTES = 2 << 20;          // of a thread's own maps, so that they stay in its second cache
constexpr int64_t MANY_NUMBERS = 1 << 14;      // of all outputs: fewer are given by one thread
constexpr int64_t MANY_WEIGHTS = 1 << 18;      // of a fully connected layer: fewer floats are packed
constexpr int64_t CONNECTED_AHEAD = 128 << 10;  // of a fully connected layer's weights: fetched before it begins
constexpr int64_t SQUARE = 16;                 // words and columns of weights packed at once
constexpr int64_t SLACK = 256;                 // bytes behind a buffer, for whole registers

// 64-byte aligned memory, zeroed.
struct Bytes {
  uint8_t *data = nullptr;
  void *whole = nullptr;
  Bytes() = default;
  Bytes(const Bytes &) = delete;
  Bytes &operator=(const Bytes &) = delete;
  Bytes(Bytes &&other) noexcept : data(other.data), whole(other.whole) { other.whole = nullptr; }
  ~Bytes() { std::free(whole); }
  bool make(size_t size) {
    whole = std::calloc(size + SLACK + 63, 1);  // large ones take no memory before they are written
    data = reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(whole) + 63) / 64 * 64);
    return whole != nullptr;
  }
  float *floats() const { return reinterpret_cast<float *>(data); }
};

// One group of one operation, ready but for the addresses of its maps.
struct Step {
  std::vector<Dense> dense;  // one a group
  Connected connected{};     // in place of them, where it has weights
  Fused fused{};
  size_t expanded = 0, middle = 0, wide = 0, whole = 0;  // bytes of scratch: a thread's three, and a shared one
};

}  // namespace

struct gossamer_model {
  Model file;
  const Level *level = nullptr;  // null: the reference
  std::vector<Value> values;     // of the file, of the types that the level has arithmetic for
  std::vector<Step> steps;
  std::vector<Bytes> packed;
  std::vector<int64_t> place, ld;  // of each root value: offset in the arena and bytes a position
  size_t arena = 0, expanded = 0, middle = 0, wide = 0, whole = 0;
  ~gossamer_model() {
    if (file.data) munmap(const_cast<uint8_t *>(file.data), file.size);
  }
};

struct gossamer_session {
  const gossamer_model *model;
  Pool pool;
  Bytes whole;
  std::vector<Bytes> arenas;            // one, or one a thread where each may take an image of its own
  std::vector<Bytes> expanded, middle, wide;  // one a thread
  // of the images under way: all of them where each thread takes its own, else one
  const float *input = nullptr;
  float *output = nullptr;
  int64_t images = 0;
  int32_t op = 0;
  int phase = 0;
  gossamer_session(const gossamer_model *m, int threads) : model(m), pool(threads) {}
};

namespace {

// A thread's part of an image: part `part` of `parts`, with the scratch of thread `thread` and the maps of `arena`.
struct Turn {
  const gossamer_session &s;
  uint8_t *arena;
  const float *input;
  float *output;
  int thread, part, parts;
};

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

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

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// How the map of a layer is read: every position once, as it lies, and in no other way; or in any way.
enum Reading { AS_IT_LIES, PLAIN, ANY };

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

Map shape(const gossamer_model &m, int32_t index) {
  const Value &v = m.file.values[index];
  const int64_t ld = m.ld[size_t(v.parent < 0 ? index : v.parent)];
  return Map{nullptr, v.h, v.w, v.c, v.type, ld, v.type == U8 ? v.scale : 1.0f, v.type == U8 ? v.zero : 0};
}

// Weights of bytes, and so many floats or halves that reading them is what takes the time. What a level has arithmetic of its
// own for, bytes that meet bytes or halves that meet halves, is left to the tiles.
bool is_connected_step(const gossamer_model &m, const Op &op) {
  const Value &in = m.file.values[op.in];
  if (!is_connected(op, in)) return false;
  const int64_t numbers = int64_t(in.h) * in.w * in.c * m.file.values[op.out].c;
  if (in.type == U8) return m.level->taken[U8] != U8;
  return op.type0 == U8 || (in.type == F32 && numbers >= MANY_WEIGHTS);
}

void connected_step(const gossamer_model &m, const Op &op, Step &step) {
  Connected &d = step.connected;
  const float *w = m.file.weights;
  d.in = shape(m, op.in), d.out = shape(m, op.out);
  if (op.other >= 0) d.other = shape(m, op.other);
  d.weight = reinterpret_cast<const uint8_t *>(w + op.weight0);
  d.bias = w + op.bias0, d.scale = op.type0 == U8 ? w + op.scale0 : nullptr;
  d.type = op.type0, d.finish = Finish{op.act, op.low, op.high};
  step.expanded = size_t(d.in.h) * size_t(d.in.w) * size_t(d.in.c) * 4;
}

// Rows of the output whose input, widened, fits into WIDE_BYTES, one at least; the bytes that they take, or 0 where they need none.
std::pair<int32_t, int64_t> widened(const gossamer_model &m, const Map &in, const Op &op, int32_t rows) {
  if (m.level->taken[in.type] != WIDE) return {rows, 0};
  const int64_t line = in.w * wide_ld(in), reach = int64_t(op.kh - 1) * op.dilation + 1;
  const int64_t most = (WIDE_BYTES / line - reach) / op.sh + 1;
  const int64_t block = std::clamp<int64_t>(most, 1, rows);
  return {int32_t(block), std::min<int64_t>((block - 1) * op.sh + reach, in.h) * line};
}

// Bytes of a position of a map that nothing else has written before: its channels, and the gap behind them.
int64_t room(const gossamer_model &m, int32_t index) {
  const Map map = shape(m, index);
  return m.file.values[index].parent < 0 ? map.ld : int64_t(map.c) * size_of(map.type);
}

bool dense_step(gossamer_model &m, const Op &op, Step &step) {
  const Map in = shape(m, op.in), out = shape(m, op.out);
  const int32_t k = in.c / op.groups, n = out.c / op.groups;
  for (int32_t g = 0; g < op.groups; g++) {
    Dense d{};
    d.in = in, d.out = out;
    d.in.c = k, d.out.c = n;
    d.room = room(m, op.out) - int64_t(g) * n * size_of(out.type);  // groups that come later write over it
    if (op.other >= 0) d.other = shape(m, op.other);
    d.vectors = pick_vectors(*m.level, n);
    d.lines = op.groups == 1 && op.dilation == 1 && op.kw > 1 && in.ld == int64_t(in.c) * size_of(in.type) && in.c * op.kw <= 64 &&
              op.kh <= 8;  // so that the edges of one tile fit
    d.kh = op.kh, d.kw = op.kw, d.sh = op.sh, d.sw = op.sw, d.top = op.top, d.left = op.left;
    d.dilation = op.dilation, d.finish = Finish{op.act, op.low, op.high};
    plan_points(m, op, d);
    if (d.points_y) {
      if (!pack_points(m, d, op, step)) return false;
      step.dense.push_back(d);
      continue;
    }
    const bool plain = op.kh == 1 && op.kw == 1 && op.sh == 1 && op.sw == 1 && op.top == 0 && op.left == 0 && in.h == out.h &&
                       in.w == out.w;
    if (!pack(m, d, op.weight0, op.bias0, op.scale0, op.type0, int64_t(g) * n, n, k, op.kh, op.kw, plain ? PLAIN : ANY, step))
      return false;
    const auto [rows, bytes] = widened(m, d.in, op, d.out.h);
    if (bytes > SCRATCH_BYTES) return false;
    d.block = rows, step.wide = std::max(step.wide, size_t(bytes));
    step.dense.push_back(d);
  }
  return true;
}

bool fused_step(gossamer_model &m, const Op &op, Step &step) {
  Fused &f = step.fused;
  f.in = shape(m, op.in), f.out = shape(m, op.out);
  f.kh = op.kh, f.kw = op.kw, f.sh = op.sh, f.sw = op.sw, f.top = op.top, f.left = op.left, f.dilation = op.dilation;
  f.mid = op.mid, f.finish = Finish{op.act1, op.low1, op.high1};
  f.expands = op.weight0 >= 0, f.projects = op.weight2 >= 0;
  const int32_t vector = m.level->vector;
  const float *w = m.file.weights;
  if (f.expands) {
    f.expand.vectors = pick_vectors(*m.level, op.mid);
    f.chunk = f.expand.vectors * vector;
    f.padded = int32_t(round_up(op.mid, f.chunk));
    f.expand.in = f.in;
    f.expand.kh = f.expand.kw = 1;
    f.expand.finish = Finish{op.act0, op.low0, op.high0};
    if (!pack(m, f.expand, op.weight0, op.bias0, op.scale0, op.type0, 0, op.mid, f.in.c, 1, 1, AS_IT_LIES, step)) return false;
  } else {
    f.chunk = int32_t(std::min<int64_t>(round_up(op.mid, vector), 4 * vector));
    f.padded = int32_t(round_up(op.mid, f.chunk));
  }
  const int32_t taps = op.kh * op.kw;
  m.packed.emplace_back();
  if (!m.packed.back().make(size_t(f.padded) * size_t(taps) * 4)) return false;
  float *to = m.packed.back().floats();
  for (int32_t t = 0; t < taps; t++)
    for (int32_t c = 0; c < op.mid; c++) {
      const int64_t at = f.expands ? int64_t(t) * f.padded + c : (int64_t(c / vector) * taps + t) * vector + c % vector;
      to[at] = w[op.weight1 + int64_t(c) * taps + t];
    }
  f.weight = to;
  f.bias = pad(m, w + op.bias1, op.mid, f.padded);
  if (!f.bias) return false;
  const int32_t type = f.projects ? op.type2 : f.out.type, between = f.projects ? m.level->taken[type] : type, size = size_of(between);
  if (f.projects) {
    f.middle = Map{nullptr, f.out.h, f.out.w, op.mid, between, int64_t(f.padded) * size,
                   type == U8 ? op.middle_scale : 1.0f, type == U8 ? op.middle_zero : 0};
    Dense &d = f.project;
    d.in = f.middle, d.in.type = type;
    d.room = room(m, op.out);
    d.vectors = pick_vectors(*m.level, f.out.c);
    if (!pack(m, d, op.weight2, op.bias2, op.scale2, op.type2, 0, f.out.c, op.mid, 1, 1, PLAIN, step)) return false;
    d.in.type = between;
    d.kh = d.kw = d.sh = d.sw = d.dilation = 1;
    d.finish = Finish{op.act, op.low, op.high};
    if (op.other >= 0) d.other = shape(m, op.other);
  }
  // as many rows at once as the caches hold
  const int64_t row_bytes = int64_t(f.out.w) * f.padded * size;
  f.rows = int32_t(std::clamp<int64_t>(MIDDLE_BYTES / row_bytes, std::min(4, f.out.h), f.out.h));
  const int64_t reach = int64_t(f.kh - 1) * f.dilation + 1;
  const int64_t held = std::max<int64_t>(int64_t(f.out.w - 1) * f.sw + int64_t(f.kw - 1) * f.dilation + 1, f.in.w + f.left);
  const int64_t pitch = held * f.chunk;
  f.inner = f.dilation == 1 ? 1 : int32_t(std::min<int64_t>(reach, f.out.h));  // so that few of the rows held are moved
  while (f.inner < f.out.h && ((f.inner + 1) * f.sh + reach) * pitch * 4 <= EXPANDED_BYTES) f.inner++;
  const int64_t expanded = f.expands              ? ((f.inner - 1) * f.sh + reach) * pitch * 4
                           : f.in.type == F32 ? 0 : reach * f.in.w * f.padded * 4;
  if (expanded > SCRATCH_BYTES) return false;
  step.expanded = size_t(expanded);
  if (f.expands && m.level->taken[f.in.type] == WIDE)  // of the rows that f.rows need; the others take no memory
    step.wide = std::max(step.wide, size_t(f.in.h) * size_t(f.in.w) * size_t(wide_ld(f.in)));
  step.middle = f.projects ? size_t(f.rows) * size_t(row_bytes) : 0;
  step.whole = f.projects ? size_t(f.out.h) * size_t(row_bytes) : 0;
  return true;
}

// Root values into one arena: a value's place is free again behind the last operation that reads it.
bool place_values(gossamer_model &m) {
  const Model &f = m.file;
  const size_t count = size_t(f.value_count);
  auto root = [&](int32_t v) { return f.values[v].parent < 0 ? v : f.values[v].parent; };
  std::vector<int32_t> born(count, -2), dies(count, -2);
  auto touch = [&](int32_t value, int32_t when) {
    const size_t r = size_t(root(value));
    if (born[r] == -2) born[r] = when;
    dies[r] = std::max(dies[r], when);
  };
  touch(f.input, -1);
  for (int32_t i = 0; i < f.op_count; i++) {
    touch(f.ops[i].in, i);
    if (f.ops[i].other >= 0) touch(f.ops[i].other, i);
    touch(f.ops[i].out, i);
  }
  for (int32_t i = 0; i < f.piece_count; i++) touch(f.pieces[i].value, f.op_count);
  m.ld.assign(count, 0);
  m.place.assign(count, 0);
  std::vector<size_t> order, placed;
  auto need = [&](size_t v) { return round_up(int64_t(f.values[v].h) * f.values[v].w * m.ld[v] + SLACK, 64); };
  for (size_t v = 0; v < count; v++) {
    m.ld[v] = (f.values[v].c <= 4 ? f.values[v].c : round_up(f.values[v].c, 16)) * size_of(f.values[v].type);
    if (f.values[v].parent < 0 && born[v] != -2) order.push_back(v);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return need(a) > need(b); });
  for (size_t v : order) {
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t o : placed)
      if (born[o] <= dies[v] && born[v] <= dies[o]) taken.emplace_back(m.place[o], m.place[o] + need(o));
    std::sort(taken.begin(), taken.end());
    int64_t at = 0;
    for (auto &[first, last] : taken) {
      if (at + need(v) <= first) break;
      at = std::max(at, last);
    }
    m.place[v] = at;
    m.arena = std::max(m.arena, size_t(at + need(v)));
    placed.push_back(v);
  }
  return true;
}

#if defined(GOSSAMER_AMX)
// Whether the processor has AMX, and the system lets this process use it: it gives each thread room for the registers.
bool may_use_blocks() {
  constexpr int REQUEST = 0x1023, REGISTERS = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, REQUEST, REGISTERS) == 0;
}
#endif

int choose_level(const Level *&level) {
  const Level *levels[7];
  int count = 0;
#if defined(__x86_64__) && !defined(GOSSAMER_PORTABLE_ONLY)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  const bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
#if defined(GOSSAMER_AMX)
  if (bf16 && may_use_blocks()) levels[count++] = &AMX;
#endif
  if (bf16) levels[count++] = &AVX512_BF16;
  if (vnni) levels[count++] = &AVX512_VNNI;
  if (avx512) levels[count++] = &AVX512;
  if (avx2) levels[count++] = &AVX2;
#elif defined(__aarch64__) && !defined(GOSSAMER_PORTABLE_ONLY)
  constexpr unsigned long DOTPROD = 1 << 20;  // of the kernel's HWCAP_ASIMDDP, which older headers lack
  if (getauxval(AT_HWCAP) & DOTPROD) levels[count++] = &NEON_DOTPROD;
  levels[count++] = &NEON;
#endif
  levels[count++] = &PORTABLE;
  const char *asked = std::getenv("GOSSAMER_ISA");
  for (int i = 0; i < count; i++)
    if (!asked || !*asked || !std::strcmp(asked, levels[i]->name)) {
      level = levels[i];
      return GOSSAMER_OK;
    }
  level = nullptr;
  return std::strcmp(asked, "reference") ? GOSSAMER_ISA : GOSSAMER_OK;
}

// Pages of the mapped file that are not needed for a while give their memory back; read again, they come back.
void let_go(const uint8_t *data, size_t size) {
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(data) / page * page;
  madvise(reinterpret_cast<void *>(first), reinterpret_cast<uintptr_t>(data) + size - first, MADV_DONTNEED);
}

int prepare(gossamer_model &m) {
  if (int code = choose_level(m.level)) return code;
  m.values.assign(m.file.values, m.file.values + m.file.value_count);
  for (Value &value : m.values)
    if (m.level && value.type == BF16) value.type = m.level->taken[BF16];
  m.file.values = m.values.data();
  place_values(m);
  if (!m.level) return GOSSAMER_OK;
  m.steps.resize(size_t(m.file.op_count));
  for (int32_t i = 0; i < m.file.op_count; i++) {
    const Op &op = m.file.ops[i];
    Step &step = m.steps[size_t(i)];
    if (is_connected_step(m, op)) connected_step(m, op, step);
    else if (op.kind == CONV || op.kind == BLOCK) {
      if (op.kind == CONV ? !dense_step(m, op, step) : !fused_step(m, op, step)) return GOSSAMER_MEMORY;
      let_go(m.file.data, m.file.size);  // what was packed is not read again
    }
    m.expanded = std::max(m.expanded, step.expanded);
    m.middle = std::max(m.middle, step.middle);
    m.wide = std::max(m.wide, step.wide);
    m.whole = std::max(m.whole, step.whole);
  }
  return GOSSAMER_OK;
}

Map map_of(const Turn &turn, int32_t index) {
  const gossamer_model &m = *turn.s.model;
  const Value &v = m.file.values[index];
  const size_t root = size_t(v.parent < 0 ? index : v.parent);
  Map map = shape(m, index);
  map.data = turn.arena + m.place[root] + int64_t(v.first) * size_of(v.type);
  return map;
}

// The share of `count` things that part `part` of `parts` is.
std::pair<int64_t, int64_t> share(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

int32_t panels(const Dense &d, const Map &out, int32_t vector) { return (out.c + d.vectors * vector - 1) / (d.vectors * vector); }

// What a layer's threads share where they do not share its panels, and whether it is enough: squares of minimal filtering, or
// positions.
int64_t positions_of(const Dense &d, const Map &out) { return d.points_y ? squares(d, out) : int64_t(out.h) * out.w; }
bool by_positions(const Turn &turn, const Dense &d, const Map &out) { return positions_of(d, out) >= 32 * turn.parts; }

void run_dense(const Turn &turn, const Dense &d) {
  const Level &level = *turn.s.model->level;
  uint8_t *const wide = turn.s.wide[size_t(turn.thread)].data;
  const int64_t positions = positions_of(d, d.out);
  const int32_t all = panels(d, d.out, level.vector);
  if (by_positions(turn, d, d.out)) {
    const auto [first, last] = share(positions, turn.part, turn.parts);
    level.kernels->dense(d, first, last, 0, all, wide);
  } else {
    const auto [first, last] = share(all, turn.part, turn.parts);
    level.kernels->dense(d, 0, positions, int32_t(first), int32_t(last), wide);
  }
}

Next panel(const Dense &d, int64_t index) {
  return {d.weight + index * d.panel, d.panel};
}

// The weights with which the turn's part of a layer begins.
Next begin(const Turn &turn, const Dense &d, const Map &out) {
  const int32_t vector = turn.s.model->level->vector;
  return panel(d, by_positions(turn, d, out) ? 0 : share(panels(d, out, vector), turn.part, turn.parts).first);
}

bool by_rows(const Fused &f, int parts) { return !f.projects || parts == 1 || f.out.h >= 7 * parts; }

int phases(const gossamer_model &m, int32_t index, int parts) {
  return m.level && m.file.ops[index].kind == BLOCK && !by_rows(m.steps[size_t(index)].fused, parts) ? 2 : 1;
}

int32_t chunks(const Fused &f) { return (f.mid + f.chunk - 1) / f.chunk; }

// The weights with which the turn's part of the operations from `index` on begins, of the first one that has some.
Next begin(const Turn &turn, int32_t index) {
  const gossamer_model &m = *turn.s.model;
  for (; index < m.file.op_count; index++) {
    const Step &step = m.steps[size_t(index)];
    const Fused &f = step.fused;
    if (const Connected &d = step.connected; d.weight) {
      const int64_t row = int64_t(d.in.h) * d.in.w * d.in.c * size_of(d.type);
      const auto [first, last] = share(d.out.c, turn.part, turn.parts);
      return {d.weight + first * row, std::min(CONNECTED_AHEAD, (last - first) * row)};
    }
    if (!step.dense.empty()) return begin(turn, step.dense[0], step.dense[0].out);
    if (f.weight && f.expands)
      return panel(f.expand, by_rows(f, turn.parts) ? 0 : share(chunks(f), turn.part, turn.parts).first);
    if (f.weight && f.projects) return begin(turn, f.project, f.out);
  }
  return {};
}

// Operation `index` on the turn's part of an image.
void operate(const Turn &turn, int32_t index, int phase) {
  const gossamer_session &s = turn.s;
  const Op &op = s.model->file.ops[index];
  const int part = turn.part, parts = turn.parts;
  const Map in = map_of(turn, op.in), out = map_of(turn, op.out);
  Map other{};
  if (op.other >= 0) other = map_of(turn, op.other);
  if (!s.model->level) {
    if (part == 0) reference(op, in, other, out, s.model->file.weights);
    return;
  }
  const Level &level = *s.model->level;
  const Step &step = s.model->steps[size_t(index)];
  switch (op.kind) {
    case CONV:
      if (step.connected.weight) {
        Connected d = step.connected;
        d.in.data = in.data, d.out.data = out.data, d.other.data = other.data;
        const auto [first, last] = share(out.c, part, parts);
        level.kernels->connected(d, int32_t(first), int32_t(last), s.expanded[size_t(turn.thread)].floats());
        break;
      }
      for (size_t g = 0; g < step.dense.size(); g++) {
        Dense d = step.dense[g];
        if (step.dense.size() > 1 && !by_positions(turn, d, out)) d.room = 0;  // another thread's panels lie beside
        d.in.data = in.data + g * size_t(d.in.c) * size_t(size_of(in.type));
        d.out.data = out.data + g * size_t(d.out.c) * size_t(size_of(out.type));
        if (op.other >= 0) d.other.data = other.data + g * size_t(d.out.c) * size_t(size_of(other.type));
        d.next = g + 1 < step.dense.size() ? begin(turn, step.dense[g + 1], out) : begin(turn, index + 1);
        run_dense(turn, d);
      }
      break;
    case BLOCK: {
      Fused f = step.fused;
      f.in.data = in.data, f.out.data = out.data;
      if (f.projects && op.other >= 0) f.project.other.data = other.data;
      float *expanded = s.expanded[size_t(turn.thread)].floats();
      f.project.next = begin(turn, index + 1);
      f.expand.next = f.projects ? begin(turn, f.project, f.out) : f.project.next;
      if (by_rows(f, parts)) {
        const auto [first, last] = share(f.out.h, part, parts);
        level.kernels->fused_rows(f, int32_t(first), int32_t(last), expanded, s.middle[size_t(turn.thread)].data,
                         s.wide[size_t(turn.thread)].data);
        break;
      }
      f.middle.data = s.whole.data;
      if (phase == 0) {
        const auto [first, last] = share(chunks(f), part, parts);
        level.kernels->fused_chunks(f, int32_t(first), int32_t(last), expanded, s.wide[size_t(turn.thread)].data);
      } else {
        f.project.in = f.middle, f.project.out = f.out;
        run_dense(turn, f.project);
      }
      break;
    }
    case MAX_POOL:
    case AVERAGE_POOL: {
      const auto [first, last] = share(out.h, part, parts);
      level.kernels->pool(in, out, op, int32_t(first), int32_t(last));
      break;
    }
    case GLOBAL_AVERAGE:
      if (part == 0) level.kernels->average(in, out);
      break;
    default: {
      const auto [first, last] = share(int64_t(out.h) * out.w, part, parts);
      level.kernels->pointwise(in, other, out, op, s.model->file.weights, first, last);
    }
  }
}

void take_input(const Turn &turn) {
  const Map to = map_of(turn, turn.s.model->file.input);
  const int64_t plane = int64_t(to.h) * to.w;
  const auto [first, last] = share(plane, turn.part, turn.parts);
  if (turn.s.model->level) return turn.s.model->level->kernels->take(turn.input, to, first, last);
  for (int32_t c = 0; c < to.c; c++) {
    const float *from = turn.input + c * plane;
    if (to.type == F32) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<float *>(to.data + p * to.ld)[c] = from[p];
    } else if (to.type == BF16) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<uint16_t *>(to.data + p * to.ld)[c] = to_bf16(from[p]);
    } else {
      const float inverse = 1 / to.scale, zero = float(to.zero);
      for (int64_t p = first; p < last; p++) {  // a number that is none becomes 0
        const float q = from[p] * inverse + zero;
        to.data[p * to.ld + c] = uint8_t(int32_t((q > 0 ? std::min(q, 255.0f) : 0.0f) + 12582912.0f - 12582912.0f));
      }
    }
  }
}

float number(const Map &m, int64_t position, int32_t c) {
  const uint8_t *at = m.data + position * m.ld;
  if (m.type == F32) return reinterpret_cast<const float *>(at)[c];
  if (m.type == U8) return float(at[c] - m.zero) * m.scale;
  return from_bf16(reinterpret_cast<const uint16_t *>(at)[c]);
}

// The pieces of all outputs one behind the other, each channels first or channels last.
void give_outputs(const Turn &turn) {
  const Model &f = turn.s.model->file;
  float *to = turn.output;
  for (int32_t i = 0; i < f.piece_count; i++) {
    const Map from = map_of(turn, f.pieces[i].value);
    const int64_t plane = int64_t(from.h) * from.w;
    const bool last_axis = f.pieces[i].channels_last;
    const int64_t position = last_axis ? from.c : 1, channel = last_axis ? 1 : plane;  // numbers from one to the next
    const auto [first, last] = share(plane, turn.part, turn.parts);
    for (int64_t p = first; p < last; p++)
      for (int32_t c = 0; c < from.c; c++) to[p * position + c * channel] = number(from, p, c);
    to += plane * from.c;
  }
}

Turn turn_of(const gossamer_session &s, int thread) {
  return Turn{s, s.arenas[0].data, s.input, s.output, thread, thread, s.pool.threads()};
}

void take_part(void *context, int t) { take_input(turn_of(*static_cast<gossamer_session *>(context), t)); }

void operate_part(void *context, int t) {
  const gossamer_session &s = *static_cast<gossamer_session *>(context);
  operate(turn_of(s, t), s.op, s.phase);
}

void give_part(void *context, int t) { give_outputs(turn_of(*static_cast<gossamer_session *>(context), t)); }

// One image, each of its operations shared by all threads; the nanoseconds that each takes are added, or `spent` is null.
void run_image(gossamer_session &s, int64_t *spent) {
  using Clock = std::chrono::steady_clock;
  s.pool.run(take_part, &s);
  for (s.op = 0; s.op < s.model->file.op_count; s.op++) {
    const auto start = spent ? Clock::now() : Clock::time_point();
    const int count = phases(*s.model, s.op, s.pool.threads());
    for (s.phase = 0; s.phase < count; s.phase++) s.pool.run(operate_part, &s);
    if (spent) spent[s.op] += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
  }
  if (s.model->file.numbers >= MANY_NUMBERS) s.pool.run(give_part, &s);
  else give_outputs(Turn{s, s.arenas[0].data, s.input, s.output, 0, 0, 1});
}

// A thread's share of the images, each alone: no thread waits for another.
void run_share(void *context, int t) {
  const gossamer_session &s = *static_cast<gossamer_session *>(context);
  const Model &f = s.model->file;
  const Value &in = f.values[f.input];
  const auto [first, last] = share(s.images, t, s.pool.threads());
  for (int64_t i = first; i < last; i++) {
    const Turn turn{s, s.arenas[size_t(t)].data, s.input + i * in.h * in.w * in.c, s.output + i * f.numbers, t, 0, 1};
    take_input(turn);
    for (int32_t o = 0; o < f.op_count; o++) operate(turn, o, 0);
    give_outputs(turn);
  }
}

// As many images as all threads get the same number of, where each thread has maps of its own; the others one by one.
int run_images(gossamer_session &s, const float *input, int64_t images, float *output, int64_t *spent) {
  const Model &f = s.model->file;
  const Value &in = f.values[f.input];
  const int64_t threads = s.pool.threads(), alone = s.arenas.size() > 1 && !spent ? images / threads * threads : 0;
  s.input = input, s.output = output, s.images = alone;
  if (alone > 0) s.pool.run(run_share, &s);
  for (int64_t i = alone; i < images; i++) {
    s.input = input + i * in.h * in.w * in.c;
    s.output = output + i * f.numbers;
    run_image(s, spent);
  }
  return GOSSAMER_OK;
}

}  // namespace

extern "C" {

const char *gossamer_error_text(int code) {
  static const char *const texts[] = {
      "done",
      "an argument is null or outside its range",
      "memory is exhausted",
      "the file cannot be opened or mapped",
      "N1: not a compiled network",
      "N2: of a version that this engine does not know",
      "N3: shorter or longer than it says",
      "N4: damaged: the checksum is another",
      "N5: a table lies outside the file, or is not aligned",
      "N6: a value has sides out of range, or is a slice outside its parent",
      "N7: an operation has a kind, an activation or attributes out of range",
      "N8: an operation reads what no earlier one wrote, or writes twice",
      "N9: shapes do not follow from each other",
      "N10: weights lie outside their table, or a resize reads outside its map",
      "N11: an output has no name or no shape, or its pieces do not fill it",
      "N12: weights are of a type that their map cannot meet, or int8 ones have a scale that is none",
      "GOSSAMER_ISA asks for an instruction set that is none of reference, portable, avx2, avx512, avx512_vnni, avx512_bf16, amx, neon and neon_dotprod, or that this machine lacks",
  };
  const int count = int(sizeof texts / sizeof *texts);
  return code >= 0 && code < count ? texts[code] : "unknown error";
}

int gossamer_open(const char *path, gossamer_model **model) {
  if (!path || !model) return GOSSAMER_ARGUMENT;
  *model = nullptr;
  try {
    auto made = std::make_unique<gossamer_model>();
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return GOSSAMER_FILE;
    struct stat about {};
    const bool known = fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0;
    void *data = known ? mmap(nullptr, size_t(about.st_size), PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (data == MAP_FAILED) return GOSSAMER_FILE;
    made->file.data = static_cast<const uint8_t *>(data);
    made->file.size = size_t(about.st_size);
    if (int code = check(made->file, let_go)) return code;
    if (int code = prepare(*made)) return code;
    *model = made.release();
    return GOSSAMER_OK;
  } catch (const std::bad_alloc &) {
    return GOSSAMER_MEMORY;
  } catch (...) {
    return GOSSAMER_ARGUMENT;
  }
}

int gossamer_describe(const gossamer_model *model, int32_t input[3], int64_t *outputs) {
  if (!model || !input || !outputs) return GOSSAMER_ARGUMENT;
  const Value &in = model->file.values[model->file.input];
  input[0] = in.h, input[1] = in.w, input[2] = in.c;
  *outputs = model->file.numbers;
  return GOSSAMER_OK;
}

int gossamer_output_count(const gossamer_model *model, int32_t *count) {
  if (!model || !count) return GOSSAMER_ARGUMENT;
  *count = model->file.output_count;
  return GOSSAMER_OK;
}

int gossamer_output(const gossamer_model *model, int32_t index, const char **name, int32_t *rank, int32_t sides[4],
                    int64_t *first) {
  if (!model || !name || !rank || !sides || !first || index < 0 || index >= model->file.output_count) return GOSSAMER_ARGUMENT;
  const Output *outputs = model->file.outputs;
  *first = 0;
  for (int32_t i = 0; i < index; i++) {
    int64_t held = 1;
    for (int32_t axis = 0; axis < outputs[i].rank; axis++) held *= outputs[i].sides[axis];
    *first += held;
  }
  *name = outputs[index].name;
  *rank = outputs[index].rank;
  for (int32_t axis = 0; axis < 4; axis++) sides[axis] = axis < *rank ? outputs[index].sides[axis] : 1;
  return GOSSAMER_OK;
}

int gossamer_card(const gossamer_model *model, const char **text, size_t *size) {
  if (!model || !text || !size) return GOSSAMER_ARGUMENT;
  *text = model->file.card;
  *size = model->file.card_size;
  return GOSSAMER_OK;
}

int gossamer_session_open(const gossamer_model *model, int threads, gossamer_session **session) {
  if (!model || !session || threads < 1 || threads > 256) return GOSSAMER_ARGUMENT;
  *session = nullptr;
  try {
    auto made = std::make_unique<gossamer_session>(model, threads);
    made->expanded.resize(size_t(threads));
    made->middle.resize(size_t(threads));
    made->wide.resize(size_t(threads));
    made->arenas.resize(model->arena <= OWN_BYTES ? size_t(threads) : 1);
    bool fits = made->whole.make(threads > 1 ? model->whole : 0);
    for (Bytes &arena : made->arenas) fits = fits && arena.make(model->arena);
    for (int t = 0; t < threads; t++)
      fits = fits && made->expanded[size_t(t)].make(model->expanded) && made->middle[size_t(t)].make(model->middle) &&
             made->wide[size_t(t)].make(model->wide);
    if (!fits) return GOSSAMER_MEMORY;
    *session = made.release();
    return GOSSAMER_OK;
  } catch (...) {  // bad_alloc, or a thread that cannot be started
    return GOSSAMER_MEMORY;
  }
}

const char *gossamer_session_isa(const gossamer_session *session) { 
  if (!session) return "";
  return session->model->level ? session->model->level->name : "reference";
 }

int gossamer_run(gossamer_session *session, const float *input, int64_t images, float *output) {
  if (!session || !input || !output || images < 0) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nullptr);
}

int gossamer_profile(gossamer_session *session, const float *input, int64_t images, float *output, int64_t *nanoseconds) {
  if (!session || !input || !output || images < 0 || !nanoseconds) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nanoseconds);
}

int gossamer_points(const gossamer_model *model, int32_t operation, int32_t points[2]) {
  if (!model || !points || operation < 0 || operation >= model->file.op_count) return GOSSAMER_ARGUMENT;
  points[0] = points[1] = 0;
  if (model->level && !model->steps[size_t(operation)].dense.empty()) {
    const Dense &d = model->steps[size_t(operation)].dense[0];
    points[0] = d.points_y, points[1] = d.points_x;
  }
  return GOSSAMER_OK;
}

void gossamer_session_close(gossamer_session *session) { delete session; }
void gossamer_close(gossamer_model *model) { delete model; }

}  // extern "C"
