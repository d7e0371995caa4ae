/* == half_even == */
/* v / 2^shift to the nearest integer, ties to the even one. */
static uint32_t half_even(uint32_t v, int32_t shift)
{
  const uint32_t whole = v >> shift, cut = v << (32 - shift); /* shift: 1 to 31 */
  return whole + (cut > 0x80000000u || (cut == 0x80000000u && (whole & 1u)));
}

/* == times: half_even == */
/* |float(a)| * scale as float32 arithmetic rounds it, in integers: a number of 24 bits, and its exponent. scale: the bits of
   a positive float32. Source: IEEE 754-2008, section 4.3.1, roundTiesToEven. */
static uint32_t times(int32_t a, uint32_t scale, int32_t *exponent)
{
  uint32_t m = a < 0 ? 0u - (uint32_t)a : (uint32_t)a, v;
  int32_t e = (int32_t)(scale >> 23) - 150;
  uint64_t product;
  if (m == 0u || scale == 0u) return 0u;
  if (m >> 24) { /* float(a) itself is rounded */
    int32_t shift = 1;
    while (shift < 8 && m >> (24 + shift)) shift++;
    m = half_even(m, shift);
    e += shift;
    if (m >> 24) {
      m >>= 1;
      e++;
    }
  }
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__ARM_FEATURE_CLZ))
  {
    const int32_t shift = __builtin_clz(m) - 8;
    m <<= shift;
    e -= shift;
  }
#else
  if (!(m & 0xFFFF00u)) {
    m <<= 16;
    e -= 16;
  }
  while (!(m & 0x800000u)) {
    m <<= 1;
    e--;
  }
#endif
  product = (uint64_t)m * ((scale & 0x7FFFFFu) | 0x800000u); /* 47 or 48 bits */
  if (product >> 47) {
    const uint32_t cut = (uint32_t)product << 8;
    v = (uint32_t)(product >> 24);
    v += cut > 0x80000000u || (cut == 0x80000000u && (v & 1u));
    e += 24;
  } else {
    const uint32_t cut = (uint32_t)product << 9;
    v = (uint32_t)(product >> 23);
    v += cut > 0x80000000u || (cut == 0x80000000u && (v & 1u));
    e += 23;
  }
  *exponent = e;
  return v;
}

/* == requantise: times == */
/* float(a) * scale, rounded to an integer, ties to even; beyond 16 bits it stays there. */
static int32_t requantise(int32_t a, uint32_t scale)
{
  int32_t e = 0, r;
  const uint32_t v = times(a, scale, &e);
  if (v == 0u || e < -25) return 0;
  r = e >= -8 ? 65535 : (int32_t)half_even(v, -e);
  return a < 0 ? -r : r;
}

/* == word: times == */
/* float(a) * scale as the bits of a float32. */
static uint32_t word(int32_t a, uint32_t scale)
{
  int32_t e = 0;
  uint32_t v = times(a, scale, &e);
  if (v == 0u) return 0u;
  if (v >> 24) {
    v >>= 1;
    e++;
  }
  return (a < 0 ? 0x80000000u : 0u) | (uint32_t)(e + 150) << 23 | (v & 0x7FFFFFu);
}

/* == bound == */
static uint8_t bound(int32_t v, int32_t low, int32_t high) { return (uint8_t)(v < low ? low : v > high ? high : v); }

/* == together: bound == */
/* Two bytes to that of their sum or product, times numbers in steps of 2^-(32 + shift); ties to even. What float32 arithmetic
   rounds otherwise, having rounded before, is in the list `odd`: all pairs of bytes were compared when this was written. */
