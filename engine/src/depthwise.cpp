// The depthwise layers of blocks: which kernel computes one, what it packs beside the weights as floats, and the scratch that it needs.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "depthwise.h"

namespace gossamer {
namespace {

int64_t reach(const Fused &f) { return int64_t(f.kh - 1) * f.dilation + 1; }

bool takes_expanded(const gossamer_model &, const Op &, const Fused &f) { return f.expands; }

int64_t expanded_bytes(const Fused &f) {
  return ((f.inner - 1) * f.sh + reach(f)) * expanded_positions(f) * f.chunk * 4;
}

bool offers_words(const Isa &isa) { return isa.depthwise_words != nullptr; }

// Bytes, with the borders of a kernel whose middle is above the position.
bool takes_words(const gossamer_model &m, const Op &op, const Fused &f) {
  if (!offers_words(*m.isa) || f.shape == DEPTHWISE_SHAPE_COUNT || f.in.type != U8 || op.type1 != U8) return false;
  if (f.expands && (op.type0 != U8 || op.expanded_scale <= 0)) return false;
  if ((f.projects ? op.type2 : f.out.type) != U8 || f.left != f.kw / 2) return false;
  const int64_t last = int64_t(f.out.w - 1) * f.sw - f.left + f.kw - 1;  // the last position that is read
  return last / 4 <= row_words(f) - 2;
}

// A depthwise layer's int8 weights, a word for each output that needs a word of the row; and where its sums of bytes start.
bool pack_words(gossamer_model &m, const Op &op, Fused &f) {
  const int32_t vector = m.isa->vector, products = word_products(op.kw, op.sw);
  m.packed.emplace_back();
  if (!m.packed.back().allocate(size_t(f.padded) * size_t(op.kh * products) * 4)) return false;
  uint8_t *const to = m.packed.back().data;
  auto *const start = reinterpret_cast<int32_t *>(pad(m, f.bias, 0, f.padded));
  if (!start) return false;
  const auto *bytes = reinterpret_cast<const int8_t *>(m.file.weights + op.weight1);
  for (int32_t c = 0; c < op.mid; c++) {
    int32_t sum = 0;
    for (int32_t y = 0; y < op.kh; y++) {
      const int8_t *const row = bytes + (int64_t(c) * op.kh + y) * op.kw;
      for (int32_t x = 0; x < op.kw; x++) sum += row[x];
      int64_t word = ((int64_t(c / vector) * op.kh + y) * products) * vector + c % vector;
      for (int32_t at = -1; at <= 1; at++)
        for (int32_t output = 0; output < 4 / op.sw; output++) {
          if (!needs_word(op.kw, op.sw, output, at)) continue;
          for (int32_t i = 0; i < 4; i++) {
            const int32_t x = 4 * at + i - (output * op.sw - op.kw / 2);
            if (x >= 0 && x < op.kw) to[word * 4 + i] = uint8_t(row[x]);
          }
          word += vector;
        }
    }
    start[c] = int32_t(f.bias[c]) - sum * (f.expands ? f.expanded_zero : f.in.zero);
  }
  f.words = to, f.start = start, f.depthwise_words = m.isa->depthwise_words[f.shape];
  return true;
}

int64_t words_bytes(const Fused &f) {
  if (f.expands) return expanded_bytes(f) + DEPTHWISE_WORDS * f.chunk * 4;
  return ((reach(f) + 1) * row_words(f) + DEPTHWISE_WORDS) * f.padded * 4;
}

bool offers_bytes(const Isa &isa) { return isa.depthwise_bytes; }

// Not behind an expansion, whose rows stay in the first cache as floats: 9 products of floats take fewer instructions there.
bool takes_bytes(const gossamer_model &m, const Op &op, const Fused &f) {
  return m.isa->depthwise_bytes && op.type1 == U8 && f.shape < DEPTHWISE_SHAPE_COUNT && !f.expands && f.in.type == U8;
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

int64_t ring_bytes(const Fused &f) { return (reach(f) + 1) * expanded_positions(f) * f.padded; }

bool takes_any(const gossamer_model &, const Op &, const Fused &) { return true; }

int64_t widened_bytes(const Fused &f) { return f.in.type == F32 ? 0 : reach(f) * f.in.w * f.padded * 4; }

// Of two rows that take a layer the first computes it.
constexpr DepthwiseKernel DEPTHWISE_KERNELS[] = {
    {"depthwise, words", takes_words, pack_words, words_bytes, offers_words, true},
    {"depthwise, expanded", takes_expanded, nullptr, expanded_bytes, nullptr, false},
    {"depthwise, bytes", takes_bytes, pack_pairs, ring_bytes, offers_bytes, false},
    {"depthwise, in place", takes_any, nullptr, widened_bytes, nullptr, false},
};

std::string name_of(const DepthwiseKernel &kernel, int32_t shape) {
  const std::string name = kernel.name;
  if (shape == DEPTHWISE_SHAPE_COUNT) return name + ", any kernel";
  const auto [side, stride] = DEPTHWISE_SHAPES[shape];
  return name + ", " + std::to_string(side) + "x" + std::to_string(side) + "/" + std::to_string(stride);
}

}  // namespace

int32_t depthwise_shape(const Op &op) {
  int32_t i = 0;
  for (const auto &[side, stride] : DEPTHWISE_SHAPES) {
    if (op.kh == side && op.kw == side && op.sh == stride && op.sw == stride && op.dilation == 1) break;
    i++;
  }
  return i;
}

const DepthwiseKernel &depthwise_kernel(const gossamer_model &m, const Op &op, const Fused &f) {
  return *std::find_if(std::begin(DEPTHWISE_KERNELS), std::end(DEPTHWISE_KERNELS),
                       [&](const DepthwiseKernel &kernel) { return kernel.takes(m, op, f); });
}

std::string depthwise_name(const gossamer_model &m, const Op &op, const Fused &f) {
  return name_of(depthwise_kernel(m, op, f), f.shape);
}

KernelNames depthwise_names(const Isa &isa) {
  KernelNames names;
  for (const DepthwiseKernel &kernel : DEPTHWISE_KERNELS)
    for (int32_t i = 0; i < DEPTHWISE_SHAPE_COUNT + !kernel.offered; i++)
      if (!kernel.offered || kernel.offered(isa)) names.push_back(name_of(kernel, i));
  return names;
}

}  // namespace gossamer
