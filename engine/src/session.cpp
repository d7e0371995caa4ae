// The session and the C interface. Settings, weights and scratch are three structures: the request, what all sessions
// of a model share, and what one session writes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../include/gossamer.h"
#include "kernel.h"
#include "isa.h"
#include "model.h"
#include "plan.h"
#include "pool.h"

using namespace gossamer;

namespace {

constexpr size_t MAX_PRIVATE_ARENA_BYTES = 2 << 20;  // of a thread's own maps, so that they stay in its second cache
constexpr int64_t MIN_PARALLEL_OUTPUTS = 1 << 14;    // of all outputs: fewer are stored by one thread
constexpr int64_t MAX_IMAGES_PER_THREAD = 1 << 20;   // of a thread, of which it takes one at a time

}  // namespace

struct gossamer_session {
  const gossamer_model *model;
  Pool pool;
  Bytes shared;
  std::vector<Bytes> arenas;                     // one, or one a thread where each may take an image of its own
  std::vector<Bytes> expanded, middle, scratch;  // one a thread
  // of the images under way: many where each thread takes its own, else one
  const float *input = nullptr;
  float *output = nullptr;
  int32_t op = 0;
  int phase = 0, chunks_per_thread = 1;  // work chunks of a thread for the current operation
  gossamer_session(const gossamer_model *m, int threads) : model(m), pool(threads) {}
};

namespace {

// Operation `index` on the work item's part of an image.
void operate(const WorkItem &item, int32_t index, int phase) {
  const gossamer_model &m = item.model;
  if (m.isa) return m.steps[size_t(index)].kernel->run(item, index, phase);
  const Op &op = m.file.ops[index];
  const Map other = op.other >= 0 ? map_of(item, op.other) : Map{};
  if (item.part == 0) reference(op, map_of(item, op.in), other, map_of(item, op.out), m.file.weights);
}

// An input of an image, channels first, into its map.
void load_map(const WorkItem &item, const float *image, const Map &to) {
  const int64_t plane = int64_t(to.h) * to.w;
  const auto [first, last] = work_chunk(plane, item.part, item.parts);
  if (item.model.isa) return item.model.isa->kernels->load_input(image, to, first, last);
  for (int32_t c = 0; c < to.c; c++) {
    const float *from = image + c * plane;
    if (to.type == F32) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<float *>(to.data + p * to.ld)[c] = from[p];
    } else if (to.type == BF16) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<uint16_t *>(to.data + p * to.ld)[c] = to_bf16(from[p]);
    } else {
      const float inverse = 1 / to.scale, zero = float(to.zero);
      for (int64_t p = first; p < last; p++) {
        const float q = std::nearbyint(from[p] * inverse) + zero;
        to.data[p * to.ld + c] = uint8_t(q > 0 ? std::min(q, 255.0f) : 0.0f);
      }
    }
  }
}

// The inputs of an image, which are concatenated.
void load_inputs(const WorkItem &item) {
  const float *image = item.input;
  for (int32_t value : item.model.file.input_values) {
    const Map to = map_of(item, value);
    load_map(item, image, to);
    image += int64_t(to.h) * to.w * to.c;
  }
}

float load_value(const Map &m, int64_t position, int32_t c) {
  const uint8_t *at = m.data + position * m.ld;
  if (m.type == F32) return reinterpret_cast<const float *>(at)[c];
  if (m.type == U8) return float(at[c] - m.zero) * m.scale;
  return from_bf16(reinterpret_cast<const uint16_t *>(at)[c]);
}

// The pieces of all outputs, concatenated, each channels first or channels last.
void store_outputs(const WorkItem &item) {
  const Model &f = item.model.file;
  float *to = item.output;
  for (int32_t i = 0; i < f.piece_count; i++) {
    const Map from = map_of(item, f.pieces[i].value);
    const int64_t plane = int64_t(from.h) * from.w;
    const bool last_axis = f.pieces[i].channels_last;
    const int64_t position = last_axis ? from.c : 1, channel = last_axis ? 1 : plane;  // values from one to the next
    const auto [first, last] = work_chunk(plane, item.part, item.parts);
    for (int64_t p = first; p < last; p++)
      for (int32_t c = 0; c < from.c; c++) to[p * position + c * channel] = load_value(from, p, c);
    to += plane * from.c;
  }
}

// A thread's work item, on the maps of `arena`.
WorkItem item_on(const gossamer_session &s, uint8_t *arena, const float *input, float *output, int thread, int threads,
                 int part, int parts) {
  const size_t t = size_t(thread);
  return WorkItem{
      *s.model, arena,   input, output, s.expanded[t].data, s.middle[t].data, s.scratch[t].data, s.shared.data,
      thread,   threads, part,  parts};
}

