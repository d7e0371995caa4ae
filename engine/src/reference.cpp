// Plain loops over the weights as the file has them, one operation at a time: slow, and what all ISAs are tested against.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "isa.h"

namespace gossamer {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float load(const Map &m, int64_t position, int32_t c) {
  const uint8_t *p = m.data + position * m.ld;
  if (m.type == F32) return reinterpret_cast<const float *>(p)[c];
  if (m.type == BF16) return from_bits(uint32_t(reinterpret_cast<const uint16_t *>(p)[c]) << 16);
  return float(p[c] - m.zero) * m.scale;
}

void store(const Map &m, int64_t position, int32_t c, float value) {
  uint8_t *p = m.data + position * m.ld;
  if (m.type == F32) reinterpret_cast<float *>(p)[c] = value;
  else if (m.type == BF16) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    // rounding could turn a NaN into infinity or a finite value
    const uint32_t rounded = value == value ? (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40;
    reinterpret_cast<uint16_t *>(p)[c] = uint16_t(rounded);
  } else {
    const float q = std::nearbyint(value * (1 / m.scale)) + float(m.zero);  // ties to even before the zero is added
    p[c] = uint8_t(q > 0 ? std::min(q, 255.0f) : 0);
  }
}

// A number of a uint8 map: the nearest one that a byte stands for. scale 0: as it is.
float rounded(float x, float scale, int32_t zero) {
  if (scale == 0) return x;
  const float q = std::nearbyint(x * (1 / scale)) + float(zero);
  return ((q > 0 ? std::min(q, 255.0f) : 0) - float(zero)) * scale;
}

// x is what `round_sum` gave, or that with the other map added.
float activated(float x, const Epilogue &f) {
  const float low = f.low, high = f.high;
  if (f.gate_scale > 0 && (f.act == SILU || f.act == HARD_SWISH)) {
    const float gate = f.act == SILU ? 1 / (1 + std::exp(-x)) : std::min(std::max(x / 6 + 0.5f, 0.0f), 1.0f);
    return x * rounded(gate, f.gate_scale, f.gate_zero);
  }
  switch (f.act) {
    case RELU: return std::max(x, 0.0f);
    case RELU6: return std::min(std::max(x, 0.0f), 6.0f);
    case HARD_SWISH: return x * std::min(std::max(x / 6 + 0.5f, 0.0f), 1.0f);
    case HARD_SIGMOID: return std::min(std::max(x / 6 + 0.5f, 0.0f), 1.0f);
    case SIGMOID: return 1 / (1 + std::exp(-x));
    case SILU: return x / (1 + std::exp(-x));
    case TANH: return std::tanh(x);
    case CLIP: return std::min(std::max(x, low), high);
    case LEAKY_RELU: return x > 0 ? x : x * low;
    case EXP: return std::exp(x);
    case LOG: return std::log(x);
    case RECIPROCAL: return 1 / x;
    default: return x;
  }
}

float round_sum(float x, const Epilogue &f) { return rounded(x, f.sum_scale, f.sum_zero); }

// A weight of a layer, its scale among it.
float weight(const float *weights, int64_t offset, int64_t index, int32_t type, int64_t scale, int64_t row) {
  if (type == F32) return weights[offset + index];
  const uint8_t *from = reinterpret_cast<const uint8_t *>(weights + offset);
  if (type == BF16) return from_bits(uint32_t(reinterpret_cast<const uint16_t *>(from)[index]) << 16);
  return float(int8_t(from[index])) * weights[scale + row];
}

void conv(const Op &op, const Map &in, const Map &other, const Map &out, const float *w) {
  const int32_t k = in.c / op.groups, n = out.c / op.groups;
  const Epilogue f = epilogue_of(op);
  for (int32_t y = 0; y < out.h; y++)
    for (int32_t x = 0; x < out.w; x++)
      for (int32_t o = 0; o < out.c; o++) {
        const int64_t at = int64_t(y) * out.w + x;
        double sum = 0;
        for (int32_t r = 0; r < op.kh; r++)
          for (int32_t q = 0; q < op.kw; q++) {
            const int32_t row = y * op.sh - op.top + r * op.dilation, column = x * op.sw - op.left + q * op.dilation;
            if (row < 0 || row >= in.h || column < 0 || column >= in.w) continue;
            for (int32_t i = 0; i < k; i++)
              sum += double(load(in, int64_t(row) * in.w + column, o / n * k + i)) *
                     weight(w, op.weight0, ((int64_t(o) * k + i) * op.kh + r) * op.kw + q, op.type0, op.scale0, o);
          }
        float value = round_sum(float(sum) + w[op.bias0 + o], f);
        if (other.data) value += load(other, at, o);
        store(out, at, o, activated(value, f));
      }
}

// A value of the expanded map, computed each time it is needed.
float expanded(const Op &op, const Map &in, const float *w, int64_t at, int32_t c) {
  if (op.weight0 < 0) return load(in, at, c);
  double sum = 0;
  for (int32_t i = 0; i < in.c; i++)
    sum += double(load(in, at, i)) * weight(w, op.weight0, int64_t(c) * in.c + i, op.type0, op.scale0, c);
  const Epilogue f = expansion_epilogue_of(op);
  return rounded(activated(round_sum(float(sum) + w[op.bias0 + c], f), f), op.expanded_scale, op.expanded_zero);
}

void block(const Op &op, const Map &in, const Map &other, const Map &out, const float *w) {
  const bool projects = op.weight2 >= 0;
  const Epilogue second = depthwise_epilogue_of(op), third = epilogue_of(op);
  uint8_t number[4] = {};
  const Map middle{number,
                   1,
                   1,
                   1,
                   projects ? op.type2 : out.type,
                   4,
                   projects ? op.middle_scale : out.scale,
                   projects ? op.middle_zero : out.zero};
  for (int32_t y = 0; y < out.h; y++)
    for (int32_t x = 0; x < out.w; x++) {
      const int64_t at = int64_t(y) * out.w + x;
      const auto depthwise = [&](int32_t c) {
        double sum = 0;
        for (int32_t r = 0; r < op.kh; r++)
          for (int32_t q = 0; q < op.kw; q++) {
            const int32_t row = y * op.sh - op.top + r * op.dilation, column = x * op.sw - op.left + q * op.dilation;
            if (row < 0 || row >= in.h || column < 0 || column >= in.w) continue;
            sum += double(expanded(op, in, w, int64_t(row) * in.w + column, c)) *
                   weight(w, op.weight1, (int64_t(c) * op.kh + r) * op.kw + q, op.type1, op.scale1, c);
          }
        store(middle, 0, 0, activated(round_sum(float(sum) + w[op.bias1 + c], second), second));
        return load(middle, 0, 0);
      };
      if (!projects) {
        for (int32_t c = 0; c < out.c; c++) store(out, at, c, depthwise(c));
        continue;
      }
      for (int32_t first = 0; first < out.c; first += 2048) {  // sums of many outputs at once: one pass over `mid`
        double sums[2048] = {};
        const int32_t count = std::min(2048, out.c - first);
        for (int32_t c = 0; c < op.mid; c++) {
          const double value = depthwise(c);
          for (int32_t o = 0; o < count; o++)
            sums[o] += value * weight(w, op.weight2, int64_t(first + o) * op.mid + c, op.type2, op.scale2, first + o);
        }
        for (int32_t o = 0; o < count; o++) {
          float value = round_sum(float(sums[o]) + w[op.bias2 + first + o], third);
          if (other.data) value += load(other, at, first + o);
          store(out, at, first + o, activated(value, third));
        }
      }
    }
}

void pool(const Op &op, const Map &in, const Map &out) {
  for (int32_t y = 0; y < out.h; y++)
    for (int32_t x = 0; x < out.w; x++)
      for (int32_t c = 0; c < out.c; c++) {
        float maximum = -INFINITY;
        double sum = 0;
        int32_t count = 0;
        for (int32_t r = 0; r < op.kh; r++)
          for (int32_t q = 0; q < op.kw; q++) {
            const int32_t row = y * op.sh - op.top + r * op.dilation, column = x * op.sw - op.left + q * op.dilation;
            const bool padding =
                row >= -op.top && row < in.h + op.bottom && column >= -op.left && column < in.w + op.right;
            const bool inside = row >= 0 && row < in.h && column >= 0 && column < in.w;
            if (inside || (op.count_padding && padding)) count++;
            if (!inside) continue;
            const float value = load(in, int64_t(row) * in.w + column, c);
            if (value > maximum || std::isnan(value)) maximum = value;  // a NaN stays: nothing is greater
            sum += value;
          }
        store(out, int64_t(y) * out.w + x, c, op.kind == MAX_POOL ? maximum : float(sum / std::max(count, 1)));
      }
}

// rows and columns are pairs: index of the first of two, weight of the second.
void resize(const Map &in, const Map &out, const float *rows, const float *columns) {
  for (int32_t y = 0; y < out.h; y++)
    for (int32_t x = 0; x < out.w; x++)
      for (int32_t c = 0; c < out.c; c++) {
        const int32_t y0 = int32_t(rows[2 * y]), y1 = std::min(y0 + 1, in.h - 1);
        const int32_t x0 = int32_t(columns[2 * x]), x1 = std::min(x0 + 1, in.w - 1);
        const double down = rows[2 * y + 1], right = columns[2 * x + 1];
        const auto at = [&](int32_t row, int32_t column) { return double(load(in, int64_t(row) * in.w + column, c)); };
        const auto interpolate_columns = [&](int32_t row) {
          const double first = at(row, x0);
          return reads_second(columns[2 * x + 1]) ? first * (1 - right) + at(row, x1) * right : first;
        };
        const double upper = interpolate_columns(y0);
        const double value =
            reads_second(rows[2 * y + 1]) ? upper * (1 - down) + interpolate_columns(y1) * down : upper;
        store(out, int64_t(y) * out.w + x, c, float(value));
      }
}

// Over each of `groups` runs of channels.
void softmax(const Map &in, const Map &out, int32_t groups) {
  const int32_t group_channels = in.c / groups;
  for (int64_t p = 0; p < int64_t(in.h) * in.w; p++)
    for (int32_t first = 0; first < in.c; first += group_channels) {
      float maximum = -INFINITY;
      double sum = 0;
      for (int32_t c = first; c < first + group_channels; c++) maximum = std::max(maximum, load(in, p, c));
      for (int32_t c = first; c < first + group_channels; c++) sum += std::exp(double(load(in, p, c)) - maximum);
      for (int32_t c = first; c < first + group_channels; c++)
        store(out, p, c, float(std::exp(double(load(in, p, c)) - maximum) / sum));
    }
}

// Channel ((g * sh + row) * sw + column) * run + i to channel g * run + i of a position within sh x sw.
void depth_to_space(const Op &op, const Map &in, const Map &out) {
  const int32_t group_channels = out.c / op.groups;
  for (int32_t y = 0; y < out.h; y++)
    for (int32_t x = 0; x < out.w; x++)
      for (int32_t c = 0; c < out.c; c++) {
        const int32_t from =
            ((c / group_channels * op.sh + y % op.sh) * op.sw + x % op.sw) * group_channels + c % group_channels;
        store(out, int64_t(y) * out.w + x, c, load(in, int64_t(y / op.sh) * in.w + x / op.sw, from));
      }
}

}  // namespace

