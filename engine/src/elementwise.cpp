// Operations on each position by itself, and those of the heads.
#include "kernel.h"

namespace gossamer {
namespace {

template <int32_t KIND>
bool takes(const gossamer_model &, const Op &op) {
  return op.kind == KIND;
}

void run(const WorkItem &item, int32_t index, int) {
  const Model &file = item.model.file;
  const Op &op = file.ops[index];
  const Map out = map_of(item, op.out), other = op.other >= 0 ? map_of(item, op.other) : Map{};
  const auto [first, last] = work_chunk(int64_t(out.h) * out.w, item.part, item.parts);
  item.model.isa->kernels->pointwise(map_of(item, op.in), other, out, op, file.weights, first, last);
}

template <int32_t KIND>
constexpr Kernel row(const char *name) {
  return {name, takes<KIND>, nullptr, false, run, nullptr, nullptr, nullptr, nullptr, nullptr};
}

}  // namespace

const Kernel ELEMENTWISE[ELEMENTWISE_COUNT] = {row<ADD>("add"),           row<SCALE>("scale"),
                                               row<AFFINE>("affine"),     row<ACTIVATION>("activation"),
                                               row<COPY>("copy"),         row<SHUFFLE>("shuffle"),
                                               row<MULTIPLY>("multiply"), row<RESIZE>("resize"),
                                               row<SOFTMAX>("softmax"),   row<DEPTH_TO_SPACE>("depth to space")};

}  // namespace gossamer