WorkItem item_of(const void *context, int part, int thread) {
  const gossamer_session &s = *static_cast<const gossamer_session *>(context);
  const int threads = s.pool.threads();
  return item_on(s, s.arenas[0].data, s.input, s.output, thread, threads, part, threads * s.chunks_per_thread);
}

void load_inputs_part(void *context, int part, int thread) { load_inputs(item_of(context, part, thread)); }

void operate_part(void *context, int part, int thread) {
  const gossamer_session &s = *static_cast<const gossamer_session *>(context);
  operate(item_of(context, part, thread), s.op, s.phase);
}

void store_outputs_part(void *context, int part, int thread) { store_outputs(item_of(context, part, thread)); }

// One image, each of its operations split among all threads; the nanoseconds that each takes are added, or `spent` is null.
void run_image(gossamer_session &s, int64_t *nanoseconds) {
  using Clock = std::chrono::steady_clock;
  const int threads = s.pool.threads();
  s.chunks_per_thread = 1;
  s.pool.run(load_inputs_part, &s, s.chunks_per_thread);
  for (s.op = 0; s.op < s.model->file.op_count; s.op++) {
    const auto start = nanoseconds ? Clock::now() : Clock::time_point();
    const Kernel *const kernel = s.model->isa ? s.model->steps[size_t(s.op)].kernel : nullptr;
    const int count = kernel && kernel->phases ? kernel->phases(s.model->steps[size_t(s.op)], threads) : 1;
    for (s.phase = 0; s.phase < count; s.phase++) {
      const bool several = threads > 1 && kernel && kernel->work_chunks;
      s.chunks_per_thread = several ? kernel->work_chunks(*s.model, s.op, s.phase, threads) : 1;
      s.pool.run(operate_part, &s, s.chunks_per_thread);
    }
    if (nanoseconds)
      nanoseconds[s.op] += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
  }
  s.chunks_per_thread = 1;
  if (s.model->file.output_elements >= MIN_PARALLEL_OUTPUTS) s.pool.run(store_outputs_part, &s, s.chunks_per_thread);
  else store_outputs(item_on(s, s.arenas[0].data, s.input, s.output, 0, 1, 0, 1));
}

// One of the images by one thread, without waiting for others.
void run_image_on_one_thread(void *context, int i, int thread) {
  const gossamer_session &s = *static_cast<gossamer_session *>(context);
  const Model &f = s.model->file;
  const WorkItem item = item_on(s, s.arenas[size_t(thread)].data, s.input + i * f.input_elements,
                                s.output + i * f.output_elements, thread, 1, 0, 1);
  load_inputs(item);
  for (int32_t o = 0; o < f.op_count; o++) operate(item, o, 0);
  store_outputs(item);
}

// Whether a value is NaN, by its bits: compilers vectorise this loop.
bool holds_nan(const float *numbers, int64_t count) {
  constexpr int64_t BLOCK_SIZE = 1 << 12;
  for (int64_t first = 0; first < count; first += BLOCK_SIZE) {
    uint32_t largest = 0;
    for (int64_t i = first; i < std::min(first + BLOCK_SIZE, count); i++) {
      uint32_t bits;
      std::memcpy(&bits, numbers + i, 4);
      largest = std::max(largest, bits & 0x7FFFFFFFu);
    }
    if (largest > 0x7F800000u) return true;  // the bits of infinity
  }
  return false;
}

// As many images as divide evenly among the threads, one image per thread, where each thread has its own arena; the others one by one.
int run_images(gossamer_session &s, const float *input, int64_t images, float *output, int64_t *nanoseconds) {
  const Model &f = s.model->file;
  const int64_t threads = s.pool.threads(),
                parallel_images = s.arenas.size() > 1 && !nanoseconds ? images / threads * threads : 0;
  try {
    s.pool.restart_after_fork();
  } catch (...) {  // bad_alloc, or a thread that cannot be started
    return GOSSAMER_MEMORY;
  }
  if (s.model->quantised && holds_nan(input, images * f.input_elements)) return GOSSAMER_NAN;
  s.input = input, s.output = output;
  for (int64_t i = 0, count; i < parallel_images; i += count) {
    count = std::min<int64_t>(parallel_images - i, threads * MAX_IMAGES_PER_THREAD);
    s.input = input + i * f.input_elements, s.output = output + i * f.output_elements;
    s.pool.run(run_image_on_one_thread, &s, int(count / threads));
  }
  for (int64_t i = parallel_images; i < images; i++) {
    s.input = input + i * f.input_elements;
    s.output = output + i * f.output_elements;
    run_image(s, nanoseconds);
  }
  return GOSSAMER_OK;
}