void reference(const Op &op, const Map &in, const Map &other, const Map &out, const float *weights) {
  const int64_t positions = int64_t(in.h) * in.w;
  const Epilogue f = epilogue_of(op);
  switch (op.kind) {
    case CONV: return conv(op, in, other, out, weights);
    case BLOCK: return block(op, in, other, out, weights);
    case MAX_POOL:
    case AVERAGE_POOL: return pool(op, in, out);
    case GLOBAL_AVERAGE:
      for (int32_t c = 0; c < in.c; c++) {
        double sum = 0;
        for (int64_t p = 0; p < positions; p++) sum += load(in, p, c);
        store(out, 0, c, float(sum / double(positions)));
      }
      return;
    case SHUFFLE:
      for (int64_t p = 0; p < positions; p++)
        for (int32_t c = 0; c < in.c; c++)
          store(out, p, c % (in.c / op.groups) * op.groups + c / (in.c / op.groups), load(in, p, c));
      return;
    case RESIZE: return resize(in, out, weights + op.weight0, weights + op.bias0);
    case SOFTMAX: return softmax(in, out, op.groups);
    case DEPTH_TO_SPACE: return depth_to_space(op, in, out);
    default:
      for (int64_t p = 0; p < positions; p++)
        for (int32_t c = 0; c < in.c; c++) {
          float value = load(in, p, c);
          if (op.kind == ADD) value += load(other, int64_t(other.h) * other.w == 1 ? 0 : p, c);
          if (op.kind == MULTIPLY) value *= load(other, p, c);
          if (op.kind == SCALE) value *= load(other, 0, c);
          if (op.kind == AFFINE) value = value * weights[op.weight0 + c] + weights[op.bias0 + c];
          store(out, p, c, activated(round_sum(value, f), f));
        }
  }
}

}  // namespace gossamer
