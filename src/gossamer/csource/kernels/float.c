/* == bits == */
typedef union {
  float number;
  uint32_t bits;
} net_bits;

/* == exp: bits == */
/* By a power of two and a polynomial (Cephes' expf); relative error below 2e-7. */
static float net_exp(float x)
{
  net_bits power;
  float n, r, p;
  if (!(x == x)) return x;
  if (x > 88.7f) {
    power.bits = 0x7F800000u;
    return power.number;
  }
  if (x < -87.3f) return 0.0f;
  n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: to the nearest integer; stored, where sums have more digits */
  n -= 12582912.0f;
  r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  if (n > 127.0f) return p * 1.7014118e38f * 2.0f;
  power.bits = (uint32_t)((int32_t)n + 127) << 23;
  return p * power.number;
}

/* == log: bits == */
/* By the exponent and a polynomial of the mantissa (Cephes' logf); error below 2e-7 of the larger of 1 and the result. */
static float net_log(float x)
{
  net_bits b;
  float e = 0.0f, m, p, square;
  b.number = x;
  if (!(x == x)) return x;
  if (x < 0.0f) {
    b.bits = 0x7FC00000u;
    return b.number;
  }
  if (x == 0.0f) {
    b.bits = 0xFF800000u;
    return b.number;
  }
  if (b.bits == 0x7F800000u) return x;
  if (x < 1.17549435e-38f) {
    b.number = x * 8388608.0f;
    e = -23.0f;
  }
  e += (float)((int32_t)(b.bits >> 23) - 126);
  b.bits = (b.bits & 0x7FFFFFu) | 0x3F000000u;
  m = b.number;
  if (m < 0.707106781f) {
    e -= 1.0f;
    m = m + m - 1.0f;
  } else m -= 1.0f;
  p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  square = m * m;
  return p * m * square + e * -2.12194440e-4f - 0.5f * square + m + e * 0.693359375f;
}

/* == sigmoid: exp == */
static float net_sigmoid(float x) { return 1.0f / (1.0f + net_exp(-x)); }

/* == hard_sigmoid == */
static float net_hard_sigmoid(float x)
{
  x = x * (1.0f / 6.0f) + 0.5f;
  return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
}

/* == columns == */
/* `count` channels of 1 to 4 positions `step` apart: the taps of rows r0 to r1 and columns q0 to q1. */
static void columns(const net_step *s, int32_t x, int32_t step, int32_t positions, const int32_t *taps,
                    const float *w, const float *bias, int32_t count, float *to)
{
  const int32_t k = s->in.c / s->groups, row = s->in.w * s->in.ld * s->dilation, column = s->in.ld * s->dilation;
  int32_t r, q, i, j, p;
  if (positions == 4 && count == 8) {
    float sum[4][8];
    for (p = 0; p < 4; p++)
      for (j = 0; j < 8; j++) sum[p][j] = bias[j];
    for (r = taps[0]; r < taps[1]; r++)
      for (q = taps[2]; q < taps[3]; q++) {
        const float *restrict a = arena + (x + r * row + q * column), *restrict b = w + (r * s->kw + q) * k * 8;
        for (i = 0; i < k; i++, a++, b += 8)
          for (p = 0; p < 4; p++)
            for (j = 0; j < 8; j++) sum[p][j] += a[p * step] * b[j];
      }
    for (p = 0; p < 4; p++)
      for (j = 0; j < 8; j++) to[p * s->out.ld + j] = sum[p][j];
    return;
  }
  for (p = 0; p < positions; p++, x += step, to += s->out.ld) {
    float sum[8];
    for (j = 0; j < count; j++) sum[j] = bias[j];
    for (r = taps[0]; r < taps[1]; r++)
      for (q = taps[2]; q < taps[3]; q++) {
        const float *restrict a = arena + (x + r * row + q * column), *restrict b = w + (r * s->kw + q) * k * count;
        for (i = 0; i < k; i++, b += count)
          for (j = 0; j < count; j++) sum[j] += a[i] * b[j];
      }
    for (j = 0; j < count; j++) to[j] = sum[j];
  }
}

