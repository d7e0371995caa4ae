// Pools over windows, and the average of a map.
#include "kernel.h"

namespace gossamer {
namespace {

bool takes_max(const gossamer_model &, const Op &op) { return op.kind == MAX_POOL; }
bool takes_average(const gossamer_model &, const Op &op) { return op.kind == AVERAGE_POOL; }
bool takes_global_average(const gossamer_model &, const Op &op) { return op.kind == GLOBAL_AVERAGE; }

void run_pool(const WorkItem &item, int32_t index, int) {
  const Op &op = item.model.file.ops[index];
  const Map out = map_of(item, op.out);
  const auto [first, last] = work_chunk(out.h, item.part, item.parts);
  item.model.isa->kernels->pool(map_of(item, op.in), out, op, int32_t(first), int32_t(last));
}

void run_average(const WorkItem &item, int32_t index, int) {
  const Op &op = item.model.file.ops[index];
  if (item.part == 0) item.model.isa->kernels->average(map_of(item, op.in), map_of(item, op.out));
}

constexpr Kernel row(const char *name, bool (*takes)(const gossamer_model &, const Op &),
                     void (*run)(const WorkItem &, int32_t, int)) {
  return {name, takes, nullptr, false, run, nullptr, nullptr, nullptr, nullptr, nullptr};
}

}  // namespace

const Kernel POOLS[POOL_COUNT] = {row("max pool", takes_max, run_pool), row("average pool", takes_average, run_pool),
                                  row("global average", takes_global_average, run_average)};

}  // namespace gossamer
