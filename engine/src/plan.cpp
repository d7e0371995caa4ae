// The planner: which kernel runs an operation, in which blocks, and the offsets of maps in the arena.
#if defined(GOSSAMER_AMX)
#include <sys/syscall.h>
#endif
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "../include/gossamer.h"
#include "cpu.h"
#include "plan.h"

namespace gossamer {
namespace {

constexpr int64_t MIDDLE_BYTES = 768 << 10;    // of the depthwise rows of all chunks: they stay in the second cache
constexpr int64_t EXPANDED_BYTES = 128 << 10;  // of the expanded rows of one chunk
constexpr int64_t WIDENED_BYTES = 128 << 10;   // of the widened rows of a map of bytes
constexpr int64_t MIN_GEMV_WEIGHTS = 1 << 18;  // of a fully connected layer: fewer floats are packed

}  // namespace

Map shape(const gossamer_model &m, int32_t index) {
  const Value &v = m.file.values[index];
  const int64_t ld = m.ld[size_t(v.parent < 0 ? index : v.parent)];
  return Map{nullptr, v.h, v.w, v.c, v.type, ld, v.type == U8 ? v.scale : 1.0f, v.type == U8 ? v.zero : 0};
}

namespace {

// Fully connected layers that run as GEMV: weights of bytes, and so many of float32 or bfloat16 that reading them dominates.
// Where the ISA multiplies bytes by bytes or bfloat16 by bfloat16 itself, the micro-kernels do it.
bool is_fully_connected_step(const gossamer_model &m, const Op &op) {
  const Value &in = m.file.values[op.in];
  if (!is_fully_connected(op, in)) return false;
  const int64_t numbers = int64_t(in.h) * in.w * in.c * m.file.values[op.out].c;
  if (in.type == U8) return m.isa->compute_type[U8] != U8;
  return op.type0 == U8 || (in.type == F32 && numbers >= MIN_GEMV_WEIGHTS);
}

bool fully_connected_step(gossamer_model &m, const Op &op, Step &step) {
  FullyConnected &d = step.fully_connected;
  const float *w = m.file.weights;
  d.in = shape(m, op.in), d.out = shape(m, op.out);
  if (op.other >= 0) d.other = shape(m, op.other);
  d.weight = reinterpret_cast<const uint8_t *>(w + op.weight0);
  d.bias = w + op.bias0, d.scale = op.type0 == U8 ? w + op.scale0 : nullptr;
  d.type = op.type0, d.epilogue = epilogue_of(op);
  step.expanded = size_t(d.in.h) * size_t(d.in.w) * size_t(d.in.c) * 4;
  if (d.in.type != U8) return true;
  const int64_t row = int64_t(d.in.h) * d.in.w * d.in.c;
  float *const scale = pad(m, d.scale, d.out.c, d.out.c), *const bias = pad(m, d.bias, d.out.c, d.out.c);
  auto *const start = reinterpret_cast<int32_t *>(pad(m, d.bias, 0, d.out.c));
  if (!scale || !bias || !start) return false;
  d.epilogue.unit = unit_of(d.epilogue, d.out.type, d.out.scale, op.other >= 0 ? F32 : -1);  // added as floats
  for (int64_t o = 0; o < d.out.c; o++) {
    int64_t total = 0;
    for (int64_t i = 0; i < row; i++) total += std::abs(int64_t(int8_t(d.weight[o * row + i])));
    const float product_step = d.scale[o] * d.in.scale;
    const SplitBias split = split_bias(d.bias[o], product_step, INT32_MAX - 255 * total);
    start[o] = split.steps, scale[o] = product_step / d.epilogue.unit, bias[o] = split.rest / d.epilogue.unit;
  }
  d.scale = scale, d.bias = bias, d.start = start;
  return true;
}

// Rows of the output whose input, widened, fits into WIDENED_BYTES, one at least; the bytes that they take, or 0 where they need none.
std::pair<int32_t, int64_t> widened(const gossamer_model &m, const Map &in, const Op &op, int32_t rows) {
  if (m.isa->compute_type[in.type] != S16) return {rows, 0};
  const int64_t line = in.w * s16_ld(in), reach = int64_t(op.kh - 1) * op.dilation + 1;
  const int64_t most = (WIDENED_BYTES / line - reach) / op.sh + 1;
  const int64_t block = std::clamp<int64_t>(most, 1, rows);
  return {int32_t(block), std::min<int64_t>((block - 1) * op.sh + reach, in.h) * line};
}

// Bytes of a position of a map that may be written: its channels, and the padding after them where no other value is there.
int64_t writable_bytes_of(const gossamer_model &m, int32_t index) {
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
    d.writable_bytes =
        writable_bytes_of(m, op.out) - int64_t(g) * n * size_of(out.type);  // groups that come later write over it
    if (op.other >= 0) d.other = shape(m, op.other);
    d.vectors = pick_vectors(*m.isa, n);
    d.contiguous_rows = op.groups == 1 && op.dilation == 1 && op.kw > 1 && in.ld == int64_t(in.c) * size_of(in.type) &&
                        in.c * op.kw <= 64 && op.kh <= 8;  // so that the edges of one micro-kernel call fit
    d.kh = op.kh, d.kw = op.kw, d.sh = op.sh, d.sw = op.sw, d.top = op.top, d.left = op.left;
    d.dilation = op.dilation, d.epilogue = epilogue_of(op);
    plan_winograd(m, op, d);
    if (d.winograd_h) {
      if (!pack_winograd(m, d, op, step)) return false;
      step.dense.push_back(d);
      continue;
    }
    const bool plain = op.kh == 1 && op.kw == 1 && op.sh == 1 && op.sw == 1 && op.top == 0 && op.left == 0 &&
                       in.h == out.h && in.w == out.w;
    if (!pack(m, d, op.weight0, op.bias0, op.scale0, op.type0, int64_t(g) * n, n, k, op.kh, op.kw,
              plain ? POINTWISE : WINDOWED, step))
      return false;
    const auto [rows, bytes] = widened(m, d.in, op, d.out.h);
    if (bytes > SCRATCH_BYTES) return false;
    d.block_rows = rows, step.scratch = std::max(step.scratch, size_t(bytes));
    step.dense.push_back(d);
  }
  return true;
}

// A depthwise layer's int8 weights as pairs of int16 of neighbouring rows, and where its sums of bytes start.
bool pack_pairs(gossamer_model &m, const Op &op, Fused &f) {
  const int32_t vector = m.isa->vector, pairs = (op.kh + 1) / 2;
  m.packed.emplace_back();
  if (!m.packed.back().allocate(size_t(f.padded) * size_t(pairs * op.kw) * 4)) return false;
  uint8_t *const to = m.packed.back().data;
  auto *const start = reinterpret_cast<int32_t *>(pad(m, f.bias, 0, f.padded));
  if (!start) return false;
  const auto *bytes = reinterpret_cast<const int8_t *>(m.file.weights + op.weight1);
  for (int32_t c = 0; c < op.mid; c++) {
    int32_t sum = 0;
    for (int32_t y = 0; y < op.kh; y++)
      for (int32_t x = 0; x < op.kw; x++) {
        const int16_t value = bytes[(int64_t(c) * op.kh + y) * op.kw + x];
        const int64_t word = ((int64_t(c / vector) * pairs + y / 2) * op.kw + x) * vector + c % vector;
        std::memcpy(to + word * 4 + y % 2 * 2, &value, 2);
        sum += value;
      }
    start[c] = int32_t(f.bias[c]) - sum * f.in.zero;
  }
  f.pairs = to, f.start = start;
  return true;
}

bool fused_step(gossamer_model &m, const Op &op, Step &step) {
  Fused &f = step.fused;
  f.in = shape(m, op.in), f.out = shape(m, op.out);
  f.kh = op.kh, f.kw = op.kw, f.sh = op.sh, f.sw = op.sw, f.top = op.top, f.left = op.left, f.dilation = op.dilation;
  f.mid = op.mid, f.epilogue = depthwise_epilogue_of(op);
  f.expands = op.weight0 >= 0, f.projects = op.weight2 >= 0;
  const bool integers = op.type1 == U8;  // else as floats, which hold their sums exactly
  const bool square = (op.kh == 3 || op.kh == 5) && op.kw == op.kh && op.sw == op.sh && op.sh <= 2 && op.dilation == 1;
  // not behind an expansion, whose rows stay in the first cache as floats: 9 products of floats take fewer instructions there
  const bool pairs = m.isa->depthwise_bytes && integers && square && !f.expands && f.in.type == U8;
  f.expanded_type = op.expanded_scale > 0 ? F32_STEPS : F32;
  f.expanded_scale = op.expanded_scale > 0 ? op.expanded_scale : 1, f.expanded_zero = op.expanded_zero;
  const int32_t vector = m.isa->vector;
  const float *w = m.file.weights;
  if (f.expands) {
    f.expand.vectors = pick_vectors(*m.isa, op.mid);
    f.chunk = f.expand.vectors * vector;
    f.padded = int32_t(round_up(op.mid, f.chunk));
    f.expand.in = f.in;
    f.expand.out.type = f.expanded_type, f.expand.out.scale = f.expanded_scale;
    f.expand.kh = f.expand.kw = 1;
    f.expand.epilogue = expansion_epilogue_of(op);
    if (!pack(m, f.expand, op.weight0, op.bias0, op.scale0, op.type0, 0, op.mid, f.in.c, 1, 1, IN_PLACE, step))
      return false;
  } else {
    f.chunk = int32_t(std::min<int64_t>(round_up(op.mid, vector), 4 * vector));
    f.padded = int32_t(round_up(op.mid, f.chunk));
  }
  const int32_t taps = op.kh * op.kw;
  m.packed.emplace_back();
  if (!m.packed.back().allocate(size_t(f.padded) * size_t(taps) * 4)) return false;
  float *to = m.packed.back().floats();
  const float unit = f.expands ? f.expanded_scale : f.in.scale;  // maps that are not U8 have scale 1
  const auto *bytes = reinterpret_cast<const int8_t *>(w + op.weight1);
  for (int32_t t = 0; t < taps; t++)
    for (int32_t c = 0; c < op.mid; c++) {
      const int64_t at = f.expands ? int64_t(t) * f.padded + c : (int64_t(c / vector) * taps + t) * vector + c % vector;
      to[at] = integers ? float(bytes[int64_t(c) * taps + t]) : w[op.weight1 + int64_t(c) * taps + t] * unit;
    }
  f.weight = to;
  float *const bias = pad(m, w + op.bias1, op.mid, f.padded);
  if (!bias) return false;
  f.bias = bias;
  const int32_t type = f.projects ? op.type2 : f.out.type, between = f.projects ? m.isa->compute_type[type] : type,
                size = size_of(between);
  if (integers) {
    const float to_scale = f.projects ? op.middle_scale : f.out.scale;
    f.epilogue.unit = unit_of(f.epilogue, type, to_scale, -1);
    float *const scale = pad(m, w + op.scale1, op.mid, f.padded), *const rest = pad(m, bias, 0, f.padded);
    if (!scale || !rest) return false;
    for (int32_t c = 0; c < op.mid; c++) {
      const float product_step = scale[c] * unit;
      const SplitBias split = split_bias(bias[c], product_step, 1 << 23);  // floats hold integers below 2^24
      bias[c] = float(split.steps), scale[c] = product_step / f.epilogue.unit, rest[c] = split.rest / f.epilogue.unit;
    }
    f.scale = scale, f.rest = rest;
    if (pairs && !pack_pairs(m, op, f)) return false;
  }
  if (f.projects) {
    f.middle = Map{nullptr,
                   f.out.h,
                   f.out.w,
                   op.mid,
                   between,
                   int64_t(f.padded) * size,
                   type == U8 ? op.middle_scale : 1.0f,
                   type == U8 ? op.middle_zero : 0};
    Dense &d = f.project;
    d.in = f.middle, d.in.type = type;
    d.writable_bytes = writable_bytes_of(m, op.out);
    d.vectors = pick_vectors(*m.isa, f.out.c);
    d.out = f.out, d.epilogue = epilogue_of(op);
    if (op.other >= 0) d.other = shape(m, op.other);
    if (!pack(m, d, op.weight2, op.bias2, op.scale2, op.type2, 0, f.out.c, op.mid, 1, 1, POINTWISE, step)) return false;
    d.in.type = between;
    d.kh = d.kw = d.sh = d.sw = d.dilation = 1;
  }
  // as many rows at once as the caches hold
  const int64_t row_bytes = int64_t(f.out.w) * f.padded * size;
  f.rows = int32_t(std::clamp<int64_t>(MIDDLE_BYTES / row_bytes, std::min(4, f.out.h), f.out.h));
  const int64_t reach = int64_t(f.kh - 1) * f.dilation + 1;
  const int64_t padded_positions =
      std::max<int64_t>(int64_t(f.out.w - 1) * f.sw + int64_t(f.kw - 1) * f.dilation + 1, f.in.w + f.left);
  const int64_t pitch = padded_positions * f.chunk;
  f.inner = f.dilation == 1 ? 1 : int32_t(std::min<int64_t>(reach, f.out.h));  // so that few rows are moved
  while (f.inner < f.out.h && ((f.inner + 1) * f.sh + reach) * pitch * 4 <= EXPANDED_BYTES) f.inner++;
  const int64_t expanded = f.expands          ? ((f.inner - 1) * f.sh + reach) * pitch * 4
                           : pairs            ? (reach + 1) * padded_positions * f.padded
                           : f.in.type == F32 ? 0
                                              : reach * f.in.w * f.padded * 4;
  if (expanded > SCRATCH_BYTES) return false;
  step.expanded = size_t(expanded);
  if (f.expands && m.isa->compute_type[f.in.type] == S16)  // of the rows that f.rows need; the others take no memory
    step.scratch = std::max(step.scratch, size_t(f.in.h) * size_t(f.in.w) * size_t(s16_ld(f.in)));
  step.middle = f.projects ? size_t(f.rows) * size_t(row_bytes) : 0;
  step.shared = f.projects ? size_t(f.out.h) * size_t(row_bytes) : 0;
  return true;
}

// A root value's bytes in the arena, and the first and the last operation between which it must stay there.
struct Lifetime {
  size_t value;
  int64_t bytes;
  int32_t first, last;
};

// By falling size, each as low as the values that live at the same time allow: the smallest arena for most networks, but every
// value is compared with every other.
void place_by_size(gossamer_model &m, std::vector<Lifetime> lifetimes) {
  std::sort(lifetimes.begin(), lifetimes.end(), [](const Lifetime &a, const Lifetime &b) { return a.bytes > b.bytes; });
  for (size_t i = 0; i < lifetimes.size(); i++) {
    const Lifetime &v = lifetimes[i];
    std::vector<std::pair<int64_t, int64_t>> occupied;
    for (size_t j = 0; j < i; j++)
      if (const Lifetime &o = lifetimes[j]; o.first <= v.last && v.first <= o.last)
        occupied.emplace_back(m.offsets[o.value], m.offsets[o.value] + o.bytes);
    std::sort(occupied.begin(), occupied.end());
    int64_t at = 0;
    for (const auto &[first, last] : occupied) {
      if (at + v.bytes <= first) break;
      at = std::max(at, last);
    }
    m.offsets[v.value] = at;
    m.arena = std::max(m.arena, size_t(at + v.bytes));
  }
}

// In the order of the operations, each into the smallest gap that holds it: n log n steps.
void place_by_time(gossamer_model &m, std::vector<Lifetime> lifetimes) {
  const auto by_first = [](const Lifetime &a, const Lifetime &b) { return a.first < b.first; };
  std::stable_sort(lifetimes.begin(), lifetimes.end(), by_first);
  std::vector<size_t> ending(lifetimes.size());
  for (size_t i = 0; i < ending.size(); i++) ending[i] = i;
  const auto by_last = [&](size_t a, size_t b) { return lifetimes[a].last < lifetimes[b].last; };
  std::stable_sort(ending.begin(), ending.end(), by_last);
  std::map<int64_t, int64_t> gaps;                // from each gap's first byte to its end
  std::set<std::pair<int64_t, int64_t>> by_size;  // their sizes and first bytes
  const auto remove = [&](std::map<int64_t, int64_t>::iterator gap) {
    by_size.erase({gap->second - gap->first, gap->first});
    return gaps.erase(gap);
  };
  const auto insert = [&](int64_t first, int64_t end) {
    auto next = gaps.lower_bound(first);
    if (next != gaps.end() && next->first == end) end = next->second, next = remove(next);
    if (next != gaps.begin() && std::prev(next)->second == first)
      first = std::prev(next)->first, remove(std::prev(next));
    gaps[first] = end, by_size.insert({end - first, first});
  };
  size_t ended = 0;
  for (const Lifetime &v : lifetimes) {
    for (; ended < ending.size() && lifetimes[ending[ended]].last < v.first; ended++) {
      const Lifetime &o = lifetimes[ending[ended]];
      insert(m.offsets[o.value], m.offsets[o.value] + o.bytes);
    }
    const auto fit = by_size.lower_bound({v.bytes, 0});
    int64_t at = int64_t(m.arena), end = at;
    if (fit != by_size.end()) {
      const auto gap = gaps.find(fit->second);
      at = gap->first, end = gap->second;
      remove(gap);
    } else if (!gaps.empty() && std::prev(gaps.end())->second == end) {  // the last gap grows
      at = std::prev(gaps.end())->first;
      remove(std::prev(gaps.end()));
    }
    m.offsets[v.value] = at;
    if (at + v.bytes < end) insert(at + v.bytes, end);
    m.arena = std::max(m.arena, size_t(at + v.bytes));
  }
}

// Root values into one arena: a value's bytes are free again after the last operation that reads it.
void place_values(gossamer_model &m) {
  constexpr size_t FEW_VALUES = 2048;  // whose pairs are compared in a small part of a second
  constexpr int32_t NEVER = -2;
  const Model &f = m.file;
  const size_t count = size_t(f.value_count);
  std::vector<int32_t> born(count, NEVER), dies(count, NEVER);
  auto touch = [&](int32_t value, int32_t when) {
    const size_t r = size_t(f.values[value].parent < 0 ? value : f.values[value].parent);
    if (born[r] == NEVER) born[r] = when;
    dies[r] = std::max(dies[r], when);
  };
  for (int32_t input : f.input_values) touch(input, -1);
  for (int32_t i = 0; i < f.op_count; i++) {
    touch(f.ops[i].in, i);
    if (f.ops[i].other >= 0) touch(f.ops[i].other, i);
    touch(f.ops[i].out, i);
  }
  for (int32_t i = 0; i < f.piece_count; i++) touch(f.pieces[i].value, f.op_count);
  m.ld.assign(count, 0);
  m.offsets.assign(count, 0);
  std::vector<Lifetime> lifetimes;
  for (size_t v = 0; v < count; v++) {
    const Value &value = f.values[v];
    m.ld[v] = (value.c <= 4 ? value.c : round_up(value.c, 16)) * size_of(value.type);
    const int64_t bytes = round_up(int64_t(value.h) * value.w * m.ld[v] + SLACK, 64);
    if (value.parent < 0 && born[v] != NEVER) lifetimes.push_back({v, bytes, born[v], dies[v]});
  }
  if (lifetimes.size() <= FEW_VALUES) place_by_size(m, std::move(lifetimes));
  else place_by_time(m, std::move(lifetimes));
}

// The ranges of weights that an operation reads, as visit(offset, count) in units of 4 bytes.
template <class F>
void visit_weights(const Model &f, const Op &op, F visit) {
  const Value &in = f.values[op.in], &out = f.values[op.out];
  const auto layer = [&](int64_t weight, int32_t type, int64_t n, int64_t scale, int64_t bias, int64_t rows) {
    if (weight < 0) return;
    visit(weight, weight_units(type, n)), visit(bias, rows);
    if (type == U8) visit(scale, rows);
  };
  const int64_t taps = int64_t(op.kh) * op.kw, n = out.c;
  if (op.kind == CONV) layer(op.weight0, op.type0, n * (in.c / op.groups) * taps, op.scale0, op.bias0, n);
  if (op.kind == BLOCK) {
    layer(op.weight0, op.type0, int64_t(op.mid) * in.c, op.scale0, op.bias0, op.mid);
    layer(op.weight1, op.type1, op.mid * taps, op.scale1, op.bias1, op.mid);
    layer(op.weight2, op.type2, op.mid * n, op.scale2, op.bias2, n);
  }
  if (op.kind == AFFINE) visit(op.weight0, in.c), visit(op.bias0, in.c);
  if (op.kind == RESIZE) visit(op.weight0, 2 * int64_t(out.h)), visit(op.bias0, 2 * int64_t(out.w));
}

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

// Add first to end to disjoint ranges; the parts that were in none of them.
Ranges add_range(std::map<int64_t, int64_t> &ranges, int64_t first, int64_t end) {
  Ranges added;
  auto next = ranges.upper_bound(first);
  if (next != ranges.begin() && std::prev(next)->second >= first) --next;
  int64_t at = first, merged_first = first, merged_end = end;
  while (next != ranges.end() && next->first <= end) {
    if (next->first > at) added.emplace_back(at, next->first);
    at = std::max(at, next->second);
    merged_first = std::min(merged_first, next->first), merged_end = std::max(merged_end, next->second);
    next = ranges.erase(next);
  }
  if (at < end) added.emplace_back(at, end);
  ranges[merged_first] = merged_end;
  return added;
}

// Whether an operation's weights are packed, and the file's not read afterwards.
bool is_packed(const gossamer_model &m, const Op &op) {
  return (op.kind == CONV && !is_fully_connected_step(m, op)) || op.kind == BLOCK;
}

// Of each operation the weights that nothing reads once it is packed.
std::vector<Ranges> last_reads(const gossamer_model &m) {
  std::map<int64_t, int64_t> needed;
  std::vector<Ranges> reads(size_t(m.file.op_count));
  for (int32_t i = 0; i < m.file.op_count; i++)
    if (!is_packed(m, m.file.ops[i]))
      visit_weights(m.file, m.file.ops[i],
                    [&](int64_t first, int64_t count) { add_range(needed, first, first + count); });
  for (int32_t i = m.file.op_count; i-- > 0;)
    if (is_packed(m, m.file.ops[i]))
      visit_weights(m.file, m.file.ops[i], [&](int64_t first, int64_t count) {
        for (const auto &part : add_range(needed, first, first + count)) reads[size_t(i)].push_back(part);
      });
  return reads;
}

// Return the memory of the full pages of a range of weights, which are then zeros.
void release_weights(const gossamer_model &m, int64_t first, int64_t end) {
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  const uintptr_t from = (reinterpret_cast<uintptr_t>(m.file.weights + first) + page - 1) / page * page;
  const uintptr_t to = reinterpret_cast<uintptr_t>(m.file.weights + end) / page * page;
  if (from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_DONTNEED);
}

#if defined(GOSSAMER_AMX)
// Whether the system lets this process use AMX: it saves the tile registers of each thread.
bool may_use_amx() {
  constexpr int REQUEST = 0x1023, REGISTERS = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, REQUEST, REGISTERS) == 0;
}
#endif

