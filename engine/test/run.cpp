// run MODEL INPUT OUTPUT [THREADS]: float32 images from one file, outputs to another; prints the instruction set in use.
// For processors on which Python does not run.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../include/gossamer.h"
#include "values.h"

static int fail(int code) {
  std::fprintf(stderr, "%s\n", gossamer_error_text(code));
  return 1;
}

int main(int count, char **words) {
  if (count < 4) return fail(GOSSAMER_ARGUMENT);
  gossamer_model *model = nullptr;
  if (int code = gossamer_open(words[1], &model)) return fail(code);
  const size_t inputs = size_t(input_values(model));
  const size_t outputs = size_t(output_values(model));
  gossamer_session *session = nullptr;
  if (int code = gossamer_session_open(model, count > 4 ? std::atoi(words[4]) : 1, &session)) return fail(code);
  FILE *in = std::fopen(words[2], "rb"), *out = std::fopen(words[3], "wb");
  if (!in || !out) return fail(GOSSAMER_FILE);
  std::vector<float> x(inputs), y(outputs);
  while (std::fread(x.data(), 4, inputs, in) == inputs) {
    if (int code = gossamer_run(session, x.data(), 1, y.data())) return fail(code);
    if (std::fwrite(y.data(), 4, y.size(), out) != y.size()) return fail(GOSSAMER_FILE);
  }
  std::fclose(in);
  if (std::fclose(out)) return fail(GOSSAMER_FILE);
  std::printf("%s\n", gossamer_session_isa(session));
  gossamer_session_close(session);
  gossamer_close(model);
  return 0;
}
