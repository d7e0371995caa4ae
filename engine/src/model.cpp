// The loader: it trusts nothing. Each rule of FORMAT.md's chapter on the native file has its own code.
#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "../include/gossamer.h"
#include "crc32.h"

namespace gossamer {
namespace {

constexpr int64_t MAX_SIDE = 1 << 16;                      // of any side or channel count
constexpr int64_t MAX_ELEMENTS = 1 << 28;                  // of any value: 1 GiB
constexpr uint64_t MAX_FILE_BYTES = 1ull << 32;            // of a file: all of it is read into memory
constexpr int64_t MAX_PRODUCTS = INT32_MAX / (255 * 128);  // of a sum of products of bytes, in int32
constexpr uint32_t MAX_INPUTS = 64, MAX_OUTPUTS = 64, MAX_PIECES = 4096;

bool table_fits(uint64_t offset, uint64_t count, uint64_t each, uint64_t size) {
  return offset % 64 == 0 && offset <= size && count <= (size - offset) / each;
}

bool in_range(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

bool valid_scale(int32_t type, float scale, int32_t zero) {
  return type != U8 || (scale >= 1e-30f && scale <= 1e30f && in_range(zero, 0, 255));
}

// Of what a layer may be rounded to: scale 0 for nothing.
bool valid_rounding(float scale, int32_t zero) { return (scale == 0 && zero == 0) || valid_scale(U8, scale, zero); }

bool same_type(const Value &a, const Value &b) {
  return a.type == b.type && (a.type != U8 || (a.scale == b.scale && a.zero == b.zero));
}

int check_value(const Model &m, int32_t index) {
  const Value &v = m.values[index];
  if (!in_range(v.h, 1, MAX_SIDE) || !in_range(v.w, 1, MAX_SIDE) || !in_range(v.c, 1, MAX_SIDE)) return GOSSAMER_VALUE;
  if (int64_t(v.h) * v.w > MAX_ELEMENTS || int64_t(v.h) * v.w * (v.c + 15) > MAX_ELEMENTS) return GOSSAMER_VALUE;
  if (!in_range(v.type, 0, TYPES - 1) || !valid_scale(v.type, v.scale, v.zero)) return GOSSAMER_VALUE;
  if (v.parent == -1) return v.first == 0 ? GOSSAMER_OK : GOSSAMER_VALUE;
  if (!in_range(v.parent, 0, m.value_count - 1) || v.parent == index) return GOSSAMER_VALUE;
  const Value &p = m.values[v.parent];
  if (p.parent != -1 || p.h != v.h || p.w != v.w || !same_type(p, v))
    return GOSSAMER_VALUE;  // a parent has no parent, so there are no circles
  if (v.first < 0 || int64_t(v.first) + v.c > p.c) return GOSSAMER_VALUE;
  return GOSSAMER_OK;
}

bool weights_fit(const Model &m, int64_t offset, int64_t count) {
  return offset >= 0 && count >= 0 && offset <= m.weight_count && count <= m.weight_count - offset;
}

// The rules of a layer's weights: n of them in `rows` rows, of `type`, which are multiplied with a map of type `in`.
// fully_connected: whether each row meets all of a map at once.
int check_layer(const Model &m, int32_t in, int32_t type, int64_t offset, int64_t n, int64_t scale, int64_t bias,
                int64_t rows, bool fully_connected = false) {
  if (!in_range(type, 0, TYPES - 1)) return GOSSAMER_OPERATION;
  if (type == U8 ? in == BF16 && !fully_connected : type != in) return GOSSAMER_PRECISION;
  if (type == U8 && in == U8 && n / rows > MAX_PRODUCTS) return GOSSAMER_PRECISION;
  if (!weights_fit(m, offset, weight_units(type, n)) || !weights_fit(m, bias, rows)) return GOSSAMER_WEIGHTS;
  if (type != U8) return GOSSAMER_OK;
  if (!weights_fit(m, scale, rows)) return GOSSAMER_WEIGHTS;
  const auto valid = [](float scale) { return scale >= 0 && std::isfinite(scale); };
  return std::all_of(m.weights + scale, m.weights + scale + rows, valid) ? GOSSAMER_OK : GOSSAMER_PRECISION;
}

int check_window(const Value &in, const Value &out, const Op &op) {
  if (!in_range(op.kh, 1, 64) || !in_range(op.kw, 1, 64) || !in_range(op.sh, 1, 16) || !in_range(op.sw, 1, 16))
    return GOSSAMER_OPERATION;
  if (!in_range(op.dilation, 1, 64)) return GOSSAMER_OPERATION;
  for (int32_t pad : {op.top, op.left, op.bottom, op.right})
    if (!in_range(pad, 0, 64)) return GOSSAMER_OPERATION;
  const int64_t h = in.h + op.top + op.bottom - int64_t(op.dilation) * (op.kh - 1) - 1;
  const int64_t w = in.w + op.left + op.right - int64_t(op.dilation) * (op.kw - 1) - 1;
  if (h < 0 || w < 0 || h / op.sh + 1 != out.h || w / op.sw + 1 != out.w) return GOSSAMER_SHAPE;
  return GOSSAMER_OK;
}

bool same_shape(const Value &a, const Value &b) { return a.h == b.h && a.w == b.w && a.c == b.c; }

// Whether a resize's pairs, one per row or column of the output, are within `side` rows or columns of the input.
bool pairs_fit(const float *pairs, int32_t count, int32_t side) {
  for (int32_t i = 0; i < count; i++) {
    const float first = pairs[2 * i], on = pairs[2 * i + 1];
    if (!(first >= 0 && first < float(side) && on >= 0 && on <= 1)) return false;
  }
  return true;
}

int check_op(const Model &m, const Op &op) {
  if (!in_range(op.kind, 0, KINDS - 1)) return GOSSAMER_OPERATION;
  for (int32_t act : {op.act, op.act0, op.act1})
    if (!in_range(act, 0, ACTS - 1)) return GOSSAMER_OPERATION;
  for (const auto &[scale, zero] : {std::pair{op.sum_scale, op.sum_zero}, std::pair{op.sum_scale0, op.sum_zero0},
                                    std::pair{op.sum_scale1, op.sum_zero1}, std::pair{op.gate_scale, op.gate_zero},
                                    std::pair{op.gate_scale0, op.gate_zero0}, std::pair{op.gate_scale1, op.gate_zero1},
                                    std::pair{op.expanded_scale, op.expanded_zero}})
    if (!valid_rounding(scale, zero)) return GOSSAMER_OPERATION;
  const Value &in = m.values[op.in], &out = m.values[op.out];
  const Value *other = op.other < 0 ? nullptr : &m.values[op.other];
  switch (op.kind) {
    case CONV: {
      if (int code = check_window(in, out, op)) return code;
      if (op.kh * op.kw > 128) return GOSSAMER_OPERATION;
      if (op.groups < 1 || in.c % op.groups || out.c % op.groups) return GOSSAMER_SHAPE;
      if (other && !same_shape(*other, out)) return GOSSAMER_SHAPE;
      const int64_t n = int64_t(out.c) * (in.c / op.groups) * op.kh * op.kw;
      return check_layer(m, in.type, op.type0, op.weight0, n, op.scale0, op.bias0, out.c, is_fully_connected(op, in));
    }
    case BLOCK: {
      if (int code = check_window(in, out, op)) return code;
      if (!in_range(op.mid, 1, MAX_SIDE)) return GOSSAMER_OPERATION;
      if (int64_t(out.h) * out.w * (op.mid + 63) > MAX_ELEMENTS) return GOSSAMER_OPERATION;  // the middle map
      if (op.weight0 < 0 && op.mid != in.c) return GOSSAMER_SHAPE;
      if (op.weight0 >= 0)
        if (int code =
                check_layer(m, in.type, op.type0, op.weight0, int64_t(op.mid) * in.c, op.scale0, op.bias0, op.mid))
          return code;
      if (op.type1 == U8) {
        const bool meets_bytes = op.weight0 >= 0 ? op.expanded_scale > 0 : in.type == U8;
        if (!meets_bytes) return GOSSAMER_PRECISION;
        if (int code = check_layer(m, U8, U8, op.weight1, int64_t(op.mid) * op.kh * op.kw, op.scale1, op.bias1, op.mid))
          return code;
      } else if (op.type1 != F32) return GOSSAMER_OPERATION;
      else if (!weights_fit(m, op.weight1, int64_t(op.mid) * op.kh * op.kw) || !weights_fit(m, op.bias1, op.mid))
        return GOSSAMER_WEIGHTS;
      if (op.weight2 < 0) return out.c == op.mid && !other ? GOSSAMER_OK : GOSSAMER_SHAPE;
      if (!in_range(op.type2, 0, TYPES - 1) || !valid_scale(op.type2, op.middle_scale, op.middle_zero))
        return GOSSAMER_OPERATION;
      if (int code =
              check_layer(m, op.type2, op.type2, op.weight2, int64_t(op.mid) * out.c, op.scale2, op.bias2, out.c))
        return code;
      return !other || same_shape(*other, out) ? GOSSAMER_OK : GOSSAMER_SHAPE;
    }
    case MAX_POOL:
    case AVERAGE_POOL: return in.c == out.c ? check_window(in, out, op) : GOSSAMER_SHAPE;
    case GLOBAL_AVERAGE: return out.h == 1 && out.w == 1 && out.c == in.c ? GOSSAMER_OK : GOSSAMER_SHAPE;
    case ADD:
      if (other && same_shape(in, out) && other->h == 1 && other->w == 1 && other->c == in.c) return GOSSAMER_OK;
      [[fallthrough]];
    case MULTIPLY: return other && same_shape(in, out) && same_shape(*other, out) ? GOSSAMER_OK : GOSSAMER_SHAPE;
    case SCALE:
      return other && same_shape(in, out) && other->h == 1 && other->w == 1 && other->c == in.c ? GOSSAMER_OK
                                                                                                : GOSSAMER_SHAPE;
    case AFFINE:
      if (!same_shape(in, out)) return GOSSAMER_SHAPE;
      return weights_fit(m, op.weight0, in.c) && weights_fit(m, op.bias0, in.c) ? GOSSAMER_OK : GOSSAMER_WEIGHTS;
    case SHUFFLE:
      return same_shape(in, out) && same_type(in, out) && op.groups >= 1 && in.c % op.groups == 0 ? GOSSAMER_OK
                                                                                                  : GOSSAMER_SHAPE;
    case RESIZE:
      if (in.c != out.c) return GOSSAMER_SHAPE;
      if (!weights_fit(m, op.weight0, 2 * int64_t(out.h)) || !weights_fit(m, op.bias0, 2 * int64_t(out.w)))
        return GOSSAMER_WEIGHTS;
      return pairs_fit(m.weights + op.weight0, out.h, in.h) && pairs_fit(m.weights + op.bias0, out.w, in.w)
                 ? GOSSAMER_OK
                 : GOSSAMER_WEIGHTS;
    case SOFTMAX: return same_shape(in, out) && op.groups >= 1 && in.c % op.groups == 0 ? GOSSAMER_OK : GOSSAMER_SHAPE;
    case DEPTH_TO_SPACE:
      if (!in_range(op.sh, 1, 16) || !in_range(op.sw, 1, 16)) return GOSSAMER_OPERATION;
      if (out.h > int64_t(in.h) * op.sh || out.w > int64_t(in.w) * op.sw || in.c != int64_t(out.c) * op.sh * op.sw)
        return GOSSAMER_SHAPE;
      return op.groups >= 1 && out.c % op.groups == 0 ? GOSSAMER_OK : GOSSAMER_SHAPE;
    default:  // ACTIVATION, COPY
      return same_shape(in, out) ? GOSSAMER_OK : GOSSAMER_SHAPE;
  }
}

// The channels of each parent that were written, as (parent, first) -> end.
using Spans = std::map<std::pair<int32_t, int32_t>, int32_t>;

// Whether none of the channels first to end was written before; records that they are now.
bool write_once(Spans &spans, int32_t parent, int32_t first, int32_t end) {
  const auto next = spans.lower_bound({parent, first});
  if (next != spans.end() && next->first.first == parent && next->first.second < end) return false;
  if (next != spans.begin()) {
    const auto previous = std::prev(next);
    if (previous->first.first == parent && previous->second > first) return false;
  }
  spans.emplace_hint(next, std::make_pair(parent, first), end);
  return true;
}

int32_t root(const Model &m, int32_t value) { return m.values[value].parent < 0 ? value : m.values[value].parent; }

// Whether the axes of an input, without the batch, hold the numbers of its value, and it has a name.
bool valid_input(const Model &m, const Input &input) {
  if (!input.name[0] || input.name[sizeof input.name - 1] || !in_range(input.rank, 1, 4)) return false;
  int64_t elements = 1;
  for (int32_t axis = 0; axis < input.rank; axis++) {
    if (!in_range(input.sides[axis], 1, MAX_ELEMENTS)) return false;
    elements *= input.sides[axis];
    if (elements > MAX_ELEMENTS) return false;
  }
  const Value &v = m.values[input.value];
  return elements == int64_t(v.h) * v.w * v.c;
}

// Which values the inputs fill: whole maps, `first` the first of them.
int check_inputs(Model &m, int32_t first, int32_t count) {
  m.input_values.assign(1, first);
  for (int32_t i = 1; i < count; i++) m.input_values.push_back(m.inputs[i].value);
  if (m.inputs && m.inputs[0].value != first) return GOSSAMER_INPUT;
  for (size_t i = 0; i < m.input_values.size(); i++) {
    const int32_t value = m.input_values[i];
    if (!in_range(value, 0, m.value_count - 1) || m.values[value].parent != -1) return GOSSAMER_REFERENCE;
    if (m.inputs && !valid_input(m, m.inputs[i])) return GOSSAMER_INPUT;
    m.input_elements += int64_t(m.values[value].h) * m.values[value].w * m.values[value].c;
  }
  return GOSSAMER_OK;
}

// Each output is filled by its pieces; outputs use the pieces in order.
int check_outputs(Model &m) {
  int32_t next = 0;
  for (int32_t i = 0; i < m.output_count; i++) {
    const Output &o = m.outputs[i];
    if (!o.name[0] || o.name[sizeof o.name - 1]) return GOSSAMER_OUTPUT;
    if (!in_range(o.rank, 1, 4) || o.first != next || !in_range(o.pieces, 1, m.piece_count - next))
      return GOSSAMER_OUTPUT;
    int64_t shape_elements = 1, piece_elements = 0;
    for (int32_t axis = 0; axis < o.rank; axis++) {
      if (!in_range(o.sides[axis], 1, MAX_ELEMENTS)) return GOSSAMER_OUTPUT;
      shape_elements *= o.sides[axis];
      if (shape_elements > MAX_ELEMENTS) return GOSSAMER_OUTPUT;
    }
    for (int32_t end = next + o.pieces; next < end; next++) {
      const Piece &p = m.pieces[next];
      if (!in_range(p.value, 0, m.value_count - 1) || !in_range(p.channels_last, 0, 1)) return GOSSAMER_OUTPUT;
      const Value &v = m.values[p.value];
      piece_elements += int64_t(v.h) * v.w * v.c;
    }
    if (piece_elements != shape_elements) return GOSSAMER_OUTPUT;
    m.output_elements += piece_elements;
  }
  return next == m.piece_count ? GOSSAMER_OK : GOSSAMER_OUTPUT;
}

}  // namespace

int check_header(const Header &h, uint64_t size) {
  if (size < sizeof h || std::memcmp(h.magic, "GOSSAMER", 8)) return GOSSAMER_MAGIC;
  if (h.version < 3 || h.version > 5) return GOSSAMER_VERSION;
  return h.file_size == size && size <= MAX_FILE_BYTES ? GOSSAMER_OK : GOSSAMER_SIZE;
}

int check(Model &m) {
  Header h{};
  std::memcpy(&h, m.data, std::min(m.size, sizeof h));
  if (int code = check_header(h, m.size)) return code;
  if (crc32(0, m.data + 16, m.size - 16) != h.crc) return GOSSAMER_CHECKSUM;
  if (h.value_count < 2 || h.value_count > 1 << 20 || h.op_count < 1 || h.op_count > 1 << 20) return GOSSAMER_TABLES;
  if (h.output_count < 1 || h.output_count > MAX_OUTPUTS || h.piece_count < 1 || h.piece_count > MAX_PIECES)
    return GOSSAMER_TABLES;
  if (h.version == 5 &&
      (h.input_count < 1 || h.input_count > MAX_INPUTS || !table_fits(h.inputs, h.input_count, sizeof(Input), m.size)))
    return GOSSAMER_TABLES;
  if (!table_fits(h.values, h.value_count, sizeof(Value), m.size) ||
      !table_fits(h.ops, h.op_count, h.version == 3 ? OP_BYTES_OF_VERSION_3 : sizeof(Op), m.size) ||
      !table_fits(h.weights, h.weight_count, 4, m.size) || !table_fits(h.metadata, h.metadata_size, 1, m.size) ||
      !table_fits(h.outputs, h.output_count, sizeof(Output), m.size) ||
      !table_fits(h.pieces, h.piece_count, sizeof(Piece), m.size))
    return GOSSAMER_TABLES;
  m.values = reinterpret_cast<const Value *>(m.data + h.values);
  m.ops = reinterpret_cast<const Op *>(m.data + h.ops);
  if (h.version == 3) {
    m.converted_ops.assign(h.op_count, Op{});
    for (size_t i = 0; i < h.op_count; i++)
      std::memcpy(&m.converted_ops[i], m.data + h.ops + i * OP_BYTES_OF_VERSION_3, OP_FIELDS_OF_VERSION_3);
    m.ops = m.converted_ops.data();
  }
  m.weights = reinterpret_cast<const float *>(m.data + h.weights);
  m.outputs = reinterpret_cast<const Output *>(m.data + h.outputs);
  m.pieces = reinterpret_cast<const Piece *>(m.data + h.pieces);
  m.metadata = reinterpret_cast<const char *>(m.data + h.metadata);
  m.metadata_size = h.metadata_size;
  m.weight_count = int64_t(h.weight_count);
  m.value_count = int32_t(h.value_count);
  m.op_count = int32_t(h.op_count);
  m.inputs = h.version == 5 ? reinterpret_cast<const Input *>(m.data + h.inputs) : nullptr;
  m.output_count = int32_t(h.output_count);
  m.piece_count = int32_t(h.piece_count);
  for (int32_t i = 0; i < m.value_count; i++)
    if (int code = check_value(m, i)) return code;
  if (int code = check_inputs(m, h.input, m.inputs ? int32_t(h.input_count) : 1)) return code;
  if (int code = check_outputs(m)) return code;
  // every position that is read was written before, and no value is written twice
  std::vector<int64_t> written(size_t(m.value_count), 0);
  std::vector<char> is_written(size_t(m.value_count), 0);
  Spans spans;
  for (int32_t input : m.input_values) {
    if (is_written[size_t(input)]) return GOSSAMER_REFERENCE;
    is_written[size_t(input)] = 1;
    written[size_t(input)] = m.values[input].c;
  }
  const auto readable = [&](int32_t value) {
    const int32_t from = root(m, value);
    return is_written[size_t(value)] || written[size_t(from)] == m.values[from].c;
  };
  for (int32_t i = 0; i < m.op_count; i++) {
    const Op &op = m.ops[i];
    if (!in_range(op.in, 0, m.value_count - 1) || !in_range(op.out, 0, m.value_count - 1) ||
        !in_range(op.other, -1, m.value_count - 1))
      return GOSSAMER_REFERENCE;
    if (!readable(op.in) || (op.other >= 0 && !readable(op.other))) return GOSSAMER_REFERENCE;
    const int32_t to = root(m, op.out);
    if (is_written[size_t(op.out)] || to == root(m, op.in) || (op.other >= 0 && to == root(m, op.other))) {
      // a slice may be written while other slices of its parent are read
      if (is_written[size_t(op.out)] || op.out == to || op.in == to || op.other == to) return GOSSAMER_REFERENCE;
    }
    if (int code = check_op(m, op)) return code;
    is_written[size_t(op.out)] = 1;
    const Value &result = m.values[op.out];
    if (!write_once(spans, to, result.first, result.first + result.c)) return GOSSAMER_REFERENCE;
    written[size_t(to)] += result.c;
    if (written[size_t(to)] > m.values[to].c) return GOSSAMER_REFERENCE;
  }
  for (int32_t i = 0; i < m.piece_count; i++)
    if (!readable(m.pieces[i].value)) return GOSSAMER_REFERENCE;
  return GOSSAMER_OK;
}

}  // namespace gossamer