int choose_isa(const Isa *&isa) {
  const Isa *isas[7];
  int count = 0;
#if defined(__x86_64__) && !defined(GOSSAMER_PORTABLE_ONLY)
#if defined(GOSSAMER_AMX)
  if (cpu().bf16 && cpu().amx && may_use_amx()) isas[count++] = &AMX;
#endif
  if (cpu().bf16) isas[count++] = &AVX512_BF16;
  if (cpu().vnni) isas[count++] = &AVX512_VNNI;
  if (cpu().avx512) isas[count++] = &AVX512;
  if (cpu().avx2) isas[count++] = &AVX2;
#elif defined(__aarch64__) && !defined(GOSSAMER_PORTABLE_ONLY)
  constexpr unsigned long DOTPROD = 1 << 20;  // of the kernel's HWCAP_ASIMDDP, which older headers lack
  if (getauxval(AT_HWCAP) & DOTPROD) isas[count++] = &NEON_DOTPROD;
  isas[count++] = &NEON;
#endif
  isas[count++] = &PORTABLE;
  const char *requested = std::getenv("GOSSAMER_ISA");
  for (int i = 0; i < count; i++)
    if (!requested || !*requested || !std::strcmp(requested, isas[i]->name)) {
      isa = isas[i];
      return GOSSAMER_OK;
    }
  isa = nullptr;
  return std::strcmp(requested, "reference") ? GOSSAMER_ISA : GOSSAMER_OK;
}

}  // namespace

