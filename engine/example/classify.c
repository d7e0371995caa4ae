/* classify MODEL.goss PICTURE.ppm: the three likeliest classes of a picture of the network's own size, by their numbers.
 * Mean and deviation of the pixels come from the file's metadata; without metadata they are 0 and 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossamer.h"

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

/* Three numbers after a key of the metadata, which is JSON. */
static void numbers(const char *metadata, const char *key, float to[3]) {
  const char *at = strstr(metadata, key);
  if (at) sscanf(at + strlen(key), ": [%f, %f, %f", &to[0], &to[1], &to[2]);
}

int main(int count, char **words) {
  if (count != 3) return fail(words[0], "give a compiled network and a PPM");
  gossamer_model *model;
  gossamer_session *session;
  int32_t sides[3]; /* height, width, channels */
  int64_t outputs;
  const char *text;
  size_t length;
  int code = gossamer_open(words[1], &model);
  if (!code) code = gossamer_session_open(model, 2, &session);
  if (!code) code = gossamer_describe(model, sides, &outputs);
  if (!code) code = gossamer_metadata(model, &text, &length);
  if (code) return fail(words[1], gossamer_error_text(code));
  if (sides[2] != 3) return fail(words[1], "its input is no colour picture");

  const size_t pixels = (size_t)sides[0] * sides[1];
  char *metadata = calloc(length + 1, 1);
  unsigned char *bytes = malloc(pixels * 3);
  float *input = malloc(pixels * 3 * sizeof *input), *output = malloc(outputs * sizeof *output);
  if (!metadata || !bytes || !input || !output) return fail(words[0], "memory is exhausted");
  memcpy(metadata, text, length);
  float mean[3] = {0, 0, 0}, deviation[3] = {1, 1, 1};
  numbers(metadata, "\"mean\"", mean);
  numbers(metadata, "\"std\"", deviation);

  FILE *file = fopen(words[2], "rb");
  int width = 0, height = 0, most = 0; /* most: the value that is white, 255 where a number is a byte */
  if (!file) return fail(words[2], "it cannot be opened");
  if (fscanf(file, "P6 %d %d %d", &width, &height, &most) != 3 || most != 255 || fgetc(file) == EOF)
    return fail(words[2], "no PPM of bytes");
  if (width != sides[1] || height != sides[0]) return fail(words[2], "not of the network's size");
  if (fread(bytes, 3, pixels, file) != pixels) return fail(words[2], "it ends early");
  fclose(file);
  for (size_t p = 0; p < pixels; p++) /* interleaved bytes to planes of floats */
    for (int c = 0; c < 3; c++) input[c * pixels + p] = (bytes[3 * p + c] / 255.0f - mean[c]) / deviation[c];

  code = gossamer_run(session, input, 1, output);
  if (code) return fail(words[1], gossamer_error_text(code));
  double largest = output[0], sum = 0;
  for (int64_t i = 0; i < outputs; i++) largest = fmax(largest, output[i]);
  for (int64_t i = 0; i < outputs; i++) sum += exp(output[i] - largest);
  printf("%s, input %d x %d\n", gossamer_session_isa(session), (int)sides[1], (int)sides[0]);
  for (int place = 0; place < 3 && place < outputs; place++) {
    int64_t best = 0;
    for (int64_t i = 1; i < outputs; i++)
      if (output[i] > output[best]) best = i;
    printf("%lld %.4f\n", (long long)best, exp(output[best] - largest) / sum);
    output[best] = -INFINITY;
  }
  gossamer_session_close(session);
  gossamer_close(model);
  free(metadata), free(bytes), free(input), free(output);
  return 0;
}