static uint8_t together(const net_pair *t, uint8_t a, uint8_t b)
{
  const int32_t u = a - t->zero_a, v = b - t->zero_b;
  const int64_t p = t->product ? (int64_t)(u * v) * t->a : u * t->a + v * t->b;
  const uint32_t low = (uint32_t)p;
  int32_t r = (int32_t)(p >> 32), i;
  for (i = 0; i < t->odds; i++)
    if (t->odd[3 * i] == a && t->odd[3 * i + 1] == b) return t->odd[3 * i + 2];
  if (t->shift == 0) r += low > 0x80000000u || (low == 0x80000000u && (r & 1));
  else {
    const uint32_t cut = (uint32_t)r << (32 - t->shift);
    r >>= t->shift;
    r += cut > 0x80000000u || (cut == 0x80000000u && (low || (r & 1)));
  }
  return bound(r + t->zero, t->low, t->high);
}

/* == end: requantise bound together == */
/* A sum to its byte, that of another map added, and the activation's table. */
static uint8_t end(const net_step *s, int32_t channel, int32_t sum, int32_t at)
{
  uint8_t v = bound(requantise(sum, s->scale[channel]) + s->zero_out, s->low, s->high);
  if (s->pair) v = together(s->pair, v, arena[s->other.at + at * s->other.ld + channel]);
  return s->table ? s->table[v] : v;
}

/* == put: end == */
static void put(const net_step *s, int32_t channel, int32_t sum, int32_t at)
{
  arena[s->out.at + at * s->out.ld + channel] = end(s, channel, sum, at);
}

/* == put_words: end word == */
/* As a byte, or in the last layer as a float32: channels last or first. */
static void put(const net_step *s, int32_t channel, int32_t sum, int32_t at)
{
  if (s->as_words == 1) words[s->out.at + at * s->out.c + channel] = word(sum, s->scale[channel]);
  else if (s->as_words == 2) words[s->out.at + channel * s->out.h * s->out.w + at] = word(sum, s->scale[channel]);
  else arena[s->out.at + at * s->out.ld + channel] = end(s, channel, sum, at);
}

/* == add_words == */
/* The sum of two float32 by their bits, normal numbers or 0, as float32 arithmetic rounds it. Source: IEEE 754-2008, 4.3.1. */
static uint32_t add_words(uint32_t x, uint32_t y)
{
  const uint32_t larger = (x << 1) >= (y << 1) ? x : y, smaller = larger == x ? y : x;
  int32_t e = (int32_t)(larger >> 23 & 255u), apart = e - (int32_t)(smaller >> 23 & 255u), i;
  int64_t m = (int64_t)((larger & 0x7FFFFFu) | 0x800000u) << 26, n = (int64_t)((smaller & 0x7FFFFFu) | 0x800000u) << 26;
  int64_t cut;
  if (!(smaller << 1)) return larger;
  for (i = 0; i < apart && i < 52; i++) n = n >> 1 | (n & 1); /* the last bit: whether any was cut off */
  m = (x ^ y) >> 31 ? m - n : m + n;
  if (m == 0) return 0u;
  if (m >> 50) {
    m = m >> 1 | (m & 1);
    e++;
  }
  while (!(m >> 49)) {
    m <<= 1;
    e--;
  }
  cut = m & 0x3FFFFFF;
  m >>= 26;
  m += cut > 0x2000000 || (cut == 0x2000000 && (m & 1));
  if (m >> 24) {
    m >>= 1;
    e++;
  }
  return (larger & 0x80000000u) | (uint32_t)e << 23 | ((uint32_t)m & 0x7FFFFFu);
}

/* == put_sums: end word add_words == */
/* As a byte, or in the last layer as a float32: channels last or first; there with another map added. */
static void put(const net_step *s, int32_t channel, int32_t sum, int32_t at)
{
  uint32_t v;
  if (!s->as_words) {
    arena[s->out.at + at * s->out.ld + channel] = end(s, channel, sum, at);
    return;
  }
  if (s->pair) {
    const int32_t a = bound(requantise(sum, s->scale[channel]) + s->zero_out, 0, 255);
    const int32_t b = arena[s->other.at + at * s->other.ld + channel];
    v = add_words(word(a - s->pair->zero_a, (uint32_t)s->pair->a), word(b - s->pair->zero_b, (uint32_t)s->pair->b));
  } else v = word(sum, s->scale[channel]);
  words[s->out.at + (s->as_words == 1 ? at * s->out.c + channel : channel * s->out.h * s->out.w + at)] = v;
}

