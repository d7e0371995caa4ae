// A kernel: which operations it runs, how their weights are packed, how a thread runs its part. All are rows of one table, from which
// the planner, the session, the profile and the tests take them. NAME.cpp has a kernel's row and what is done once, NAME.inc what it
// computes, compiled per ISA.
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "plan.h"

namespace gossamer {

// A work item: part `part` of `parts` of an image's operation, done by `thread` of `threads` with its scratch, on the maps of
// `arena`. How an operation is split depends on the threads, not on the parts, so that neither changes the result.
struct WorkItem {
  const gossamer_model &model;
  uint8_t *arena;
  const float *input;
  float *output;
  uint8_t *expanded, *middle, *scratch, *shared;  // the thread's own scratch, and that of all threads
  int thread, threads, part, parts;
};

using KernelNames = std::vector<std::string>;

struct Kernel {
  const char *name;
  // Whether it runs the operation on the model's ISA; of two rows that take an operation the first runs it.
  bool (*takes)(const gossamer_model &m, const Op &op);
  // Plans the operation and packs its weights; false where there is no memory. Null: nothing is planned.
  bool (*plan)(gossamer_model &m, const Op &op, Step &step);
  bool packs;  // whether the file's weights are not read once they are packed
  void (*run)(const WorkItem &item, int32_t index, int phase);
  int (*phases)(const Step &step, int threads);  // each needs all of the one before; null: one
  // Chunks of work per thread: several where an operation is long and its chunks repeat little, so that threads on cores of
  // different speed end together. Null: one.
  int (*work_chunks)(const gossamer_model &m, int32_t index, int phase, int threads);
  PrefetchRange (*first_weights)(const WorkItem &item,
                                 const Step &step);  // those that the item reads first; null: none
  // The names of what the planner chooses from on the ISA, and of what it chose for a step. Null: the kernel's own name.
  KernelNames (*choices)(const Isa &isa);
  KernelNames (*chosen)(const gossamer_model &m, const Op &op, const Step &step);
};

// The rows of the table; each kind of operation that was checked has one.
constexpr int POOL_COUNT = 3, ELEMENTWISE_COUNT = 10;
extern const Kernel GEMV, CONVOLUTION, FUSED_BLOCK, POOLS[POOL_COUNT], ELEMENTWISE[ELEMENTWISE_COUNT];
static_assert(2 + POOL_COUNT + ELEMENTWISE_COUNT == KINDS,
              "convolutions, which have two rows, and blocks have rows of their own");

// The row that runs an operation: the first that takes it.
const Kernel *kernel_of(const gossamer_model &m, const Op &op);

// Names of the kernels that run an operation of the file; of all that the ISA has.
KernelNames kernel_names(const gossamer_model &m, int32_t index);
KernelNames kernel_names(const Isa &isa);

// The weights that the work item reads first of the operations from `index` on, of the first one that has weights.
PrefetchRange next_weights(const WorkItem &item, int32_t index);

inline Map map_of(const WorkItem &item, int32_t index) {
  const gossamer_model &m = item.model;
  const Value &v = m.file.values[index];
  const size_t root = size_t(v.parent < 0 ? index : v.parent);
  Map map = shape(m, index);
  map.data = item.arena + m.offsets[root] + int64_t(v.first) * size_of(v.type);
  return map;
}

// The chunk of `count` items that part `part` of `parts` does: first and end.
inline std::pair<int64_t, int64_t> work_chunk(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// How many chunks of so many multiply-adds a thread is given, of `most` that there can be of all threads.
inline int work_chunks_of(int64_t macs, int64_t most, int threads) {
  constexpr int64_t MOST = 4, MIN_MACS = 1 << 19;  // of a thread; multiply-adds of a chunk
  return int(std::clamp<int64_t>(std::min(macs / threads / MIN_MACS, most / threads), 1, MOST));
}

// What blocks use of dense layers (dense.cpp). Bytes of a position of a map that may be written: its channels, and the padding
// after them where no other value is there.
int64_t writable_bytes_of(const gossamer_model &m, int32_t index);
void run_dense(const WorkItem &item, const Dense &d);
PrefetchRange panel_weights(const Dense &d, int64_t index);
PrefetchRange first_weights(const WorkItem &item, const Dense &d, const Map &out);
int dense_work_chunks(const gossamer_model &m, const Dense &d, const Map &out, int64_t macs, int threads);
std::string dense_name(const Dense &d);

}  // namespace gossamer
