// The session and the C interface. Settings, weights and scratch are three structures: what was asked for, what all sessions
// of a model share, and what one session writes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <vector>

#include "../include/gossamer.h"
#include "kernels.h"
#include "model.h"
#include "plan.h"
#include "pool.h"

using namespace gossamer;

namespace {

constexpr size_t OWN_BYTES = 2 << 20;          // of a thread's own maps, so that they stay in its second cache
constexpr int64_t MANY_NUMBERS = 1 << 14;      // of all outputs: fewer are given by one thread
constexpr int64_t MANY_IMAGES = 1 << 20;       // of a thread, of which it takes one at a time
constexpr int64_t CONNECTED_AHEAD = 128 << 10;  // of a fully connected layer's weights: fetched before it begins

}  // namespace

struct gossamer_session {
  const gossamer_model *model;
  Pool pool;
  Bytes whole;
  std::vector<Bytes> arenas;            // one, or one a thread where each may take an image of its own
  std::vector<Bytes> expanded, middle, wide;  // one a thread
  // of the images under way: many where each thread takes its own, else one
  const float *input = nullptr;
  float *output = nullptr;
  int32_t op = 0;
  int phase = 0, each = 1;  // each: shares of a thread
  gossamer_session(const gossamer_model *m, int threads) : model(m), pool(threads) {}
};