/* == columns == */
/* Sums of `count` channels of 1 to 4 positions `step` apart: the taps of rows r0 to r1 and columns q0 to q1. */
static void columns(const net_step *s, int32_t x, int32_t step, int32_t positions, const int32_t *taps,
                    const int8_t *w, const int32_t *bias, int32_t count, int32_t (*sum)[8])
{
  const int32_t k = s->in.c / s->groups, row = s->in.w * s->in.ld * s->dilation, column = s->in.ld * s->dilation;
  const int32_t zero = s->zero_in;
  int32_t r, q, i, j, p;
  if (positions == 4 && count == 8) {
    int32_t s0[8], s1[8], s2[8], s3[8]; /* of their own: what bytes point to could be any other array */
    for (j = 0; j < 8; j++) s0[j] = s1[j] = s2[j] = s3[j] = bias[j];
    for (r = taps[0]; r < taps[1]; r++)
      for (q = taps[2]; q < taps[3]; q++) {
        const uint8_t *restrict a = arena + (x + r * row + q * column);
        const int8_t *restrict b = w + (r * s->kw + q) * k * 8;
        for (i = 0; i < k; i++, a++, b += 8) {
          const int16_t a0 = (int16_t)(a[0] - zero), a1 = (int16_t)(a[step] - zero);
          const int16_t a2 = (int16_t)(a[2 * step] - zero), a3 = (int16_t)(a[3 * step] - zero);
          int16_t wide[8];
          for (j = 0; j < 8; j++) wide[j] = b[j];
          for (j = 0; j < 8; j++) s0[j] += a0 * wide[j];
          for (j = 0; j < 8; j++) s1[j] += a1 * wide[j];
          for (j = 0; j < 8; j++) s2[j] += a2 * wide[j];
          for (j = 0; j < 8; j++) s3[j] += a3 * wide[j];
        }
      }
    for (j = 0; j < 8; j++) {
      sum[0][j] = s0[j];
      sum[1][j] = s1[j];
      sum[2][j] = s2[j];
      sum[3][j] = s3[j];
    }
    return;
  }
  for (p = 0; p < positions; p++, x += step) {
    int32_t one[8];
    for (j = 0; j < count; j++) one[j] = bias[j];
    for (r = taps[0]; r < taps[1]; r++)
      for (q = taps[2]; q < taps[3]; q++) {
        const uint8_t *restrict a = arena + (x + r * row + q * column);
        const int8_t *restrict b = w + (r * s->kw + q) * k * count;
        for (i = 0; i < k; i++, b += count) {
          const int32_t v = a[i] - zero;
          for (j = 0; j < count; j++) one[j] += v * b[j];
        }
      }
    for (j = 0; j < count; j++) sum[p][j] = one[j];
  }
}

/* == place: columns put == */
/* All channels of 1 to 4 positions. */
static void place(const net_step *s, int32_t x, int32_t step, int32_t positions, const int32_t *taps, int32_t at)
{
  const int32_t k = s->in.c / s->groups, n = s->out.c / s->groups;
  const int8_t *w = s->weight;
  int32_t sum[4][8], g, o, p, j;
  for (g = 0; g < s->groups; g++)
    for (o = 0; o < n; o += 8) {
      const int32_t count = n - o < 8 ? n - o : 8, c = g * n + o;
      columns(s, x + g * k, step, positions, taps, w, s->bias + c, count, sum);
      w += s->kh * s->kw * k * count;
      for (p = 0; p < positions; p++)
        for (j = 0; j < count; j++) put(s, c + j, sum[p][j], at + p);
    }
}

