/* Kernels that are the same for floats and for bytes: they call `place` of either. */

/* == span == */
/* The taps of a kernel from `first` on that lie within a side. */
static void span(int32_t first, int32_t kernel, int32_t dilation, int32_t side, int32_t *taps)
{
  taps[0] = 0;
  taps[1] = kernel;
  while (taps[0] < kernel && first + taps[0] * dilation < 0) taps[0]++;
  while (taps[1] > taps[0] && first + (taps[1] - 1) * dilation >= side) taps[1]--;
}

/* == conv: place span == */
static void conv(const net_step *s)
{
  int32_t y, x, taps[4];
  for (y = 0; y < s->out.h; y++) {
    const int32_t top = y * s->sh - s->top;
    span(top, s->kh, s->dilation, s->in.h, taps);
    for (x = 0; x < s->out.w;) {
      const int32_t left = x * s->sw - s->left;
      int32_t positions = 1;
      span(left, s->kw, s->dilation, s->in.w, taps + 2);
      if (left >= 0 && x + 4 <= s->out.w && left + 3 * s->sw + (s->kw - 1) * s->dilation < s->in.w) positions = 4;
      place(s, s->in.at + (top * s->in.w + left) * s->in.ld, s->sw * s->in.ld, positions, taps,
            y * s->out.w + x);
      x += positions;
    }
  }
}

/* == pointwise: place == */
static void pointwise(const net_step *s)
{
  static const int32_t taps[4] = {0, 1, 0, 1};
  int32_t x;
  for (x = 0; x < s->out.w; x += 4)
    place(s, s->in.at + x * s->in.ld, s->in.ld, s->out.w - x < 4 ? s->out.w - x : 4, taps, x);
}

/* == first == */
/* Channels first to channels last: of the input, where it is no image. */
static void first(const net_step *s)
{
  int32_t p, c;
  for (p = 0; p < s->out.h * s->out.w; p++)
    for (c = 0; c < s->out.c; c++)
      arena[s->out.at + p * s->out.ld + c] = arena[s->in.at + c * s->in.h * s->in.w + p];
}
