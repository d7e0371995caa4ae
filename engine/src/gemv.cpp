// GEMV: fully connected layers whose weights stay as the file has them.
#include <algorithm>

#include "kernel.h"

namespace gossamer {
namespace {

constexpr int64_t MIN_GEMV_WEIGHTS = 1 << 18;            // of a fully connected layer: fewer floats are packed
constexpr int64_t FULLY_CONNECTED_PREFETCH = 128 << 10;  // of the weights: fetched before the layer begins

// Weights of bytes, and so many of float32 or bfloat16 that reading them dominates. Where the ISA multiplies bytes by bytes or
// bfloat16 by bfloat16 itself, the micro-kernels do it.
bool takes(const gossamer_model &m, const Op &op) {
  const Value &in = m.file.values[op.in];
  if (!is_fully_connected(op, in)) return false;
  const int64_t numbers = int64_t(in.h) * in.w * in.c * m.file.values[op.out].c;
  if (in.type == U8) return m.isa->compute_type[U8] != U8;
  return op.type0 == U8 || (in.type == F32 && numbers >= MIN_GEMV_WEIGHTS);
}

bool plan(gossamer_model &m, const Op &op, Step &step) {
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

void run(const WorkItem &item, int32_t index, int) {
  const gossamer_model &m = item.model;
  const Op &op = m.file.ops[index];
  FullyConnected d = m.steps[size_t(index)].fully_connected;
  d.in.data = map_of(item, op.in).data, d.out.data = map_of(item, op.out).data;
  if (op.other >= 0) d.other.data = map_of(item, op.other).data;
  const auto [first, last] = work_chunk(d.out.c, item.part, item.parts);
  m.isa->kernels->gemv(d, int32_t(first), int32_t(last), reinterpret_cast<float *>(item.expanded));
}

int work_chunks(const gossamer_model &m, int32_t index, int, int threads) {
  const FullyConnected &d = m.steps[size_t(index)].fully_connected;
  return work_chunks_of(int64_t(d.in.h) * d.in.w * d.in.c * d.out.c, d.out.c / m.isa->vector, threads);
}

PrefetchRange first_weights(const WorkItem &item, const Step &step) {
  const FullyConnected &d = step.fully_connected;
  const int64_t row = int64_t(d.in.h) * d.in.w * d.in.c * size_of(d.type);
  const auto [first, last] = work_chunk(d.out.c, item.part, item.parts);
  return {d.weight + first * row, std::min(FULLY_CONNECTED_PREFETCH, (last - first) * row)};
}

}  // namespace

const Kernel GEMV = {"gemv", takes, plan, false, run, nullptr, work_chunks, first_weights, nullptr, nullptr};

}  // namespace gossamer