/* == depthwise: span put == */
static void depthwise(const net_step *s)
{
  int32_t y, x, r, q, c, j, taps[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      for (c = 0; c < s->out.c; c += 16) {
        const int32_t count = s->out.c - c < 16 ? s->out.c - c : 16;
        int32_t sum[16];
        for (j = 0; j < count; j++) sum[j] = s->bias[c + j];
        for (r = taps[0]; r < taps[1]; r++)
          for (q = taps[2]; q < taps[3]; q++) {
            const uint8_t *restrict a =
                arena + (s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld) + c;
            const int8_t *restrict w = s->weight + (r * s->kw + q) * s->out.c + c;
            if (count == 16)
              for (j = 0; j < 16; j++) sum[j] += (a[j] - s->zero_in) * w[j];
            else
              for (j = 0; j < count; j++) sum[j] += (a[j] - s->zero_in) * w[j];
          }
        for (j = 0; j < count; j++) put(s, c + j, sum[j], y * s->out.w + x);
      }
    }
  }
}

/* == max_pool: span == */
static void max_pool(const net_step *s)
{
  int32_t y, x, r, q, c, taps[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      uint8_t *restrict to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      for (c = 0; c < s->out.c; c++) to[c] = 0u;
      for (r = taps[0]; r < taps[1]; r++)
        for (q = taps[2]; q < taps[3]; q++) {
          const uint8_t *restrict a =
              arena + (s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld);
          for (c = 0; c < s->out.c; c++) to[c] = a[c] > to[c] ? a[c] : to[c];
        }
      if (s->table)
        for (c = 0; c < s->out.c; c++) to[c] = s->table[to[c]];
    }
  }
}

/* == average_pool: span requantise bound == */
/* scale: for each count of positions, those of the padding among them where the step says so. */
static void average_pool(const net_step *s)
{
  int32_t y, x, r, q, c, taps[4], all[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    span(top + s->top, s->kh, s->dilation, s->in.h + s->top + s->bottom, all);
    for (x = 0; x < s->out.w; x++) {
      const int32_t left = x * s->sw - s->left;
      uint8_t *to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      int32_t count;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      span(left + s->left, s->kw, s->dilation, s->in.w + s->left + s->right, all + 2);
      count = s->count_padding ? (all[1] - all[0]) * (all[3] - all[2]) : (taps[1] - taps[0]) * (taps[3] - taps[2]);
      for (c = 0; c < s->out.c; c++) {
        int32_t sum = 0;
        for (r = taps[0]; r < taps[1]; r++)
          for (q = taps[2]; q < taps[3]; q++)
            sum += arena[s->in.at + ((top + r * s->dilation) * s->in.w + left + q * s->dilation) * s->in.ld + c] -
                   s->zero_in;
        to[c] = bound(requantise(sum, s->scale[count > 0 ? count - 1 : 0]) + s->zero_out, s->low, s->high);
      }
    }
  }
}

/* == global_average: put == */
static void global_average(const net_step *s)
{
  int32_t p, c;
  for (c = 0; c < s->out.c; c++) {
    int32_t sum = 0;
    for (p = 0; p < s->in.h * s->in.w; p++) sum += arena[s->in.at + p * s->in.ld + c] - s->zero_in;
    put(s, c, sum, 0);
  }
}

/* == pairs: together == */
/* Sums and products of two maps, the second of which may be one position. */
static void pairs(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const uint8_t *a = arena + s->in.at + p * s->in.ld;
    const uint8_t *b = arena + s->other.at + (s->other.h * s->other.w == 1 ? 0 : p) * s->other.ld;
    uint8_t *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) {
      const uint8_t v = together(s->pair, a[c], b[c]);
      to[c] = s->table ? s->table[v] : v;
    }
  }
}

/* == copy == */
static void copy(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const uint8_t *a = arena + s->in.at + p * s->in.ld;
    uint8_t *to = arena + s->out.at + p * s->out.ld;
    for (c = 0; c < s->out.c; c++) to[c] = s->table ? s->table[a[c]] : a[c];
  }
}

