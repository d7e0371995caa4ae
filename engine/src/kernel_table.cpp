// The table of all kernels.
#include "kernel.h"

namespace gossamer {
namespace {

// visit(kernel) for each row, as long as it answers false; the row at which it answered true, or null.
template <class F>
const Kernel *find(F visit) {
  for (const Kernel *kernel : {&GEMV, &CONVOLUTION, &FUSED_BLOCK})
    if (visit(*kernel)) return kernel;
  for (const Kernel &kernel : POOLS)
    if (visit(kernel)) return &kernel;
  for (const Kernel &kernel : ELEMENTWISE)
    if (visit(kernel)) return &kernel;
  return nullptr;
}

}  // namespace

const Kernel *kernel_of(const gossamer_model &m, const Op &op) {
  return find([&](const Kernel &kernel) { return kernel.takes(m, op); });
}

KernelNames kernel_names(const gossamer_model &m, int32_t index) {
  if (!m.isa) return {"reference"};
  const Step &step = m.steps[size_t(index)];
  if (!step.kernel->chosen) return {step.kernel->name};
  return step.kernel->chosen(m, m.file.ops[index], step);
}

KernelNames kernel_names(const Isa &isa) {
  KernelNames names;
  find([&](const Kernel &kernel) {
    const KernelNames choices = kernel.choices ? kernel.choices(isa) : KernelNames{kernel.name};
    names.insert(names.end(), choices.begin(), choices.end());
    return false;
  });
  return names;
}

PrefetchRange next_weights(const WorkItem &item, int32_t index) {
  for (; index < item.model.file.op_count; index++) {
    const Step &step = item.model.steps[size_t(index)];
    if (!step.kernel->first_weights) continue;
    if (const PrefetchRange range = step.kernel->first_weights(item, step); range.bytes > 0) return range;
  }
  return {};
}

}  // namespace gossamer
