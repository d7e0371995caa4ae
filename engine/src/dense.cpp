// Dense convolutions, of one group or several: direct sums by the micro-kernels, Winograd convolution, or AMX tiles.
#include <algorithm>

#include "kernel.h"
#include "winograd.h"

namespace gossamer {
namespace {

constexpr int64_t WIDENED_BYTES = 128 << 10;  // of the widened rows of a map of bytes

// Rows of the output whose input, widened, fits into WIDENED_BYTES, one at least; the bytes that they take, or 0 where they need none.
std::pair<int32_t, int64_t> widened(const gossamer_model &m, const Map &in, const Op &op, int32_t rows) {
  if (m.isa->compute_type[in.type] != S16) return {rows, 0};
  const int64_t line = in.w * s16_ld(in), reach = int64_t(op.kh - 1) * op.dilation + 1;
  const int64_t most = (WIDENED_BYTES / line - reach) / op.sh + 1;
  const int64_t block = std::clamp<int64_t>(most, 1, rows);
  return {int32_t(block), std::min<int64_t>((block - 1) * op.sh + reach, in.h) * line};
}

int32_t panels(const Dense &d, const Map &out, int32_t vector) {
  return (out.c + d.vectors * vector - 1) / (d.vectors * vector);
}

// What is split among a layer's threads where its panels are not: Winograd tiles or positions; and whether there are enough.
int64_t positions_of(const Dense &d, const Map &out) {
  return d.winograd_h ? winograd_tiles(d, out) : int64_t(out.h) * out.w;
}
bool by_positions(const WorkItem &item, const Dense &d, const Map &out) {
  return positions_of(d, out) >= 32 * item.threads;
}

}  // namespace

int64_t writable_bytes_of(const gossamer_model &m, int32_t index) {
  const Map map = shape(m, index);
  return m.file.values[index].parent < 0 ? map.ld : int64_t(map.c) * size_of(map.type);
}

void run_dense(const WorkItem &item, const Dense &d) {
  const Isa &isa = *item.model.isa;
  uint8_t *const scratch = item.scratch;
  const int64_t positions = positions_of(d, d.out);
  const int32_t all = panels(d, d.out, isa.vector);
  if (by_positions(item, d, d.out)) {
    const auto [first, last] = work_chunk(positions, item.part, item.parts);
    isa.kernels->dense(d, first, last, 0, all, scratch);
  } else {
    const auto [first, last] = work_chunk(all, item.part, item.parts);
    if (first < last) isa.kernels->dense(d, 0, positions, int32_t(first), int32_t(last), scratch);
  }
}

PrefetchRange panel_weights(const Dense &d, int64_t index) {
  return {d.weight + index * d.panel_stride, d.panel_stride};
}

// The weights that the work item reads first of a layer.
PrefetchRange first_weights(const WorkItem &item, const Dense &d, const Map &out) {
  const int32_t vector = item.model.isa->vector;
  return panel_weights(
      d, by_positions(item, d, out) ? 0 : work_chunk(panels(d, out, vector), item.part, item.parts).first);
}

int dense_work_chunks(const gossamer_model &m, const Dense &d, const Map &out, int64_t macs, int threads) {
  constexpr int64_t MOST = 4, POSITIONS = 48;  // chunks of a thread; positions of a chunk
  const int64_t count = positions_of(d, out);
  if (count < 32 * threads) {  // panels: with Winograd each chunk transforms all input tiles
    const int64_t all = panels(d, out, m.isa->vector);
    return work_chunks_of(macs, d.winograd_h ? std::min<int64_t>(all, 2 * threads) : all, threads);
  }
  return work_chunks_of(macs, d.winograd_h ? MOST * threads : count / POSITIONS, threads);
}

namespace {

std::string winograd_name(const WinogradTile &tile) {
  const auto sides = [](int32_t h, int32_t w) { return std::to_string(h) + "x" + std::to_string(w); };
  return "Winograd, " + sides(tile.h, tile.w) + " of " + sides(tile.kh, tile.kw);
}

}  // namespace

std::string dense_name(const Dense &d) {
  if (!d.winograd_h) return d.tile_words ? "AMX tiles" : "micro-kernels";
  return winograd_name({d.kh, d.kw, d.winograd_h, d.winograd_w});
}

namespace {

bool takes(const gossamer_model &, const Op &op) { return op.kind == CONV; }

bool plan(gossamer_model &m, const Op &op, Step &step) {
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

void run(const WorkItem &item, int32_t index, int) {
  const Op &op = item.model.file.ops[index];
  const std::vector<Dense> &groups = item.model.steps[size_t(index)].dense;
  const Map in = map_of(item, op.in), out = map_of(item, op.out);
  Map other{};
  if (op.other >= 0) other = map_of(item, op.other);
  for (size_t g = 0; g < groups.size(); g++) {
    Dense d = groups[g];
    if (groups.size() > 1 && !by_positions(item, d, out)) d.writable_bytes = 0;  // another thread's panels are adjacent
    d.in.data = in.data + g * size_t(d.in.c) * size_t(size_of(in.type));
    d.out.data = out.data + g * size_t(d.out.c) * size_t(size_of(out.type));
    if (op.other >= 0) d.other.data = other.data + g * size_t(d.out.c) * size_t(size_of(other.type));
    d.prefetch = g + 1 < groups.size() ? first_weights(item, groups[g + 1], out) : next_weights(item, index + 1);
    run_dense(item, d);
  }
}

int work_chunks(const gossamer_model &m, int32_t index, int, int threads) {
  const Op &op = m.file.ops[index];
  const Map in = shape(m, op.in), out = shape(m, op.out);
  const int64_t macs = int64_t(out.h) * out.w * op.kh * op.kw * (in.c / op.groups) * out.c;
  return dense_work_chunks(m, m.steps[size_t(index)].dense[0], out, macs, threads);
}

PrefetchRange first_weights(const WorkItem &item, const Step &step) {
  return first_weights(item, step.dense[0], step.dense[0].out);
}

KernelNames choices(const Isa &isa) {
  KernelNames names{"micro-kernels"};
  if (isa.amx_tiles) names.push_back("AMX tiles");
  for (const WinogradTile &tile : WINOGRAD_TILES)
    if (isa.compute_type[U8] == S16 || !integers_only(tile)) names.push_back(winograd_name(tile));
  return names;
}

KernelNames chosen(const gossamer_model &, const Op &, const Step &step) { return {dense_name(step.dense[0])}; }

}  // namespace

const Kernel CONVOLUTION = {"convolution", takes,       plan,          true,    run,
                            nullptr,       work_chunks, first_weights, choices, chosen};

}  // namespace gossamer