int prepare(gossamer_model &m) {
  if (int code = choose_isa(m.isa)) return code;
  m.values.assign(m.file.values, m.file.values + m.file.value_count);
  for (Value &value : m.values)
    if (m.isa && value.type == BF16) value.type = m.isa->compute_type[BF16];
  m.file.values = m.values.data();
  m.quantised = std::any_of(m.values.begin(), m.values.end(), [](const Value &v) { return v.type == U8; });
  for (int32_t i = 0; i < m.file.op_count; i++) {  // what is rounded within an operation is not among the values
    const Op &op = m.file.ops[i];
    for (float scale :
         {op.sum_scale, op.sum_scale0, op.sum_scale1, op.gate_scale, op.gate_scale0, op.gate_scale1, op.expanded_scale})
      m.quantised |= scale > 0;
    m.quantised |= op.kind == BLOCK && op.weight2 >= 0 && op.type2 == U8;
  }
  place_values(m);
  if (!m.isa) return GOSSAMER_OK;
  m.steps.resize(size_t(m.file.op_count));
  const std::vector<Ranges> unused = last_reads(m);
  for (int32_t i = 0; i < m.file.op_count; i++) {
    const Op &op = m.file.ops[i];
    Step &step = m.steps[size_t(i)];
    if (is_fully_connected_step(m, op)) {
      if (!fully_connected_step(m, op, step)) return GOSSAMER_MEMORY;
    } else if (op.kind == CONV || op.kind == BLOCK) {
      if (op.kind == CONV ? !dense_step(m, op, step) : !fused_step(m, op, step)) return GOSSAMER_MEMORY;
      for (const auto &[first, end] : unused[size_t(i)]) release_weights(m, first, end);
    }
    m.expanded = std::max(m.expanded, step.expanded);
    m.middle = std::max(m.middle, step.middle);
    m.scratch = std::max(m.scratch, step.scratch);
    m.shared = std::max(m.shared, step.shared);
  }
  return GOSSAMER_OK;
}

}  // namespace gossamer
