// Blocks: expansion, depthwise convolution and projection, of which the first and the last may be missing, by rows that stay in the
// caches.
#include <algorithm>

#include "depthwise.h"
#include "kernel.h"

namespace gossamer {
namespace {

constexpr int64_t MIDDLE_BYTES = 768 << 10;    // of the depthwise rows of all chunks: they stay in the second cache
constexpr int64_t EXPANDED_BYTES = 128 << 10;  // of the expanded rows of one chunk

bool takes(const gossamer_model &, const Op &op) { return op.kind == BLOCK; }

bool plan(gossamer_model &m, const Op &op, Step &step) {
  Fused &f = step.fused;
  f.in = shape(m, op.in), f.out = shape(m, op.out);
  f.kh = op.kh, f.kw = op.kw, f.sh = op.sh, f.sw = op.sw, f.top = op.top, f.left = op.left, f.dilation = op.dilation;
  f.mid = op.mid, f.epilogue = depthwise_epilogue_of(op);
  f.expands = op.weight0 >= 0, f.projects = op.weight2 >= 0;
  const bool integers = op.type1 == U8;  // else as floats, which hold their sums exactly
  f.shape = depthwise_shape(op);
  const DepthwiseKernel &depthwise = depthwise_kernel(m, op, f);
  f.expanded_type = depthwise.words && f.expands ? U8_WORDS : op.expanded_scale > 0 ? F32_STEPS : F32;
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
  }
  if (depthwise.pack && !depthwise.pack(m, op, f)) return false;
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
  const int64_t pitch = expanded_positions(f) * f.chunk;
  f.inner = f.dilation == 1 ? 1 : int32_t(std::min<int64_t>(reach, f.out.h));  // so that few rows are moved
  while (f.inner < f.out.h && ((f.inner + 1) * f.sh + reach) * pitch * 4 <= EXPANDED_BYTES) f.inner++;
  const int64_t expanded = depthwise.scratch(f);
  if (expanded > SCRATCH_BYTES) return false;
  step.expanded = size_t(expanded);
  if (f.expands && m.isa->compute_type[f.in.type] == S16)  // of the rows that f.rows need; the others take no memory
    step.scratch = std::max(step.scratch, size_t(f.in.h) * size_t(f.in.w) * size_t(s16_ld(f.in)));
  step.middle = f.projects ? size_t(f.rows) * size_t(row_bytes) : 0;
  step.shared = f.projects ? size_t(f.out.h) * size_t(row_bytes) : 0;
  return true;
}

// Whether a block is split by rows. On small maps too many rows would be expanded twice, so the channels between the layers
// are split.
bool by_rows(const Fused &f, int threads) {
  return threads == 1 || (!f.expands && !f.projects) || f.out.h >= (f.projects ? 7 : 14) * threads;
}

int32_t chunks(const Fused &f) { return (f.mid + f.chunk - 1) / f.chunk; }

int phases(const Step &step, int threads) { return step.fused.projects && !by_rows(step.fused, threads) ? 2 : 1; }

void run(const WorkItem &item, int32_t index, int phase) {
  const Kernels &kernels = *item.model.isa->kernels;
  const Op &op = item.model.file.ops[index];
  Fused f = item.model.steps[size_t(index)].fused;
  f.in.data = map_of(item, op.in).data, f.out.data = map_of(item, op.out).data;
  if (f.projects && op.other >= 0) f.project.other.data = map_of(item, op.other).data;
  f.project.prefetch = next_weights(item, index + 1);
  f.expand.prefetch = f.projects ? first_weights(item, f.project, f.out) : f.project.prefetch;
  if (by_rows(f, item.threads)) {
    const auto [first, last] = work_chunk(f.out.h, item.part, item.parts);
    kernels.fused_rows(f, int32_t(first), int32_t(last), item.expanded, item.middle, item.scratch);
    return;
  }
  if (f.projects) f.middle.data = item.shared;
  else f.middle = f.out;
  if (phase == 0) {
    const auto [first, last] = work_chunk(chunks(f), item.part, item.parts);
    kernels.fused_chunks(f, int32_t(first), int32_t(last), item.expanded, item.scratch);
  } else {
    f.project.in = f.middle, f.project.out = f.out;
    run_dense(item, f.project);
  }
}

int work_chunks(const gossamer_model &m, int32_t index, int phase, int threads) {
  constexpr int64_t ROWS = 12;  // of a chunk, which expands some rows twice
  const Fused &f = m.steps[size_t(index)].fused;
  const int64_t outputs = int64_t(f.out.h) * f.out.w, inputs = int64_t(f.in.h) * f.in.w;
  const int64_t expansion = inputs * f.in.c * f.mid + outputs * f.mid * f.kh * f.kw,
                projection = outputs * f.mid * f.out.c;
  if (by_rows(f, threads)) return work_chunks_of(expansion + projection, f.out.h / ROWS, threads);
  if (phase == 0) return work_chunks_of(expansion, chunks(f), threads);
  return dense_work_chunks(m, f.project, f.out, projection, threads);
}

PrefetchRange first_weights(const WorkItem &item, const Step &step) {
  const Fused &f = step.fused;
  if (f.expands)
    return panel_weights(f.expand, by_rows(f, item.threads) ? 0 : work_chunk(chunks(f), item.part, item.parts).first);
  return f.projects ? first_weights(item, f.project, f.out) : PrefetchRange{};
}

KernelNames choices(const Isa &isa) { return depthwise_names(isa); }

KernelNames chosen(const gossamer_model &m, const Op &op, const Step &step) {
  KernelNames names{depthwise_name(m, op, step.fused)};
  if (step.fused.expands) names.push_back(dense_name(step.fused.expand));
  if (step.fused.projects) names.push_back(dense_name(step.fused.project));
  return names;
}

}  // namespace

const Kernel FUSED_BLOCK = {"block", takes, plan, true, run, phases, work_chunks, first_weights, choices, chosen};

}  // namespace gossamer