/* == place: columns finish == */
/* All channels of 1 to 4 positions, `other` added, and the activation. */
static void place(const net_step *s, int32_t x, int32_t step, int32_t positions, const int32_t *taps, int32_t at)
{
  const int32_t k = s->in.c / s->groups, n = s->out.c / s->groups;
  const float *w = s->weight, *bias = s->bias;
  float *to = arena + s->out.at + at * s->out.ld;
  int32_t g, o, p;
  for (g = 0; g < s->groups; g++)
    for (o = 0; o < n; o += 8) {
      const int32_t count = n - o < 8 ? n - o : 8;
      float *out = to + g * n + o;
      float kept[4][8];
      int32_t j;
      if (s->other.c) /* which the output may replace in its place */
        for (p = 0; p < positions; p++)
          for (j = 0; j < count; j++) kept[p][j] = arena[s->other.at + (at + p) * s->other.ld + g * n + o + j];
      columns(s, x + g * k, step, positions, taps, w, bias, count, out);
      if (s->other.c)
        for (p = 0; p < positions; p++)
          for (j = 0; j < count; j++) out[p * s->out.ld + j] += kept[p][j];
      w += s->kh * s->kw * k * count;
      bias += count;
    }
  for (p = 0; p < positions; p++) finish(s, to + p * s->out.ld, s->out.c);
}

/* == depthwise: span finish == */
static void depthwise(const net_step *s)
{
  int32_t y, x, r, q, c, taps[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      float *restrict to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      for (c = 0; c < s->out.c; c++) to[c] = s->bias[c];
      for (r = taps[0]; r < taps[1]; r++)
        for (q = taps[2]; q < taps[3]; q++) {
          const float *restrict a =
              arena + (s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld);
          const float *restrict w = s->weight + (r * s->kw + q) * s->out.c;
          for (c = 0; c < s->out.c; c++) to[c] += a[c] * w[c];
        }
      finish(s, to, s->out.c);
    }
  }
}

/* == max_pool: span finish == */
static void max_pool(const net_step *s)
{
  int32_t y, x, r, q, c, taps[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      float *restrict to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      for (r = taps[0]; r < taps[1]; r++)
        for (q = taps[2]; q < taps[3]; q++) {
          const float *restrict a =
              arena + (s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld);
          if (r == taps[0] && q == taps[2])
            for (c = 0; c < s->out.c; c++) to[c] = a[c];
          else
            for (c = 0; c < s->out.c; c++) to[c] = a[c] > to[c] || !(a[c] == a[c]) ? a[c] : to[c]; /* NaN stays */
        }
      finish(s, to, s->out.c);
    }
  }
}

/* == average_pool: span finish == */
/* Positions of the padding count where the step says so, those behind it never. */
static void average_pool(const net_step *s)
{
  int32_t y, x, r, q, c, taps[4], all[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    span(top + s->top, s->kh, s->dilation, s->in.h + s->top + s->bottom, all);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      float *restrict to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      int32_t count;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      span(left + s->left, s->kw, s->dilation, s->in.w + s->left + s->right, all + 2);
      count = s->count_padding ? (all[1] - all[0]) * (all[3] - all[2]) : (taps[1] - taps[0]) * (taps[3] - taps[2]);
      for (c = 0; c < s->out.c; c++) to[c] = 0.0f;
      for (r = taps[0]; r < taps[1]; r++)
        for (q = taps[2]; q < taps[3]; q++) {
          const float *restrict a =
              arena + (s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld);
          for (c = 0; c < s->out.c; c++) to[c] += a[c];
        }
      for (c = 0; c < s->out.c; c++) to[c] /= (float)(count > 0 ? count : 1);
      finish(s, to, s->out.c);
    }
  }
}

/* == global_average: finish == */
/* Sums of rows, then of these: so that a large map loses no digits. */
static void global_average(const net_step *s)
{
  int32_t y, x, c;
  float *to = arena + s->out.at;
  for (c = 0; c < s->out.c; c++) {
    float sum = 0.0f;
    for (y = 0; y < s->in.h; y++) {
      const float *a = arena + s->in.at + y * s->in.w * s->in.ld + c;
      float row = 0.0f;
      for (x = 0; x < s->in.w; x++) row += a[x * s->in.ld];
      sum += row;
    }
    to[c] = sum / (float)(s->in.h * s->in.w);
  }
  finish(s, to, s->out.c);
}

/* == add: finish == */
static void add(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const float *a = arena + s->in.at + p * s->in.ld;
    const float *b = arena + s->other.at + (s->other.h * s->other.w == 1 ? 0 : p) * s->other.ld;
    float *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) to[c] = a[c] + b[c];
    finish(s, to, s->out.c);
  }
}

/* == multiply: finish == */
static void multiply(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const float *a = arena + s->in.at + p * s->in.ld;
    const float *b = arena + s->other.at + (s->other.h * s->other.w == 1 ? 0 : p) * s->other.ld;
    float *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) to[c] = a[c] * b[c];
    finish(s, to, s->out.c);
  }
}

