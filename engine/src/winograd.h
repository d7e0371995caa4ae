// Minimal filtering (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308): along an axis, m outputs of a kernel of r places
// need m + r - 1 products where the sums need m * r. A tile of the map is transformed to values at as many interpolation points,
// and so is the kernel; they are multiplied, and the products transformed back to outputs.
#pragma once
#include <cstdint>

namespace gossamer {

// The interpolation points of an axis of POINTS: 0, infinity, and pairs of opposite ones. Those nearest to each other's inverse keep the
// errors of float32 smallest: for sums of 64 channels of a 3x3 kernel they are 1.3e-6 of the largest output with 6 points,
// where plain sums have 6e-7, and 6e-6 with the usual points 1 and 2.
template <int POINTS>
struct InterpolationPoints {
  static constexpr int PAIRS = POINTS / 2 - 1;
  double at[PAIRS] = {}, square[PAIRS] = {};
  double all[PAIRS + 1] = {};  // the product of (x - square) over the pairs, by powers of x, the lowest first
  double products_without[PAIRS][PAIRS] = {};  // the same without one of them
  double scale[PAIRS] = {};                    // what a kernel's value at a pair is divided by
  constexpr InterpolationPoints() {
    if (PAIRS == 1) at[0] = 1;
    if (PAIRS == 2) at[0] = 0.70710678118654752, at[1] = 1.41421356237309505;
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

// Whether tiles of these sides hold uint8 inputs as int16, which is exact, and not as floats.
constexpr bool in_int16(int32_t down, int32_t across) { return down <= 4 && across <= 4; }

// A kernel of PLACES at the interpolation points: in order 0, each pair's positive and negative one, infinity. T: one value, or a vector of them of several kernels.
template <int POINTS, int TAPS, class T>
void kernel_transform(const T *kernel, T *to) {
  constexpr InterpolationPoints<POINTS> points;
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

template <class T>
void kernel_transform(int points, int taps, const T *kernel, T *to) {
  if (points == 4) kernel_transform<4, 3>(kernel, to);
  else if (points == 6 && taps == 3) kernel_transform<6, 3>(kernel, to);
  else if (points == 6) kernel_transform<6, 5>(kernel, to);
  else if (points == 10) kernel_transform<10, 7>(kernel, to);
  else to[0] = kernel[0];
}

}  // namespace gossamer
