// What an instruction set offers: the same tasks for all, so that one planner serves every ISA.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "model.h"

namespace gossamer {

// A map in memory: the channels of one position are contiguous, `ld` bytes from one position to the next.
struct Map {
  uint8_t *data;
  int32_t h, w, c, type;
  int64_t ld;
  float scale;  // of U8: a value is (byte - zero) * scale
  int32_t zero;
};

// The epilogue of a sum: `other` added, activated, clamped, written as the output's type.
struct Epilogue {
  int32_t act;
  float low, high;  // of CLIP; low is the slope of LEAKY_RELU
  // of U8, scale 0 for none: what the sum is rounded to before `other` is added, and the sigmoid within SILU and HARD_SWISH
  float sum_scale = 0, gate_scale = 0;
  int32_t sum_zero = 0, gate_zero = 0;
  // What a sum of integers with its scale comes in units of: steps of what it is rounded to first, where that is all that is
  // done to it before. So it is multiplied once, as ONNX Runtime does, and no rounding falls to the other side.
  float unit = 1;
};

// Whether an activation is nothing but bounds.
inline bool is_bounds(int32_t act) { return act <= RELU6 || act == CLIP; }

// The unit of an epilogue whose sums are of integers. out: where it writes; other_type: of what it adds, -1 for nothing.
inline float unit_of(const Epilogue &f, int32_t out_type, float out_scale, int32_t other_type) {
  if (f.sum_scale > 0) return f.sum_scale;
  const bool bytes = out_type == U8 || out_type == S16 || out_type == F32_STEPS || out_type == U8_WORDS;
  return bytes && is_bounds(f.act) && (other_type < 0 || other_type == U8) ? out_scale : 1;
}

// Of an operation; of the first and the second layer of a block.
inline Epilogue epilogue_of(const Op &op) {
  return {op.act, op.low, op.high, op.sum_scale, op.gate_scale, op.sum_zero, op.gate_zero};
}
inline Epilogue expansion_epilogue_of(const Op &op) {
  return {op.act0, op.low0, op.high0, op.sum_scale0, op.gate_scale0, op.sum_zero0, op.gate_zero0};
}
inline Epilogue depthwise_epilogue_of(const Op &op) {
  return {op.act1, op.low1, op.high1, op.sum_scale1, op.gate_scale1, op.sum_zero1, op.gate_zero1};
}

// The range of weights that is read next and prefetched meanwhile: a core that computes leaves its memory idle.
struct PrefetchRange {
  const uint8_t *at;
  int64_t bytes;
};

// Where a micro-kernel's rows are stored, and what is added to them.
struct EpilogueParams {
  const float *bias, *scale;
  const int32_t *start;  // of sums of integers
  uint8_t *c[16];
  const uint8_t *other[16];
  const Map *out, *other_map;  // other_map: the map of `other`, or null
  Epilogue epilogue;
  int columns;
  const uint8_t *prefetch;  // prefetched at the first step of a micro-kernel, and bytes from there to the next step's
  int64_t prefetch_stride;
};

// R positions by N registers of columns, for one compute type.
using MicroKernel = void (*)(const uint8_t *const *a, int taps, int words, uint32_t tail, const uint8_t *b,
                             const EpilogueParams &e);
struct MicroKernels {
  MicroKernel at[5][16], even[5][16];  // by registers and positions; even: of evenly spaced positions
};

// A dense convolution of one group, weights packed in panels of columns.
struct Dense {
  Map in, out, other;             // other.data: added before the activation, or null
  const uint8_t *weight, *zeros;  // zeros: as many as in.c, for positions outside, of the compute type
  // Of integer sums: where they start (the bias in their steps, less what the map's zero adds), their scale, and what is left of
  // the bias; one per column. winograd_middle: what is added to the outputs of Winograd convolution before they are shifted
  const float *bias, *scale;
  const int32_t *start, *winograd_middle;
  const MicroKernels *micro_kernels;
  int32_t kh, kw, sh, sw, top, left, dilation, vectors;
  bool contiguous_rows;  // a row of the kernel is one tap of in.c * kw channels: the map has no gaps between positions
  int32_t words;         // 4-byte words of one tap: 1 float, 2 bfloat16 or 4 bytes each
  uint32_t tail;         // which bits of the last word are channels
  int64_t writable_bytes;  // of a position of the output, by full registers: its channels and the padding after them
  int32_t block_rows;      // output rows per block of widened input
  int64_t panel_stride;    // bytes from one panel of the weights to the next
  // AMX tiles: words of k in a tile, 0 where micro-kernels are used; whether inputs are copied by im2col, and the bytes that a
  // position takes then; positions per block
  int32_t tile_words;
  bool uses_im2col;
  int64_t im2col_stride, block_positions;
  // Winograd: sides of an input tile, 0 where sums are direct; bytes from one interpolation point's weights to the next; a
  // bias of zeros; block_positions tiles per block
  int32_t winograd_h, winograd_w;
  int64_t point_stride;
  const float *zero_bias;
  Epilogue epilogue;
  PrefetchRange prefetch;  // of what this thread reads after its part
};

// Sides and stride of the depthwise kernels that are compiled with constants; any other, and dilated ones, run by loops.
struct DepthwiseShape {
  int32_t side, stride;
};
constexpr DepthwiseShape DEPTHWISE_SHAPES[] = {{3, 1}, {3, 2}, {5, 1}, {5, 2}};
constexpr int32_t DEPTHWISE_SHAPE_COUNT = sizeof DEPTHWISE_SHAPES / sizeof *DEPTHWISE_SHAPES;

// `count` output rows of one register of channels, from `channel` on, of which n are written, to `out`, the first position's in `to`.
// rows: those of the kernel for the first, U8_WORDS, `step` bytes from one word to the next, and `next` bytes on for the next output row.
// As many outputs are summed at once as DEPTHWISE_WORDS words have: words behind the row are read, and not used.
struct Fused;
using DepthwiseWords = void (*)(const Fused &f, const uint8_t *const *rows, int64_t step, int64_t next, int32_t channel,
                                const Map &to, uint8_t *out, int n, int count);
constexpr int32_t DEPTHWISE_WORDS = 8;

// Expansion, depthwise convolution and projection of some rows.
struct Fused {
  Dense expand, project;  // of a whole image; without projection the depthwise rows are the output
  bool expands, projects;
  // depthwise, (kh, kw, mid padded), or (mid / vector, kh, kw, vector) without expansion, times the scale of the map that they
  // meet where it is U8; its bias
  const float *weight, *bias;
  const float *scale, *rest;  // of sums of integers: their scale, and what is added then; else null
  // Where maps of bytes are multiplied as they are (`depthwise.inc`): the int8 weights as pairs of int16 of neighbouring rows,
  // (padded / vector, (kh + 1) / 2, kw, vector) pairs, and where the sums start; else null
  const uint8_t *pairs;
  const int32_t *start;
  // Where the rows are U8_WORDS (`depthwise_words.inc`): the int8 weights as the sums take them, (padded / vector, kh,
  // word_products(), vector) words, and the kernel; else null
  const uint8_t *words;
  DepthwiseWords depthwise_words;
  int32_t kh, kw, sh, sw, top, left, dilation, mid, padded, chunk;
  int32_t shape;                         // row of DEPTHWISE_SHAPES, or their number
  int32_t rows, inner;                   // output rows at once of all chunks, of one chunk
  Epilogue epilogue;                     // of the depthwise layer
  int32_t expanded_type, expanded_zero;  // of the expanded rows: F32, or F32_STEPS or U8_WORDS where the map is U8
  float expanded_scale;
  Map in, middle, out;
};

// A fully connected layer, whose weights stay in the file's order.
struct FullyConnected {
  Map in, out, other;         // other.data: added before the activation, or null
  const uint8_t *weight;      // (out.c, in.c, in.h, in.w)
  const float *bias, *scale;  // scale: of S8 weights, one per row, or null
  const int32_t *start;       // of sums of integers, or null: then scale and bias are theirs, as in Dense
  int32_t type;               // of the weights
  Epilogue epilogue;
};

// Words of a row: one of the border, those of the map, one of the other border.
inline int64_t row_words(const Fused &f) { return (int64_t(f.in.w) + 3) / 4 + 2; }

// Positions of an expanded row with the borders that the padding asks for, or its words.
inline int64_t expanded_positions(const Fused &f) {
  if (f.expanded_type == U8_WORDS) return row_words(f);
  const int64_t last = int64_t(f.out.w - 1) * f.sw + int64_t(f.kw - 1) * f.dilation;
  return last + 1 > int64_t(f.in.w) + f.left ? last + 1 : int64_t(f.in.w) + f.left;
}

// Whether an output needs a word of a row: output 0 to 4 / stride - 1 of those whose kernel's middle is in word 0; word -1 to 1.
constexpr bool needs_word(int32_t side, int32_t stride, int32_t output, int32_t word) {
  const int32_t first = output * stride - side / 2, last = first + side - 1;
  return first <= 4 * word + 3 && last >= 4 * word;
}
// Products of words for the outputs of one word, of a row of the kernel.
constexpr int32_t word_products(int32_t side, int32_t stride) {
  int32_t products = 0;
  for (int32_t word = -1; word <= 1; word++)
    for (int32_t output = 0; output < 4 / stride; output++) products += needs_word(side, stride, output, word);
  return products;
}

struct Kernels {
  void (*dense)(const Dense &task, int64_t position0, int64_t position1, int32_t panel0, int32_t panel1,
                uint8_t *scratch);
  void (*fused_rows)(const Fused &task, int32_t row0, int32_t row1, uint8_t *expanded, uint8_t *middle,
                     uint8_t *scratch);
  void (*fused_chunks)(const Fused &task, int32_t chunk0, int32_t chunk1, uint8_t *expanded, uint8_t *scratch);
  // outputs first to last; x: scratch for all values of the map
  void (*gemv)(const FullyConnected &task, int32_t first, int32_t last, float *x);
  void (*pool)(const Map &in, const Map &out, const Op &op, int32_t row0, int32_t row1);
  void (*average)(const Map &in, const Map &out);
  void (*load_input)(const float *image, const Map &to, int64_t position0, int64_t position1);
  void (*pointwise)(const Map &in, const Map &other, const Map &out, const Op &op, const float *weights,
                    int64_t position0, int64_t position1);
};

struct Isa {
  const char *name;
  int32_t vector;               // floats in a register
  int32_t widest;               // registers across a panel, at most
  int32_t u8_to_s8_offset;      // subtracted from the bytes of a map before they are multiplied
  int32_t compute_type[TYPES];  // of a map's type: BF16 as F32 where there is no arithmetic for it, U8 as S16
  const MicroKernels *micro_kernels[TYPES + 1];  // of each compute type, S16 after the others
  const Kernels *kernels;
  bool amx_tiles;                         // whether bytes and bfloat16 are multiplied in AMX tiles
  bool depthwise_bytes;                   // whether depthwise layers multiply bytes as they are
  const DepthwiseWords *depthwise_words;  // by row of DEPTHWISE_SHAPES, or null
};

extern const MicroKernels AVX512_MICRO_KERNELS[], AVX512_VNNI_MICRO_KERNELS[], NEON_MICRO_KERNELS[];
extern const Kernels AVX512_KERNELS, NEON_KERNELS;
extern const DepthwiseWords AVX512_VNNI_DEPTHWISE_WORDS[];
extern const Isa PORTABLE, AVX2, AVX512, AVX512_VNNI, AVX512_BF16, AMX, NEON, NEON_DOTPROD;

// Plain loops over the file's own weights, one operation at a time: what every ISA is tested against.
void reference(const Op &op, const Map &in, const Map &other, const Map &out, const float *weights);

// Bytes from one position of a widened map to the next.
inline int64_t s16_ld(const Map &map) { return map.c <= 4 && map.ld == map.c ? 2 * map.c : (map.c + 15) / 16 * 32; }

// Whether a resize reads the second of two rows or columns: also where its weight is 0 but of a linear interpolation, whose
// files have -0 there, so that a NaN of the second is not lost.
inline bool reads_second(float fraction) { return fraction != 0 || std::signbit(fraction); }

inline int32_t size_of(int32_t type) {
  return type == F32 || type == F32_STEPS || type == S32 ? 4 : type == U8 || type == U8_WORDS ? 1 : 2;
}

}  // namespace gossamer