namespace {

// A part of an image's operation: part `part` of `parts`, done by `thread` of `threads` with its scratch, on the maps of `arena`.
// How an operation is parted depends on the threads, not on the parts, so that neither changes what is computed.
struct Turn {
  const gossamer_session &s;
  uint8_t *arena;
  const float *input;
  float *output;
  int thread, threads, part, parts;
};

Map map_of(const Turn &turn, int32_t index) {
  const gossamer_model &m = *turn.s.model;
  const Value &v = m.file.values[index];
  const size_t root = size_t(v.parent < 0 ? index : v.parent);
  Map map = shape(m, index);
  map.data = turn.arena + m.place[root] + int64_t(v.first) * size_of(v.type);
  return map;
}

// The share of `count` things that part `part` of `parts` is.
std::pair<int64_t, int64_t> share(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

int32_t panels(const Dense &d, const Map &out, int32_t vector) { return (out.c + d.vectors * vector - 1) / (d.vectors * vector); }

// What a layer's threads share where they do not share its panels, and whether it is enough: squares of minimal filtering, or
// positions.
int64_t positions_of(const Dense &d, const Map &out) { return d.points_y ? squares(d, out) : int64_t(out.h) * out.w; }
bool by_positions(const Turn &turn, const Dense &d, const Map &out) { return positions_of(d, out) >= 32 * turn.threads; }

void run_dense(const Turn &turn, const Dense &d) {
  const Level &level = *turn.s.model->level;
  uint8_t *const wide = turn.s.wide[size_t(turn.thread)].data;
  const int64_t positions = positions_of(d, d.out);
  const int32_t all = panels(d, d.out, level.vector);
  if (by_positions(turn, d, d.out)) {
    const auto [first, last] = share(positions, turn.part, turn.parts);
    level.kernels->dense(d, first, last, 0, all, wide);
  } else {
    const auto [first, last] = share(all, turn.part, turn.parts);
    if (first < last) level.kernels->dense(d, 0, positions, int32_t(first), int32_t(last), wide);
  }
}

Next panel(const Dense &d, int64_t index) {
  return {d.weight + index * d.panel, d.panel};
}

// The weights with which the turn's part of a layer begins.
Next begin(const Turn &turn, const Dense &d, const Map &out) {
  const int32_t vector = turn.s.model->level->vector;
  return panel(d, by_positions(turn, d, out) ? 0 : share(panels(d, out, vector), turn.part, turn.parts).first);
}

// Whether a block's threads share its rows: those of small maps expand too many twice, and share the channels between the layers.
bool by_rows(const Fused &f, int threads) {
  return threads == 1 || (!f.expands && !f.projects) || f.out.h >= (f.projects ? 7 : 14) * threads;
}

int phases(const gossamer_model &m, int32_t index, int threads) {
  if (!m.level || m.file.ops[index].kind != BLOCK) return 1;
  const Fused &f = m.steps[size_t(index)].fused;
  return f.projects && !by_rows(f, threads) ? 2 : 1;
}

int32_t chunks(const Fused &f) { return (f.mid + f.chunk - 1) / f.chunk; }

// The weights with which the turn's part of the operations from `index` on begins, of the first one that has some.
Next begin(const Turn &turn, int32_t index) {
  const gossamer_model &m = *turn.s.model;
  for (; index < m.file.op_count; index++) {
    const Step &step = m.steps[size_t(index)];
    const Fused &f = step.fused;
    if (const Connected &d = step.connected; d.weight) {
      const int64_t row = int64_t(d.in.h) * d.in.w * d.in.c * size_of(d.type);
      const auto [first, last] = share(d.out.c, turn.part, turn.parts);
      return {d.weight + first * row, std::min(CONNECTED_AHEAD, (last - first) * row)};
    }
    if (!step.dense.empty()) return begin(turn, step.dense[0], step.dense[0].out);
    if (f.weight && f.expands)
      return panel(f.expand, by_rows(f, turn.threads) ? 0 : share(chunks(f), turn.part, turn.parts).first);
    if (f.weight && f.projects) return begin(turn, f.project, f.out);
  }
  return {};
}

// Into how many shares a thread's part of an operation comes: some, where it is long and its shares do little twice, so that
// threads whose cores are not equally fast end together.
int shares(const gossamer_model &m, int32_t index, int phase, int threads) {
  constexpr int64_t MOST = 4, WORTH = 1 << 19;    // multiply-adds of a share
  constexpr int64_t ROWS = 12, POSITIONS = 48;    // of a share: of a block, which expands some rows twice; of a layer
  if (!m.level) return 1;
  const Op &op = m.file.ops[index];
  const Step &step = m.steps[size_t(index)];
  const Map in = shape(m, op.in), out = shape(m, op.out);
  const auto of = [&](int64_t work, int64_t most) { return int(std::clamp<int64_t>(std::min(work / threads / WORTH, most / threads), 1, MOST)); };
  const auto dense = [&](const Dense &d, int64_t work) {
    const bool positions = positions_of(d, out) >= 32 * threads;
    const int64_t most = !positions ? panels(d, out, m.level->vector) : d.points_y ? MOST * threads : positions_of(d, out) / POSITIONS;
    return of(work, d.points_y && !positions ? std::min<int64_t>(most, 2 * threads) : most);  // each share makes all squares
  };
  const int64_t outputs = int64_t(out.h) * out.w, inputs = int64_t(in.h) * in.w;
  if (op.kind == BLOCK && step.fused.weight) {
    const Fused &f = step.fused;
    const int64_t expansion = inputs * f.in.c * f.mid + outputs * f.mid * f.kh * f.kw, projection = outputs * f.mid * out.c;
    if (by_rows(f, threads)) return of(expansion + projection, out.h / ROWS);
    return phase == 0 ? of(expansion, chunks(f)) : dense(f.project, projection);
  }
  if (step.connected.weight) return of(inputs * in.c * out.c, out.c / m.level->vector);
  if (!step.dense.empty()) return dense(step.dense[0], outputs * op.kh * op.kw * (in.c / op.groups) * out.c);
  return 1;
}

// Operation `index` on the turn's part of an image.
void operate(const Turn &turn, int32_t index, int phase) {
  const gossamer_session &s = turn.s;
  const Op &op = s.model->file.ops[index];
  const int part = turn.part, parts = turn.parts;
  const Map in = map_of(turn, op.in), out = map_of(turn, op.out);
  Map other{};
  if (op.other >= 0) other = map_of(turn, op.other);
  if (!s.model->level) {
    if (part == 0) reference(op, in, other, out, s.model->file.weights);
    return;
  }
  const Level &level = *s.model->level;
  const Step &step = s.model->steps[size_t(index)];
  switch (op.kind) {
    case CONV:
      if (step.connected.weight) {
        Connected d = step.connected;
        d.in.data = in.data, d.out.data = out.data, d.other.data = other.data;
        const auto [first, last] = share(out.c, part, parts);
        level.kernels->connected(d, int32_t(first), int32_t(last), s.expanded[size_t(turn.thread)].floats());
        break;
      }
      for (size_t g = 0; g < step.dense.size(); g++) {
        Dense d = step.dense[g];
        if (step.dense.size() > 1 && !by_positions(turn, d, out)) d.room = 0;  // another thread's panels lie beside
        d.in.data = in.data + g * size_t(d.in.c) * size_t(size_of(in.type));
        d.out.data = out.data + g * size_t(d.out.c) * size_t(size_of(out.type));
        if (op.other >= 0) d.other.data = other.data + g * size_t(d.out.c) * size_t(size_of(other.type));
        d.next = g + 1 < step.dense.size() ? begin(turn, step.dense[g + 1], out) : begin(turn, index + 1);
        run_dense(turn, d);
      }
      break;
    case BLOCK: {
      Fused f = step.fused;
      f.in.data = in.data, f.out.data = out.data;
      if (f.projects && op.other >= 0) f.project.other.data = other.data;
      float *expanded = s.expanded[size_t(turn.thread)].floats();
      f.project.next = begin(turn, index + 1);
      f.expand.next = f.projects ? begin(turn, f.project, f.out) : f.project.next;
      if (by_rows(f, turn.threads)) {
        const auto [first, last] = share(f.out.h, part, parts);
        level.kernels->fused_rows(f, int32_t(first), int32_t(last), expanded, s.middle[size_t(turn.thread)].data,
                         s.wide[size_t(turn.thread)].data);
        break;
      }
      if (f.projects) f.middle.data = s.whole.data;
      else f.middle = f.out;
      if (phase == 0) {
        const auto [first, last] = share(chunks(f), part, parts);
        level.kernels->fused_chunks(f, int32_t(first), int32_t(last), expanded, s.wide[size_t(turn.thread)].data);
      } else {
        f.project.in = f.middle, f.project.out = f.out;
        run_dense(turn, f.project);
      }
      break;
    }
    case MAX_POOL:
    case AVERAGE_POOL: {
      const auto [first, last] = share(out.h, part, parts);
      level.kernels->pool(in, out, op, int32_t(first), int32_t(last));
      break;
    }
    case GLOBAL_AVERAGE:
      if (part == 0) level.kernels->average(in, out);
      break;
    default: {
      const auto [first, last] = share(int64_t(out.h) * out.w, part, parts);
      level.kernels->pointwise(in, other, out, op, s.model->file.weights, first, last);
    }
  }
}

void take_input(const Turn &turn) {
  const Map to = map_of(turn, turn.s.model->file.input);
  const int64_t plane = int64_t(to.h) * to.w;
  const auto [first, last] = share(plane, turn.part, turn.parts);
  if (turn.s.model->level) return turn.s.model->level->kernels->take(turn.input, to, first, last);
  for (int32_t c = 0; c < to.c; c++) {
    const float *from = turn.input + c * plane;
    if (to.type == F32) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<float *>(to.data + p * to.ld)[c] = from[p];
    } else if (to.type == BF16) {
      for (int64_t p = first; p < last; p++) reinterpret_cast<uint16_t *>(to.data + p * to.ld)[c] = to_bf16(from[p]);
    } else {
      const float inverse = 1 / to.scale, zero = float(to.zero);
      for (int64_t p = first; p < last; p++) {  // a number that is none becomes 0
        const float q = from[p] * inverse + zero;
        to.data[p * to.ld + c] = uint8_t(int32_t((q > 0 ? std::min(q, 255.0f) : 0.0f) + 12582912.0f - 12582912.0f));
      }
    }
  }
}

float number(const Map &m, int64_t position, int32_t c) {
  const uint8_t *at = m.data + position * m.ld;
  if (m.type == F32) return reinterpret_cast<const float *>(at)[c];
  if (m.type == U8) return float(at[c] - m.zero) * m.scale;
  return from_bf16(reinterpret_cast<const uint16_t *>(at)[c]);
}

// The pieces of all outputs one behind the other, each channels first or channels last.
void give_outputs(const Turn &turn) {
  const Model &f = turn.s.model->file;
  float *to = turn.output;
  for (int32_t i = 0; i < f.piece_count; i++) {
    const Map from = map_of(turn, f.pieces[i].value);
    const int64_t plane = int64_t(from.h) * from.w;
    const bool last_axis = f.pieces[i].channels_last;
    const int64_t position = last_axis ? from.c : 1, channel = last_axis ? 1 : plane;  // numbers from one to the next
    const auto [first, last] = share(plane, turn.part, turn.parts);
    for (int64_t p = first; p < last; p++)
      for (int32_t c = 0; c < from.c; c++) to[p * position + c * channel] = number(from, p, c);
    to += plane * from.c;
  }
}

Turn turn_of(const void *context, int part, int thread) {
  const gossamer_session &s = *static_cast<const gossamer_session *>(context);
  return Turn{s, s.arenas[0].data, s.input, s.output, thread, s.pool.threads(), part, s.pool.threads() * s.each};
}

void take_part(void *context, int part, int thread) { take_input(turn_of(context, part, thread)); }

void operate_part(void *context, int part, int thread) {
  const Turn turn = turn_of(context, part, thread);
  operate(turn, turn.s.op, turn.s.phase);
}

void give_part(void *context, int part, int thread) { give_outputs(turn_of(context, part, thread)); }

// One image, each of its operations shared by all threads; the nanoseconds that each takes are added, or `spent` is null.
void run_image(gossamer_session &s, int64_t *spent) {
  using Clock = std::chrono::steady_clock;
  const int threads = s.pool.threads();
  s.each = 1;
  s.pool.run(take_part, &s, s.each);
  for (s.op = 0; s.op < s.model->file.op_count; s.op++) {
    const auto start = spent ? Clock::now() : Clock::time_point();
    const int count = phases(*s.model, s.op, threads);
    for (s.phase = 0; s.phase < count; s.phase++) {
      s.each = threads > 1 ? shares(*s.model, s.op, s.phase, threads) : 1;
      s.pool.run(operate_part, &s, s.each);
    }
    if (spent) spent[s.op] += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
  }
  s.each = 1;
  if (s.model->file.numbers >= MANY_NUMBERS) s.pool.run(give_part, &s, s.each);
  else give_outputs(Turn{s, s.arenas[0].data, s.input, s.output, 0, 1, 0, 1});
}

// One of the images, by one thread alone: none waits for another.
void run_alone(void *context, int i, int thread) {
  const gossamer_session &s = *static_cast<gossamer_session *>(context);
  const Model &f = s.model->file;
  const Value &in = f.values[f.input];
  const Turn turn{s, s.arenas[size_t(thread)].data, s.input + int64_t(i) * in.h * in.w * in.c, s.output + i * f.numbers, thread, 1, 0, 1};
  take_input(turn);
  for (int32_t o = 0; o < f.op_count; o++) operate(turn, o, 0);
  give_outputs(turn);
}

// As many images as all threads get the same number of, where each thread has maps of its own; the others one by one.
int run_images(gossamer_session &s, const float *input, int64_t images, float *output, int64_t *spent) {
  const Model &f = s.model->file;
  const Value &in = f.values[f.input];
  const int64_t threads = s.pool.threads(), alone = s.arenas.size() > 1 && !spent ? images / threads * threads : 0;
  s.input = input, s.output = output;
  for (int64_t i = 0, some; i < alone; i += some) {
    some = std::min<int64_t>(alone - i, threads * MANY_IMAGES);
    s.input = input + i * in.h * in.w * in.c, s.output = output + i * f.numbers;
    s.pool.run(run_alone, &s, int(some / threads));
  }
  for (int64_t i = alone; i < images; i++) {
    s.input = input + i * in.h * in.w * in.c;
    s.output = output + i * f.numbers;
    run_image(s, spent);
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
      "the file cannot be opened or mapped",
      "N1: not a compiled network",
      "N2: of a version that this engine does not know",
      "N3: shorter or longer than it says",
      "N4: damaged: the checksum is another",
      "N5: a table lies outside the file, or is not aligned",
      "N6: a value has sides out of range, or is a slice outside its parent",
      "N7: an operation has a kind, an activation or attributes out of range",
      "N8: an operation reads what no earlier one wrote, or writes twice",
      "N9: shapes do not follow from each other",
      "N10: weights lie outside their table, or a resize reads outside its map",
      "N11: an output has no name or no shape, or its pieces do not fill it",
      "N12: weights are of a type that their map cannot meet, or int8 ones have a scale that is none",
      "GOSSAMER_ISA asks for an instruction set that is none of reference, portable, avx2, avx512, avx512_vnni, avx512_bf16, amx, neon and neon_dotprod, or that this machine lacks",
  };
  const int count = int(sizeof texts / sizeof *texts);
  return code >= 0 && code < count ? texts[code] : "unknown error";
}

int gossamer_open(const char *path, gossamer_model **model) {
  if (!path || !model) return GOSSAMER_ARGUMENT;
  *model = nullptr;
  try {
    auto made = std::make_unique<gossamer_model>();
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return GOSSAMER_FILE;
    struct stat about {};
    const bool known = fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0;
    void *data = known ? mmap(nullptr, size_t(about.st_size), PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (data == MAP_FAILED) return GOSSAMER_FILE;
    made->file.data = static_cast<const uint8_t *>(data);
    made->file.size = size_t(about.st_size);
    if (int code = check(made->file, let_go)) return code;
    if (int code = prepare(*made)) return code;
    *model = made.release();
    return GOSSAMER_OK;
  } catch (const std::bad_alloc &) {
    return GOSSAMER_MEMORY;
  } catch (...) {
    return GOSSAMER_ARGUMENT;
  }
}

int gossamer_describe(const gossamer_model *model, int32_t input[3], int64_t *outputs) {
  if (!model || !input || !outputs) return GOSSAMER_ARGUMENT;
  const Value &in = model->file.values[model->file.input];
  input[0] = in.h, input[1] = in.w, input[2] = in.c;
  *outputs = model->file.numbers;
  return GOSSAMER_OK;
}

int gossamer_output_count(const gossamer_model *model, int32_t *count) {
  if (!model || !count) return GOSSAMER_ARGUMENT;
  *count = model->file.output_count;
  return GOSSAMER_OK;
}

int gossamer_output(const gossamer_model *model, int32_t index, const char **name, int32_t *rank, int32_t sides[4],
                    int64_t *first) {
  if (!model || !name || !rank || !sides || !first || index < 0 || index >= model->file.output_count) return GOSSAMER_ARGUMENT;
  const Output *outputs = model->file.outputs;
  *first = 0;
  for (int32_t i = 0; i < index; i++) {
    int64_t held = 1;
    for (int32_t axis = 0; axis < outputs[i].rank; axis++) held *= outputs[i].sides[axis];
    *first += held;
  }
  *name = outputs[index].name;
  *rank = outputs[index].rank;
  for (int32_t axis = 0; axis < 4; axis++) sides[axis] = axis < *rank ? outputs[index].sides[axis] : 1;
  return GOSSAMER_OK;
}

int gossamer_card(const gossamer_model *model, const char **text, size_t *size) {
  if (!model || !text || !size) return GOSSAMER_ARGUMENT;
  *text = model->file.card;
  *size = model->file.card_size;
  return GOSSAMER_OK;
}

int gossamer_session_open(const gossamer_model *model, int threads, gossamer_session **session) {
  if (!model || !session || threads < 1 || threads > 256) return GOSSAMER_ARGUMENT;
  *session = nullptr;
  try {
    auto made = std::make_unique<gossamer_session>(model, threads);
    made->expanded.resize(size_t(threads));
    made->middle.resize(size_t(threads));
    made->wide.resize(size_t(threads));
    made->arenas.resize(model->arena <= OWN_BYTES ? size_t(threads) : 1);
    bool fits = made->whole.make(threads > 1 ? model->whole : 0);
    for (Bytes &arena : made->arenas) fits = fits && arena.make(model->arena);
    for (int t = 0; t < threads; t++)
      fits = fits && made->expanded[size_t(t)].make(model->expanded) && made->middle[size_t(t)].make(model->middle) &&
             made->wide[size_t(t)].make(model->wide);
    if (!fits) return GOSSAMER_MEMORY;
    *session = made.release();
    return GOSSAMER_OK;
  } catch (...) {  // bad_alloc, or a thread that cannot be started
    return GOSSAMER_MEMORY;
  }
}

const char *gossamer_session_isa(const gossamer_session *session) { 
  if (!session) return "";
  return session->model->level ? session->model->level->name : "reference";
 }

int gossamer_run(gossamer_session *session, const float *input, int64_t images, float *output) {
  if (!session || !input || !output || images < 0) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nullptr);
}

int gossamer_profile(gossamer_session *session, const float *input, int64_t images, float *output, int64_t *nanoseconds) {
  if (!session || !input || !output || images < 0 || !nanoseconds) return GOSSAMER_ARGUMENT;
  return run_images(*session, input, images, output, nanoseconds);
}

int gossamer_points(const gossamer_model *model, int32_t operation, int32_t points[2]) {
  if (!model || !points || operation < 0 || operation >= model->file.op_count) return GOSSAMER_ARGUMENT;
  points[0] = points[1] = 0;
  if (model->level && !model->steps[size_t(operation)].dense.empty()) {
    const Dense &d = model->steps[size_t(operation)].dense[0];
    points[0] = d.points_y, points[1] = d.points_x;
  }
  return GOSSAMER_OK;
}

void gossamer_session_close(gossamer_session *session) { delete session; }
void gossamer_close(gossamer_model *model) { delete model; }

}  // extern "C"