/* == shuffle == */
static void shuffle(const net_step *s)
{
  const int32_t each = s->in.c / s->groups;
  int32_t p, g, c;
  for (p = 0; p < s->out.h * s->out.w; p++) {
    const uint8_t *a = arena + s->in.at + p * s->in.ld;
    uint8_t *to = arena + s->out.at + p * s->out.ld;
    for (g = 0; g < s->groups; g++)
      for (c = 0; c < each; c++) {
        const uint8_t v = a[g * each + c];
        to[c * s->groups + g] = s->table ? s->table[v] : v;
      }
  }
}

/* == depth_to_space == */
static void depth_to_space(const net_step *s)
{
  const int32_t run = s->out.c / s->groups;
  int32_t y, x, g, c;
  for (y = 0; y < s->out.h; y++)
    for (x = 0; x < s->out.w; x++) {
      const uint8_t *a = arena + s->in.at + (y / s->sh * s->in.w + x / s->sw) * s->in.ld;
      uint8_t *to = arena + s->out.at + (y * s->out.w + x) * s->out.ld;
      for (g = 0; g < s->groups; g++)
        for (c = 0; c < run; c++) {
          const uint8_t v = a[((g * s->sh + y % s->sh) * s->sw + x % s->sw) * run + c];
          to[g * run + c] = s->table ? s->table[v] : v;
        }
    }
}

/* == resize: requantise bound == */
/* bias: of each row, then of each column, the first of the two of the input that it lies between, and how far on in 128ths. */
static void resize(const net_step *s)
{
  const int32_t *columns = s->bias + 2 * s->out.h;
  int32_t y, x, c;
  for (y = 0; y < s->out.h; y++) {
    const int32_t y0 = s->bias[2 * y], y1 = y0 + 1 < s->in.h ? y0 + 1 : y0, down = s->bias[2 * y + 1];
    for (x = 0; x < s->out.w; x++) {
      const int32_t x0 = columns[2 * x], x1 = x0 + 1 < s->in.w ? x0 + 1 : x0, right = columns[2 * x + 1];
      const uint8_t *a = arena + s->in.at + (y0 * s->in.w + x0) * s->in.ld;
      const uint8_t *b = arena + s->in.at + (y0 * s->in.w + x1) * s->in.ld;
      const uint8_t *d = arena + s->in.at + (y1 * s->in.w + x0) * s->in.ld;
      const uint8_t *e = arena + s->in.at + (y1 * s->in.w + x1) * s->in.ld;
      for (c = 0; c < s->out.c; c++) {
        const int32_t upper = a[c] * (128 - right) + b[c] * right, lower = d[c] * (128 - right) + e[c] * right;
        const int32_t sum = upper * (128 - down) + lower * down - s->zero_in * 16384;
        uint8_t v = bound(requantise(sum, s->scale[0]) + s->zero_out, s->low, s->high);
        arena[s->out.at + (y * s->out.w + x) * s->out.ld + c] = v;
      }
    }
  }
}

/* == rows: word == */
/* Bytes into an output, as the float32 that they stand for, channels last. */
static void rows(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->in.h * s->in.w; p++)
    for (c = 0; c < s->in.c; c++)
      words[s->out.at + p * s->in.c + c] = word(arena[s->in.at + p * s->in.ld + c] - s->zero_in, s->scale[0]);
}

/* == planes: word == */
/* Bytes into an output, as the float32 that they stand for, channels first. */
static void planes(const net_step *s)
{
  int32_t p, c;
  for (c = 0; c < s->in.c; c++)
    for (p = 0; p < s->in.h * s->in.w; p++)
      words[s->out.at + c * s->in.h * s->in.w + p] = word(arena[s->in.at + p * s->in.ld + c] - s->zero_in, s->scale[0]);
}
