// A compiled network in memory: records straight from the file, checked once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gossamer {

enum Kind : int32_t {
  CONV,
  BLOCK,
  MAX_POOL,
  AVERAGE_POOL,
  GLOBAL_AVERAGE,
  ADD,
  SCALE,
  AFFINE,
  ACTIVATION,
  COPY,
  SHUFFLE,
  MULTIPLY,
  RESIZE,
  SOFTMAX,
  DEPTH_TO_SPACE,
  KINDS
};
enum Act : int32_t {
  NONE,
  RELU,
  RELU6,
  HARD_SWISH,
  HARD_SIGMOID,
  SIGMOID,
  SILU,
  TANH,
  CLIP,
  LEAKY_RELU,
  EXP,
  LOG,
  RECIPROCAL,
  ACTS
};
enum Type : int32_t { F32, BF16, U8, TYPES };  // of a map; the third is S8 for weights
constexpr int32_t S16 =
    TYPES;  // compute type: bytes widened to int16; in no file, and in no map that outlives an operation
constexpr int32_t F32_STEPS = TYPES + 1;  // compute type: bytes less their zero, as floats
constexpr int32_t S32 = TYPES + 2;        // compute type: sums of integers as they are
constexpr int32_t U8_WORDS =
    TYPES + 3;  // compute type: bytes, those of a channel at four neighbouring positions in a word

// The first bytes of a file; offsets are in bytes.
struct Header {
  char magic[8];
  uint32_t version, crc;
  uint64_t file_size;
  uint64_t values, ops, weights, metadata;
  uint64_t weight_count, metadata_size;
  uint32_t value_count, op_count;
  int32_t input;
  uint32_t output_count;
  uint64_t outputs, pieces;
  uint32_t piece_count, input_count;  // input_count and inputs: of version 5
  uint64_t inputs;
  uint8_t reserved[8];
};

// A map of h x w positions; channels first to first + c of its parent where it has one.
struct Value {
  int32_t h, w, c, parent, first, type;
  float scale;  // of U8: a value is (byte - zero) * scale
  int32_t zero;
};

// What an operation reads, writes and how; offsets are in units of 4 bytes in the weights, -1 for none.
// CONV: weight (c_out, c_in / groups, kh, kw), bias (c_out), other: a value added before the activation.
// BLOCK: [weight0 (mid, c_in), bias0, act0], depthwise weight1 (mid, kh, kw), bias1, act1, [weight2 (c_out, mid), bias2],
// [other added], act. AFFINE: weight0 and bias0 of each channel. SHUFFLE, SOFTMAX: groups. RESIZE: weight0 (out.h, 2) and
// bias0 (out.w, 2), for each output row and column the index of the first of the two interpolated ones and the weight of the second. DEPTH_TO_SPACE: groups, sh, sw.
struct Op {
  int32_t kind, in, other, out;
  int32_t kh, kw, sh, sw;
  int32_t top, left, bottom, right;
  int32_t dilation, groups, mid, act;
  int32_t act0, act1, count_padding, reserved0;
  int64_t weight0, bias0, weight1, bias1, weight2, bias2;
  int64_t scale0, scale2;                     // of S8 weights: one per row
  int32_t type0, type2;                       // of weight0 and weight2; all else is float32
  float low, high, low0, high0, low1, high1;  // of CLIP; low is the slope of LEAKY_RELU
  float middle_scale;                         // of a block's depthwise output where it is U8
  int32_t middle_zero;
  // Each a scale and a zero of U8, scale 0 for none. sum: what a layer's sum is rounded to before anything else is done to it;
  // gate: what the sigmoid or hard-sigmoid within SILU and HARD_SWISH is rounded to; 0 and 1: of a block's first two layers.
  float sum_scale, sum_scale0, sum_scale1, gate_scale, gate_scale0, gate_scale1;
  float expanded_scale;  // of a block's expanded map where it is U8
  int32_t sum_zero, sum_zero0, sum_zero1, gate_zero, gate_zero0, gate_zero1;
  int32_t expanded_zero;
  int64_t scale1;  // of S8 weights of the depthwise layer: one per channel
  int32_t type1, reserved[1];
};
static_assert(sizeof(Header) == 128 && sizeof(Value) == 32 && sizeof(Op) == 256, "records are as FORMAT.md has them");
// Of version 3, whose records end at sum_scale: nothing is rounded between the layers of an operation.
constexpr size_t OP_BYTES_OF_VERSION_3 = 192, OP_FIELDS_OF_VERSION_3 = offsetof(Op, sum_scale);

// An input of a file of version 5: float32 values of an image in the layout of ONNX, its axes without the batch, which fill a value.
struct Input {
  char name[64];  // UTF-8, ended by 0
  int32_t rank, sides[4];
  int32_t value, reserved[2];
};

// An output: float32 values of an image in the layout of ONNX, its axes without the batch; its pieces are concatenated.
struct Output {
  char name[64];  // UTF-8, ended by 0
  int32_t rank, sides[4];
  int32_t first, pieces, reserved;
};

// A map that is part of an output.
struct Piece {
  int32_t value, channels_last, reserved[2];
};
static_assert(sizeof(Input) == 96 && sizeof(Output) == 96 && sizeof(Piece) == 16, "records are as FORMAT.md has them");

struct Model {
  const uint8_t *data = nullptr;
  size_t size = 0;
  const Value *values = nullptr;
  const Op *ops = nullptr;
  const float *weights = nullptr;
  const Input *inputs = nullptr;  // null before version 5, which names no inputs
  const Output *outputs = nullptr;
  const Piece *pieces = nullptr;
  int32_t value_count = 0, op_count = 0, output_count = 0, piece_count = 0;
  int64_t weight_count = 0, input_elements = 0, output_elements = 0;  // of all inputs and all outputs of an image
  const char *metadata = nullptr;
  size_t metadata_size = 0;
  std::vector<int32_t> input_values;  // which the inputs fill, in order
  std::vector<Op> converted_ops;      // of a file of version 3
};

// Rules N1 to N3 of a file of `size` bytes, of which `header` holds the first, padded with zeros if the file is shorter; 0 or a
// gossamer_error.
int check_header(const Header &header, uint64_t size);

// Fills the views of `data`; 0 or a gossamer_error.
int check(Model &model);

// Weights of a layer: n of them take so many units of 4 bytes.
constexpr int64_t weight_units(int32_t type, int64_t n) {
  return type == F32 ? n : type == BF16 ? (n + 1) / 2 : (n + 3) / 4;
}

// Whether a convolution covers its whole map and has one output position.
inline bool is_fully_connected(const Op &op, const Value &in) {
  const bool unpadded = op.top == 0 && op.left == 0 && op.bottom == 0 && op.right == 0;
  return op.kind == CONV && op.groups == 1 && op.dilation == 1 && op.kh == in.h && op.kw == in.w && unpadded;
}

}  // namespace gossamer
