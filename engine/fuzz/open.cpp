// libFuzzer's target: a file is refused, or opened, described and run with every ISA of the machine, within a bounded cost.
// The mutator writes the right size and checksum into 15 of 16 mutated files.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../include/gossamer.h"
#include "../src/model.h"
#include "../test/checksum.h"
#include "../test/values.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

namespace {

constexpr double MOST_BYTES = 1 << 26, MOST_WORK = 1 << 24;  // of the maps together; multiply-adds
constexpr size_t HEADER = 128;

// Whether the loader takes a file whose maps are small and whose operations are cheap. `data` is aligned as a map of a file is.
bool cheap(const uint8_t *data, size_t size) {
  gossamer::Model m;
  m.data = data, m.size = size;
  if (gossamer::check(m)) return true;  // refused: nothing runs
  double bytes = 0, work = 0;
  for (int32_t i = 0; i < m.value_count; i++) bytes += 4.0 * m.values[i].h * m.values[i].w * (m.values[i].c + 15);
  for (int32_t i = 0; i < m.op_count; i++) {
    const gossamer::Op &op = m.ops[i];
    const auto &in = m.values[op.in], &out = m.values[op.out];
    const bool window = op.kind <= gossamer::AVERAGE_POOL, block = op.kind == gossamer::BLOCK;
    const double taps = window ? double(op.kh) * op.kw : 1, places = double(in.h) * in.w + double(out.h) * out.w;
    bytes += block ? 4.0 * (places + 256.0 * (in.w + 192.0)) * (op.mid + 63) : 0;
    // the reference makes a number of the expanded map each time it is needed
    if (block) work += places * op.mid * (taps * (op.weight0 < 0 ? 1 : in.c) + (op.weight2 < 0 ? 0 : out.c));
    else work += places * (op.kind == gossamer::CONV ? double(in.c) * out.c : in.c + out.c) * taps;
  }
  return bytes <= MOST_BYTES && work <= MOST_WORK;
}

void open_and_run(const char *path, const char *isa) {
  setenv("GOSSAMER_ISA", isa, 1);
  gossamer_model *model = nullptr;
  if (gossamer_open(path, &model)) return;
  const char *metadata = nullptr;
  size_t length = 0;
  if (gossamer_metadata(model, &metadata, &length)) std::abort();
  const std::string copy(metadata, length);
  const size_t inputs = size_t(input_values(model));
  const size_t outputs = size_t(output_values(model));
  int32_t count = 0, sides[3];
  int64_t described = 0;
  if (gossamer_input_count(model, &count)) std::abort();
  const int answer = gossamer_describe(model, sides, &described);
  if (count > 1 ? answer != GOSSAMER_INPUTS : answer || described != int64_t(outputs)) std::abort();
  for (int threads : {1, 2}) {
    gossamer_session *session = nullptr;
    if (gossamer_session_open(model, threads, &session)) continue;
    std::vector<float> x(inputs), y(outputs);
    for (size_t i = 0; i < x.size(); i++) x[i] = i % 97 == 96 ? NAN : i % 89 == 88 ? 1e30f : float(i % 7) - 3;
    const int code = gossamer_run(session, x.data(), 1, y.data());  // with NaN, which networks of uint8 maps refuse
    if (code && code != GOSSAMER_NAN) std::abort();
    for (float &number : x) number = std::isnan(number) ? 0 : number;
    if (gossamer_run(session, x.data(), 1, y.data())) std::abort();
    gossamer_session_close(session);
  }
  gossamer_close(model);
}

uint32_t next(uint32_t &state) {  // xorshift
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int file = memfd_create("file", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (ftruncate(file, off_t(size)) || pwrite(file, data, size, 0) != ssize_t(size)) return 0;
  if (size) {
    void *map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (map == MAP_FAILED) return 0;
    const bool small = cheap(static_cast<const uint8_t *>(map), size);
    munmap(map, size);
    if (!small) return 0;
  }
  for (const char *isa : {"reference", "portable", ""}) open_and_run(path.c_str(), isa);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
  uint32_t state = seed | 1;
  uint64_t tables = 0;  // values and operations lie before the weights
  if (size > HEADER) std::memcpy(&tables, data + 40, 8);
  tables = std::min<uint64_t>(tables, size);
  if (tables >= HEADER + 8 && next(state) % 4) {
    static const int32_t extremes[] = {-1, 0,   1,   2,   3,   7,    15,    16,    17,      63,        64,
                                       65, 127, 128, 255, 256, 4096, 65535, 65536, 1 << 28, INT32_MAX, INT32_MIN};
    for (uint32_t edits = 1 + next(state) % 4; edits > 0; edits--) {
      const size_t at = 16 + next(state) % (tables - 20) / 4 * 4, from = 16 + next(state) % (tables - 20) / 4 * 4;
      int32_t number;
      std::memcpy(&number, data + (next(state) % 3 ? at : from), 4);
      if (next(state) % 2) number = int32_t(uint32_t(number) + next(state) % 9 - 4);
      else if (next(state) % 2) number = extremes[next(state) % (sizeof extremes / sizeof *extremes)];
      std::memcpy(data + at, &number, 4);
    }
  } else {
    size = LLVMFuzzerMutate(data, size, most);
  }
  if (size < HEADER || next(state) % 16 == 0) return size;
  const uint64_t length = size;
  std::memcpy(data, "GOSSAMER", 8);
  std::memcpy(data + 16, &length, 8);
  set_checksum(data, size);
  return size;
}
