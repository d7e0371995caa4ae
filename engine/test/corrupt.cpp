// Every 32-bit number of a small file replaced by extremes under a right checksum, opened and run: for the sanitizers.
#include <cstdio>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../include/gossamer.h"
#include "checksum.h"
#include "values.h"

int main(int, char **names) {
  std::vector<uint8_t> file;
  FILE *in = std::fopen(names[1], "rb");
  for (int c; (c = std::fgetc(in)) != EOF;) file.push_back(uint8_t(c));
  std::fclose(in);
  uint64_t weights;
  std::memcpy(&weights, &file[40], 8);
  int ran = 0, tried = 0;
  for (size_t at = 16; at + 4 <= weights; at += 4)
    for (int32_t number : {-1, 0, 1, 2, 3, 17, 64, 4096, 1 << 16, 0x7FFFFFFF, -0x7FFFFFFF - 1}) {
      auto corrupt = file;
      std::memcpy(&corrupt[at], &number, 4);
      set_checksum(corrupt.data(), corrupt.size());
      FILE *out = std::fopen(names[2], "wb");
      std::fwrite(corrupt.data(), 1, corrupt.size(), out);
      std::fclose(out);
      tried++;
      gossamer_model *model = nullptr;
      if (gossamer_open(names[2], &model)) continue;
      const int64_t inputs = input_values(model), outputs = output_values(model);
      gossamer_session *session = nullptr;
      if (inputs < 1 << 16 && outputs < 1 << 20 && !gossamer_session_open(model, 1, &session)) {
        std::vector<float> x(size_t(inputs), 0.5f), y(static_cast<size_t>(outputs));
        gossamer_run(session, x.data(), 1, y.data());
        gossamer_session_close(session);
        ran++;
      }
      gossamer_close(model);
    }
  std::printf("%d tried, %d ran\n", tried, ran);
  return 0;
}