/* == affine: finish == */
static void affine(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const float *a = arena + s->in.at + p * s->in.ld;
    float *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) to[c] = a[c] * s->weight[c] + s->bias[c];
    finish(s, to, s->out.c);
  }
}

/* == copy: finish == */
static void copy(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const float *a = arena + s->in.at + p * s->in.ld;
    float *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) to[c] = a[c];
    finish(s, to, s->out.c);
  }
}

/* == shuffle: finish == */
static void shuffle(const net_step *s)
{
  const int32_t each = s->in.c / s->groups;
  int32_t p, g, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const float *a = arena + s->in.at + p * s->in.ld;
    float *to = arena + s->out.at + p * s->out.ld;
    for (g = 0; g < s->groups; g++)
      for (c = 0; c < each; c++) to[c * s->groups + g] = a[g * each + c];
    finish(s, to, s->out.c);
  }
}

/* == depth_to_space: finish == */
static void depth_to_space(const net_step *s)
{
  const int32_t run = s->out.c / s->groups;
  int32_t y, x, g, c;
  for (y = 0; y < s->out.h; y++)
    for (x = 0; x < s->out.w; x++) {
      const float *a = arena + s->in.at + (y / s->sh * s->in.w + x / s->sw) * s->in.ld;
      float *to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      for (g = 0; g < s->groups; g++)
        for (c = 0; c < run; c++) to[g * run + c] = a[((g * s->sh + y % s->sh) * s->sw + x % s->sw) * run + c];
      finish(s, to, s->out.c);
    }
}

/* == resize: finish == */
/* weight: of each row the first of the two rows of the input that it lies between, and how far on it lies; bias: of columns. */
static void resize(const net_step *s)
{
  int32_t y, x, c;
  for (y = 0; y < s->out.h; y++) {
    const int32_t y0 = (int32_t)s->weight[2 * y], y1 = y0 + 1 < s->in.h ? y0 + 1 : y0;
    const float down = s->weight[2 * y + 1];
    for (x = 0; x < s->out.w; x++) {
      const int32_t x0 = (int32_t)s->bias[2 * x], x1 = x0 + 1 < s->in.w ? x0 + 1 : x0;
      const float right = s->bias[2 * x + 1];
      const float *a = arena + s->in.at + (y0 * s->in.w + x0) * s->in.ld;
      const float *b = arena + s->in.at + (y0 * s->in.w + x1) * s->in.ld;
      const float *d = arena + s->in.at + (y1 * s->in.w + x0) * s->in.ld;
      const float *e = arena + s->in.at + (y1 * s->in.w + x1) * s->in.ld;
      float *to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      for (c = 0; c < s->out.c; c++) {
        float v = right != 0.0f ? a[c] * (1.0f - right) + b[c] * right : a[c];
        if (down != 0.0f) v = v * (1.0f - down) + (right != 0.0f ? d[c] * (1.0f - right) + e[c] * right : d[c]) * down;
        to[c] = v;
      }
      finish(s, to, s->out.c);
    }
  }
}

/* == softmax: exp finish == */
static void softmax(const net_step *s)
{
  const int32_t run = s->in.c / s->groups;
  int32_t p, g, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    float *to = arena + s->out.at + p * s->out.ld;
    for (g = 0; g < s->groups; g++) {
      const float *a = arena + s->in.at + p * s->in.ld + g * run;
      float *row = to + g * run, largest = a[0], sum = 0.0f;
      for (c = 1; c < run; c++) largest = a[c] > largest ? a[c] : largest;
      for (c = 0; c < run; c++) {
        row[c] = net_exp(a[c] - largest);
        sum += row[c];
      }
      for (c = 0; c < run; c++) row[c] /= sum;
    }
    finish(s, to, s->out.c);
  }
}

/* == rows == */
/* A map into an output, channels last. */
static void rows(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->in.h * s->in.w; p++)
    for (c = 0; c < s->in.c; c++) arena[s->out.at + p * s->in.c + c] = arena[s->in.at + p * s->in.ld + c];
}

/* == planes == */
/* A map into an output, channels first. */
static void planes(const net_step *s)
{
  int32_t p, c;
  for (c = 0; c < s->in.c; c++)
    for (p = 0; p < s->in.h * s->in.w; p++)
      arena[s->out.at + c * s->in.h * s->in.w + p] = arena[s->in.at + p * s->in.ld + c];
}