// All of an open file into memory of its own: what the file becomes afterwards, overwritten or cut off, changes nothing. A
// mapping of the file would show it, and end the process where the file is shorter.
int read_file(int file, Model &m) {
  struct stat status{};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) return GOSSAMER_FILE;
  Header header{};
  if (pread(file, &header, sizeof header, 0) < 0) return GOSSAMER_FILE;
  if (int code = check_header(header, uint64_t(status.st_size))) return code;  // before memory of its size is taken
  const size_t size = size_t(status.st_size);
  void *const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return GOSSAMER_MEMORY;
  m.data = static_cast<const uint8_t *>(data), m.size = size;
  for (size_t at = 0; at < size;) {
    const ssize_t count = pread(file, static_cast<uint8_t *>(data) + at, size - at, off_t(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? GOSSAMER_FILE : GOSSAMER_SIZE;
    at += size_t(count);
  }
  return GOSSAMER_OK;
}

}  // namespace

extern "C" {

const char *gossamer_error_text(int code) {
  static const char *const texts[] = {
      "done",
      "an argument is null or outside its range",
      "memory is exhausted",
      "the file cannot be opened or read, or is empty",
      "N1: not a compiled network",
      "N2: a version that this engine does not support",
      "N3: shorter or longer than it says, or above 4 GiB",
      "N4: corrupt: the checksum differs",
      "N5: a table is outside the file or not aligned",
      "N6: a value has sides out of range, or is a slice outside its parent",
      "N7: an operation has a kind, an activation or attributes out of range",
      "N8: an operation reads what no earlier one wrote, or writes twice",
      "N9: shapes are inconsistent",
      "N10: weights are outside their table, or a resize reads outside its map",
      "N11: an output has no name or no shape, or its pieces do not fill it",
      "N12: weights are of a type that cannot be multiplied with their map, int8 ones have an invalid scale, or a sum "
      "of so many "
      "products of bytes does not fit into int32",
      ("GOSSAMER_ISA names an instruction set other than reference, portable, avx2, avx512, avx512_vnni, avx512_bf16, "
       "amx, neon and neon_dotprod, or that this machine lacks"),  // in parentheses: clang suspects a missing comma
      "the input holds NaN, which a network that computes in uint8 cannot represent",
      "N13: an input has no name, or its sides are not those of its value",
      "the network has several inputs, which gossamer_input describes one by one",
  };
  const int count = int(sizeof texts / sizeof *texts);
  return code >= 0 && code < count ? texts[code] : "unknown error";
}

int gossamer_open(const char *path, gossamer_model **model) {
  if (!path || !model) return GOSSAMER_ARGUMENT;
  *model = nullptr;
  try {
    auto opened = std::make_unique<gossamer_model>();
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe that nobody writes to would block
    if (file < 0) return GOSSAMER_FILE;
    const int code = read_file(file, opened->file);
    close(file);
    if (code) return code;
    if (int code = check(opened->file)) return code;
    if (int code = prepare(*opened)) return code;
    *model = opened.release();
    return GOSSAMER_OK;
  } catch (const std::bad_alloc &) {
    return GOSSAMER_MEMORY;
  } catch (...) {
    return GOSSAMER_ARGUMENT;
  }
}

int gossamer_describe(const gossamer_model *model, int32_t input[3], int64_t *outputs) {
  if (!model || !input || !outputs) return GOSSAMER_ARGUMENT;
  if (model->file.input_values.size() > 1) return GOSSAMER_INPUTS;
  const Value &in = model->file.values[model->file.input_values[0]];
  input[0] = in.h, input[1] = in.w, input[2] = in.c;
  *outputs = model->file.output_elements;
  return GOSSAMER_OK;
}

int gossamer_input_count(const gossamer_model *model, int32_t *count) {
  if (!model || !count) return GOSSAMER_ARGUMENT;
  *count = int32_t(model->file.input_values.size());
  return GOSSAMER_OK;
}

int gossamer_input(const gossamer_model *model, int32_t index, const char **name, int32_t *rank, int32_t sides[4],
                   int64_t *first) {
  if (!model || !name || !rank || !sides || !first || index < 0 || index >= int32_t(model->file.input_values.size()))
    return GOSSAMER_ARGUMENT;
  const Model &f = model->file;
  *first = 0;
  for (int32_t i = 0; i < index; i++) {
    const Value &before = f.values[f.input_values[size_t(i)]];
    *first += int64_t(before.h) * before.w * before.c;
  }
  const Value &v = f.values[f.input_values[size_t(index)]];
  const int32_t map_sides[4] = {v.c, v.h, v.w, 1};
  *name = f.inputs ? f.inputs[index].name : "";
  *rank = f.inputs ? f.inputs[index].rank : 3;
  for (int32_t axis = 0; axis < 4; axis++)
    sides[axis] = axis < *rank ? (f.inputs ? f.inputs[index].sides : map_sides)[axis] : 1;
  return GOSSAMER_OK;
}

int gossamer_output_count(const gossamer_model *model, int32_t *count) {
  if (!model || !count) return GOSSAMER_ARGUMENT;
  *count = model->file.output_count;
  return GOSSAMER_OK;
}

int gossamer_output(const gossamer_model *model, int32_t index, const char **name, int32_t *rank, int32_t sides[4],
                    int64_t *first) {
  if (!model || !name || !rank || !sides || !first || index < 0 || index >= model->file.output_count)
    return GOSSAMER_ARGUMENT;
  const Output *outputs = model->file.outputs;
  *first = 0;
  for (int32_t i = 0; i < index; i++) {
    int64_t elements = 1;
    for (int32_t axis = 0; axis < outputs[i].rank; axis++) elements *= outputs[i].sides[axis];
    *first += elements;
  }
  *name = outputs[index].name;
  *rank = outputs[index].rank;
  for (int32_t axis = 0; axis < 4; axis++) sides[axis] = axis < *rank ? outputs[index].sides[axis] : 1;
  return GOSSAMER_OK;
}

int gossamer_metadata(const gossamer_model *model, const char **text, size_t *size) {
  if (!model || !text || !size) return GOSSAMER_ARGUMENT;
  *text = model->file.metadata;
  *size = model->file.metadata_size;
  return GOSSAMER_OK;
}

int gossamer_records(const gossamer_model *model, const void **data, size_t *size) {
  if (!model || !data || !size) return GOSSAMER_ARGUMENT;
  *data = model->file.data;
  *size = model->file.size;
  return GOSSAMER_OK;
}

int gossamer_session_open(const gossamer_model *model, int threads, gossamer_session **session) {
  if (!model || !session || threads < 1 || threads > 256) return GOSSAMER_ARGUMENT;
  *session = nullptr;
  try {
    auto opened = std::make_unique<gossamer_session>(model, threads);
    opened->expanded.resize(size_t(threads));
    opened->middle.resize(size_t(threads));
    opened->scratch.resize(size_t(threads));
    opened->arenas.resize(model->arena <= MAX_PRIVATE_ARENA_BYTES ? size_t(threads) : 1);
    bool fits = opened->shared.allocate(threads > 1 ? model->shared : 0);
    for (Bytes &arena : opened->arenas) fits = fits && arena.allocate(model->arena);
    for (int t = 0; t < threads; t++)
      fits = fits && opened->expanded[size_t(t)].allocate(model->expanded) &&
             opened->middle[size_t(t)].allocate(model->middle) && opened->scratch[size_t(t)].allocate(model->scratch);
    if (!fits) return GOSSAMER_MEMORY;
    *session = opened.release();
    return GOSSAMER_OK;
  } catch (...) {  // bad_alloc, or a thread that cannot be started
    return GOSSAMER_MEMORY;
  }
}

const char *gossamer_session_isa(const gossamer_session *session) {
  if (!session) return "";
  return session->model->isa ? session->model->isa->name : "reference";
}

int gossamer_run(gossamer_session *session, const float *input, int64_t images, float *output) {
  if (!session || !input || !output || images < 0) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nullptr);
}

