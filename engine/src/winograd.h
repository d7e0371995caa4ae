// Minimal filtering (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308): along an axis, m outputs of a kernel of r places
// need m + r - 1 products where the sums need m * r. A tile of the map is transformed to values at as many interpolation points,
// and so is the kernel; they are multiplied, and the products transformed back to outputs.
#pragma once
#include <cstdint>

namespace gossamer {

// The sides of a kernel, and those of the input tiles by which it is convolved.
struct WinogradTile {
  int32_t kh, kw, h, w;
};
// All that there are: the planner chooses from them, the first of two that cost the same, and each ISA compiles them.
constexpr WinogradTile WINOGRAD_TILES[] = {{3, 3, 6, 6},  {5, 5, 6, 6},  {1, 3, 1, 6}, {3, 1, 6, 1},
                                           {1, 7, 1, 10}, {7, 1, 10, 1}, {3, 3, 4, 4}, {1, 7, 1, 8},
                                           {7, 1, 8, 1},  {1, 3, 1, 4},  {3, 1, 4, 1}};
constexpr int32_t WINOGRAD_TILE_COUNT = sizeof WINOGRAD_TILES / sizeof *WINOGRAD_TILES;
// Tiles of 8 are of integers only.
constexpr bool integers_only(const WinogradTile &tile) { return tile.h == 8 || tile.w == 8; }

// The interpolation points of an axis of POINTS: 0, infinity, and pairs of opposite ones. Those nearest to each other's inverse keep the
// errors of float32 smallest: for sums of 64 channels of a 3x3 kernel they are 1.3e-6 of the largest output with 6 points,
// where plain sums have 6e-7, and 6e-6 with the usual points 1 and 2.
// INTEGERS: integer ones, for sums of integers.
template <int POINTS, bool INTEGERS = false>
struct InterpolationPoints {
  static constexpr int PAIRS = POINTS / 2 - 1;
  double at[PAIRS] = {}, square[PAIRS] = {};
  double all[PAIRS + 1] = {};  // the product of (x - square) over the pairs, by powers of x, the lowest first
  double products_without[PAIRS][PAIRS] = {};  // the same without one of them
  double scale[PAIRS] = {};                    // what a kernel's value at a pair is divided by
  constexpr InterpolationPoints() {
    if (PAIRS == 1) at[0] = 1;
    if (PAIRS == 2) at[0] = INTEGERS ? 1 : 0.70710678118654752, at[1] = INTEGERS ? 2 : 1.41421356237309505;
    if (PAIRS == 4) at[0] = 0.4, at[1] = 0.8, at[2] = 1.25, at[3] = 2.5;
    for (int i = 0; i < PAIRS; i++) square[i] = at[i] * at[i];
    all[0] = 1;
    for (int i = 0; i < PAIRS; i++) {
      for (int k = i + 1; k > 0; k--) all[k] = all[k - 1] - square[i] * all[k];
      all[0] *= -square[i];
      products_without[i][0] = 1;
      scale[i] = 2 * square[i];
      for (int j = 0, count = 0; j < PAIRS; j++) {
        if (j == i) continue;
        count++;
        for (int k = count; k > 0; k--)
          products_without[i][k] = products_without[i][k - 1] - square[j] * products_without[i][k];
        products_without[i][0] *= -square[j];
        scale[i] *= square[i] - square[j];
      }
    }
  }
};

// Convolutions of bytes are exact: inputs and kernels are integers at integer interpolation points and fit into int16, and so is all that
// follows, modulo 2^32. At 6 points the kernel's values are multiples of 1/24, at 4 of 1/2: they are multiplied by this, and the
// outputs, which are then 24 or 2 times too large along each axis, are multiplied by the inverse of 3 modulo 2^32 and shifted.
// (The value at infinity is at 6 points multiplied by 3 only, so that it fits, and its products by 8.)
// 8 points, for 7 places: 0, 1, 2, 1/2, their negatives, infinity. What is at 1/2 is taken as at 1:2, polynomials of two variables, so that
// it is an integer too; outputs are 360 times too large, along the one axis that has them.
constexpr bool in_int16(int32_t points, int32_t taps) {
  return points <= 4 || (points == 6 && taps == 3) || (points == 8 && taps == 7);
}
constexpr bool in_int16(int32_t down, int32_t across, int32_t kh, int32_t kw) {
  return in_int16(down, kh) && in_int16(across, kw);
}
constexpr int32_t integer_factor(int32_t points, int32_t at) {
  return points == 6 ? (at == 5 ? 3 : 24) : points == 4 ? 2 : 1;
}
constexpr int32_t infinity_factor(int32_t points) { return points == 6 ? 8 : 1; }  // of the products
constexpr int32_t integer_shift(int32_t points) { return points == 6 || points == 8 ? 3 : points == 4 ? 1 : 0; }
constexpr uint32_t INVERSE_OF_45 = 0xA4FA4FA5u;
static_assert(45 * INVERSE_OF_45 == 1, "modulo 2^32");
constexpr uint32_t integer_inverse(int32_t points) {
  return points == 8 ? INVERSE_OF_45 : points == 6 ? 0xAAAAAAABu : 1;
}

// A kernel of PLACES at the interpolation points: in order 0, each pair's positive and negative one, infinity. T: one value, or a vector of them of several kernels.
template <int POINTS, int TAPS, bool INTEGERS, class T>
void kernel_transform(const T *kernel, T *to) {
  constexpr InterpolationPoints<POINTS, INTEGERS> points;
  to[0] = kernel[0] * float(1 / points.all[0]);
  to[POINTS - 1] = kernel[TAPS - 1];
#pragma GCC unroll 8
  for (int i = 0; i < points.PAIRS; i++) {
    T even{}, odd{};
    double power = 1 / points.scale[i];
#pragma GCC unroll 8
    for (int k = 0; k < TAPS; k++, power *= points.at[i]) {
      if (k % 2) odd += kernel[k] * float(power);
      else even += kernel[k] * float(power);
    }
    to[1 + 2 * i] = even + odd, to[2 + 2 * i] = even - odd;
  }
}

// The same at 8 points, each times 360 over what its products are divided by.
template <class T>
void kernel_transform_of_7(const T *kernel, T *to) {
  constexpr float AT[3] = {1, 2, 1}, LEAD[3] = {1, 1, 2}, FACTOR[3] = {-20, 1, 1};
  to[0] = kernel[0] * -90.0f, to[7] = kernel[6] * 90.0f;
  for (int i = 0; i < 3; i++) {
    T even{}, odd{};
    for (int k = 0; k < 7; k++) {
      float power = FACTOR[i];
      for (int j = 0; j < 6; j++) power *= j < k ? AT[i] : LEAD[i];
      if (k % 2) odd += kernel[k] * power;
      else even += kernel[k] * power;
    }
    to[1 + 2 * i] = even + odd, to[2 + 2 * i] = even - odd;
  }
}

template <class T>
void kernel_transform(int points, int taps, bool integers, const T *kernel, T *to) {
  if (points == 4) kernel_transform<4, 3, false>(kernel, to);  // whose points are integers
  else if (points == 6 && taps == 3 && integers) kernel_transform<6, 3, true>(kernel, to);
  else if (points == 6 && taps == 3) kernel_transform<6, 3, false>(kernel, to);
  else if (points == 6) kernel_transform<6, 5, false>(kernel, to);
  else if (points == 8) kernel_transform_of_7(kernel, to);
  else if (points == 10) kernel_transform<10, 7, false>(kernel, to);
  else to[0] = kernel[0];
}

}  // namespace gossamer