int gossamer_profile(gossamer_session *session, const float *input, int64_t images, float *output,
                     int64_t *nanoseconds) {
  if (!session || !input || !output || images < 0 || !nanoseconds) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nanoseconds);
}

int gossamer_winograd_tile(const gossamer_model *model, int32_t operation, int32_t tile[2]) {
  if (!model || !tile || operation < 0 || operation >= model->file.op_count) return GOSSAMER_ARGUMENT;
  tile[0] = tile[1] = 0;
  if (model->isa && !model->steps[size_t(operation)].dense.empty()) {
    const Dense &d = model->steps[size_t(operation)].dense[0];
    tile[0] = d.winograd_h, tile[1] = d.winograd_w;
  }
  return GOSSAMER_OK;
}

int gossamer_kernels(const gossamer_model *model, int32_t operation, char *names, size_t size) {
  if (!model || !names || operation < -1 || operation >= model->file.op_count) return GOSSAMER_ARGUMENT;
  try {
    std::string text;
    if (operation < 0 && !model->isa) text = "reference\n";
    else
      for (const std::string &name : operation < 0 ? kernel_names(*model->isa) : kernel_names(*model, operation))
        text += name + "\n";
    if (text.size() + 1 > size) return GOSSAMER_ARGUMENT;
    std::memcpy(names, text.c_str(), text.size() + 1);
    return GOSSAMER_OK;
  } catch (...) {  // bad_alloc
    return GOSSAMER_MEMORY;
  }
}

void gossamer_session_close(gossamer_session *session) { delete session; }
void gossamer_close(gossamer_model *model) { delete model; }

}  // extern "C"
