// The planner, the session and the C interface. Settings, weights and scratch are three structures: what was asked for,
// what all sessions of a model share, and what one session writes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../include/gossamer.h"
#include "kernels.h"
#include "model.h"
#include "pool.h"

using namespace gossamer;

namespace {

constexpr int64_t MIDDLE_BYTES = 768 << 10;    // of the depthwise rows of all chunks: they stay in the second cache
constexpr int64_t EXPANDED_BYTES = 128 << 10;  // of the expanded rows of one chunk
constexpr int64_t SLACK = 64;                  // floats behind a buffer, for whole registers

// 64-byte aligned floats, zeroed.
struct Floats {
  float *data = nullptr;
  size_t count = 0;
  Floats() = default;
  Floats(const Floats &) = delete;
  Floats &operator=(const Floats &) = delete;
  Floats(Floats &&other) noexcept : data(other.data), count(other.count) { other.data = nullptr; }
  ~Floats() { std::free(data); }
  bool make(size_t floats) {
    count = (floats + SLACK + 15) / 16 * 16;
    data = static_cast<float *>(std::aligned_alloc(64, count * 4));
    if (data) std::memset(data, 0, count * 4);
    return data != nullptr;
  }
};

// One group of one operation, ready but for the addresses of its maps.
struct Step {
  std::vector<Dense> dense;  // one a group
  Fused fused{};
  size_t expanded = 0, middle = 0, whole = 0;  // floats of scratch: a thread's two, and a shared one
};

}  // namespace

struct gossamer_model {
  Model file;
  const Level *level = nullptr;
  std::vector<Step> steps;
  std::vector<Floats> packed;
  Floats zeros;
  std::vector<int64_t> place, ld;  // of each root value: offset in the arena and floats a position
  size_t arena = 0, expanded = 0, middle = 0, whole = 0;
  ~gossamer_model() {
    if (file.data) munmap(const_cast<uint8_t *>(file.data), file.size);
  }
};

struct gossamer_session {
  const gossamer_model *model;
  Pool pool;
  Floats arena, whole;
  std::vector<Floats> expanded, middle;  // one a thread
  // of the image under way
  const float *input = nullptr;
  float *output = nullptr;
  const Op *op = nullptr;
  const Step *step = nullptr;
  int phase = 0;
  gossamer_session(const gossamer_model *m, int threads) : model(m), pool(threads) {}
};

namespace {

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

int pick_vectors(const Level &level, int32_t n) {
  static const double pace[5] = {0, 0.75, 0.95, 1.0, 0.97};  // of the tiles by their registers across
  int best = 1;
  double least = 1e30;
  for (int v = 1; v <= level.widest; v++) {
    const double cost = double(round_up(n, v * level.vector)) / pace[v];
    if (cost < least) least = cost, best = v;
  }
  return best;
}

// (n, k, taps) weights into panels of `wide` columns: for each panel, tap and k, the columns side by side.
float *pack(gossamer_model &m, const float *weight, int64_t n, int64_t k, int64_t taps, int64_t wide) {
  m.packed.emplace_back();
  const int64_t panels = round_up(n, wide) / wide;
  if (!m.packed.back().make(size_t(panels * wide * k * taps))) return nullptr;
  float *to = m.packed.back().data;
  for (int64_t p = 0; p < panels; p++)
    for (int64_t t = 0; t < taps; t++)
      for (int64_t x = 0; x < k; x++)
        for (int64_t j = 0; j < wide; j++) {
          const int64_t column = p * wide + j;
          *to++ = column < n ? weight[(column * k + x) * taps + t] : 0.0f;
        }
  return m.packed.back().data;
}

float *pad(gossamer_model &m, const float *bias, int64_t n, int64_t padded) {
  m.packed.emplace_back();
  if (!m.packed.back().make(size_t(padded))) return nullptr;
  std::memcpy(m.packed.back().data, bias, size_t(n) * 4);
  return m.packed.back().data;
}

Map shape(const gossamer_model &m, int32_t index) {
  const Value &v = m.file.values[index];
  return Map{nullptr, v.h, v.w, v.c, m.ld[size_t(v.parent < 0 ? index : v.parent)]};
}

bool dense_step(gossamer_model &m, const Op &op, Step &step) {
  const Map in = shape(m, op.in), out = shape(m, op.out);
  const int32_t k = in.c / op.groups, n = out.c / op.groups, taps = op.kh * op.kw;
  for (int32_t g = 0; g < op.groups; g++) {
    Dense d{};
    d.in = in, d.out = out;
    d.in.c = k, d.out.c = n;
    d.vectors = pick_vectors(*m.level, n);
    const int64_t wide = d.vectors * m.level->vector;
    d.weight = pack(m, m.file.weights + op.weight0 + int64_t(g) * n * k * taps, n, k, taps, wide);
    d.bias = pad(m, m.file.weights + op.bias0 + int64_t(g) * n, n, round_up(n, wide));
    d.zeros = m.zeros.data;
    d.kh = op.kh, d.kw = op.kw, d.sh = op.sh, d.sw = op.sw, d.top = op.top, d.left = op.left;
    d.dilation = op.dilation, d.act = op.act;
    if (op.other >= 0) d.other_ld = shape(m, op.other).ld;
    if (!d.weight || !d.bias) return false;
    step.dense.push_back(d);
  }
  return true;
}

bool fused_step(gossamer_model &m, const Op &op, Step &step) {
  Fused &f = step.fused;
  f.in = shape(m, op.in), f.out = shape(m, op.out);
  f.kh = op.kh, f.kw = op.kw, f.sh = op.sh, f.sw = op.sw, f.top = op.top, f.left = op.left;
  f.mid = op.mid, f.act = op.act1;
  f.expands = op.weight0 >= 0, f.projects = op.weight2 >= 0;
  const int32_t vector = m.level->vector;
  const float *w = m.file.weights;
  if (f.expands) {
    f.expand.vectors = pick_vectors(*m.level, op.mid);
    f.chunk = f.expand.vectors * vector;
    f.padded = int32_t(round_up(op.mid, f.chunk));
    f.expand.act = op.act0;
    f.expand.weight = pack(m, w + op.weight0, op.mid, f.in.c, 1, f.chunk);
    f.expand.bias = pad(m, w + op.bias0, op.mid, f.padded);
    if (!f.expand.weight || !f.expand.bias) return false;
  } else {
    f.chunk = int32_t(std::min<int64_t>(round_up(op.mid, vector), 4 * vector));
    f.padded = int32_t(round_up(op.mid, f.chunk));
  }
  const int32_t taps = op.kh * op.kw;
  m.packed.emplace_back();
  if (!m.packed.back().make(size_t(f.padded) * taps)) return false;
  float *to = m.packed.back().data;
  for (int32_t t = 0; t < taps; t++)
    for (int32_t c = 0; c < op.mid; c++) to[int64_t(t) * f.padded + c] = w[op.weight1 + int64_t(c) * taps + t];
  f.weight = to;
  f.bias = pad(m, w + op.bias1, op.mid, f.padded);
  if (!f.bias) return false;
  if (f.projects) {
    Dense &d = f.project;
    d.vectors = pick_vectors(*m.level, f.out.c);
    const int64_t wide = d.vectors * vector;
    d.weight = pack(m, w + op.weight2, f.out.c, op.mid, 1, wide);
    d.bias = pad(m, w + op.bias2, f.out.c, round_up(f.out.c, wide));
    d.zeros = m.zeros.data;
    d.kh = d.kw = d.sh = d.sw = d.dilation = 1;
    d.act = op.act;
    if (op.other >= 0) d.other_ld = shape(m, op.other).ld;
    if (!d.weight || !d.bias) return false;
  }
  // as many rows at once as the caches hold
  const int64_t row_bytes = int64_t(f.out.w) * f.padded * 4;
  f.rows = int32_t(std::clamp<int64_t>(MIDDLE_BYTES / row_bytes, std::min(4, f.out.h), f.out.h));
  const int64_t held = std::max<int64_t>(int64_t(f.out.w - 1) * f.sw + f.kw, f.in.w + f.left);
  const int64_t pitch = held * f.chunk;
  f.inner = 1;
  while (f.inner < f.out.h && ((f.inner + 1) * f.sh + f.kh) * pitch * 4 <= EXPANDED_BYTES) f.inner++;
  step.expanded = size_t(((f.inner - 1) * f.sh + f.kh) * pitch) + SLACK;
  step.middle = size_t(f.rows) * size_t(f.out.w) * size_t(f.padded) + SLACK;
  step.whole = f.projects ? size_t(f.out.h) * size_t(f.out.w) * size_t(f.padded) + SLACK : 0;
  return true;
}

// Root values into one arena: a value's place is free again behind the last operation that reads it.
bool place_values(gossamer_model &m) {
  const Model &f = m.file;
  const size_t count = size_t(f.value_count);
  auto root = [&](int32_t v) { return f.values[v].parent < 0 ? v : f.values[v].parent; };
  std::vector<int32_t> born(count, -2), dies(count, -2);
  auto touch = [&](int32_t value, int32_t when) {
    const size_t r = size_t(root(value));
    if (born[r] == -2) born[r] = when;
    dies[r] = std::max(dies[r], when);
  };
  touch(f.input, -1);
  for (int32_t i = 0; i < f.op_count; i++) {
    touch(f.ops[i].in, i);
    if (f.ops[i].other >= 0) touch(f.ops[i].other, i);
    touch(f.ops[i].out, i);
  }
  touch(f.output, f.op_count);
  m.ld.assign(count, 0);
  m.place.assign(count, 0);
  std::vector<size_t> order, placed;
  auto need = [&](size_t v) { return round_up(int64_t(f.values[v].h) * f.values[v].w * m.ld[v] + SLACK, 16); };
  for (size_t v = 0; v < count; v++) {
    m.ld[v] = f.values[v].c <= 4 ? 4 : round_up(f.values[v].c, 16);
    if (f.values[v].parent < 0 && born[v] != -2) order.push_back(v);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return need(a) > need(b); });
  for (size_t v : order) {
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t o : placed)
      if (born[o] <= dies[v] && born[v] <= dies[o]) taken.emplace_back(m.place[o], m.place[o] + need(o));
    std::sort(taken.begin(), taken.end());
    int64_t at = 0;
    for (auto &[first, last] : taken) {
      if (at + need(v) <= first) break;
      at = std::max(at, last);
    }
    m.place[v] = at;
    m.arena = std::max(m.arena, size_t(at + need(v)));
    placed.push_back(v);
  }
  return true;
}

int choose_level(const Level *&level) {
  const char *asked = std::getenv("GOSSAMER_ISA");
  bool avx2 = false, avx512 = false;
#if defined(__x86_64__) && !defined(GOSSAMER_PORTABLE_ONLY)
  __builtin_cpu_init();
  avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (!asked || !*asked) {
    level = avx512 ? &AVX512 : avx2 ? &AVX2 : &PORTABLE;
    return GOSSAMER_OK;
  }
  if (!std::strcmp(asked, AVX512.name) && avx512) level = &AVX512;
  else if (!std::strcmp(asked, AVX2.name) && avx2) level = &AVX2;
  else
#endif
      if (!asked || !*asked || !std::strcmp(asked, PORTABLE.name))
    level = &PORTABLE;
  else
    return GOSSAMER_ISA;
  return GOSSAMER_OK;
}

int prepare(gossamer_model &m) {
  if (int code = choose_level(m.level)) return code;
  int32_t widest = 1;
  for (int32_t i = 0; i < m.file.value_count; i++) widest = std::max(widest, m.file.values[i].c);
  if (!m.zeros.make(size_t(widest))) return GOSSAMER_MEMORY;
  place_values(m);
  m.steps.resize(size_t(m.file.op_count));
  for (int32_t i = 0; i < m.file.op_count; i++) {
    const Op &op = m.file.ops[i];
    Step &step = m.steps[size_t(i)];
    if (op.kind == CONV && !dense_step(m, op, step)) return GOSSAMER_MEMORY;
    if (op.kind == BLOCK && !fused_step(m, op, step)) return GOSSAMER_MEMORY;
    m.expanded = std::max(m.expanded, step.expanded);
    m.middle = std::max(m.middle, step.middle);
    m.whole = std::max(m.whole, step.whole);
  }
  return GOSSAMER_OK;
}

Map map_of(const gossamer_session &s, int32_t index) {
  const Value &v = s.model->file.values[index];
  const size_t root = size_t(v.parent < 0 ? index : v.parent);
  return Map{s.arena.data + s.model->place[root] + v.first, v.h, v.w, v.c, s.model->ld[root]};
}

// The share of `count` things that thread t does.
std::pair<int64_t, int64_t> share(int64_t count, int t, int threads) {
  return {count * t / threads, count * (t + 1) / threads};
}

int32_t panels(const Dense &d, int32_t vector) { return (d.out.c + d.vectors * vector - 1) / (d.vectors * vector); }

void run_dense(const gossamer_session &s, Dense d, int t) {
  const int threads = s.pool.threads();
  const int64_t positions = int64_t(d.out.h) * d.out.w;
  const int32_t all = panels(d, s.model->level->vector);
  if (positions >= 32 * threads) {
    const auto [first, last] = share(positions, t, threads);
    s.model->level->dense(d, first, last, 0, all);
  } else {
    const auto [first, last] = share(all, t, threads);
    s.model->level->dense(d, 0, positions, int32_t(first), int32_t(last));
  }
}

bool by_rows(const gossamer_session &s, const Fused &f) {
  return !f.projects || s.pool.threads() == 1 || f.out.h >= 7 * s.pool.threads();
}

void work(void *context, int t) {
  gossamer_session &s = *static_cast<gossamer_session *>(context);
  const Op &op = *s.op;
  const Level &level = *s.model->level;
  const int threads = s.pool.threads();
  const Map in = map_of(s, op.in), out = map_of(s, op.out);
  Map other{};
  if (op.other >= 0) other = map_of(s, op.other);
  switch (op.kind) {
    case CONV:
      for (size_t g = 0; g < s.step->dense.size(); g++) {
        Dense d = s.step->dense[g];
        d.in.data = in.data + g * size_t(d.in.c);
        d.out.data = out.data + g * size_t(d.out.c);
        if (op.other >= 0) d.other = other.data + g * size_t(d.out.c);
        run_dense(s, d, t);
      }
      break;
    case BLOCK: {
      Fused f = s.step->fused;
      f.in.data = in.data, f.out.data = out.data;
      if (f.projects && op.other >= 0) f.project.other = other.data;
      float *expanded = s.expanded[size_t(t)].data;
      if (by_rows(s, f)) {
        const auto [first, last] = share(f.out.h, t, threads);
        level.fused_rows(f, int32_t(first), int32_t(last), expanded, s.middle[size_t(t)].data);
        break;
      }
      f.middle = Map{s.whole.data, f.out.h, f.out.w, f.mid, f.padded};
      if (s.phase == 0) {
        const auto [first, last] = share((f.mid + f.chunk - 1) / f.chunk, t, threads);
        level.fused_chunks(f, int32_t(first), int32_t(last), expanded);
      } else {
        f.project.in = f.middle, f.project.out = f.out;
        run_dense(s, f.project, t);
      }
      break;
    }
    case MAX_POOL:
    case AVERAGE_POOL: {
      const auto [first, last] = share(out.h, t, threads);
      level.pool(in, out, op, int32_t(first), int32_t(last));
      break;
    }
    case GLOBAL_AVERAGE:
      if (t == 0) level.average(in, out);
      break;
    default: {
      const auto [first, last] = share(int64_t(out.h) * out.w, t, threads);
      level.pointwise(in, other.data, other.ld, out, op, s.model->file.weights, first, last);
    }
  }
}

void take_input(void *context, int t) {
  gossamer_session &s = *static_cast<gossamer_session *>(context);
  const Map to = map_of(s, s.model->file.input);
  const int64_t plane = int64_t(to.h) * to.w;
  const auto [first, last] = share(plane, t, s.pool.threads());
  for (int32_t c = 0; c < to.c; c++) {
    const float *from = s.input + c * plane;
    for (int64_t p = first; p < last; p++) to.data[p * to.ld + c] = from[p];
  }
}

void give_output(const gossamer_session &s) {
  const Map from = map_of(s, s.model->file.output);
  const int64_t plane = int64_t(from.h) * from.w;
  for (int64_t p = 0; p < plane; p++)
    for (int32_t c = 0; c < from.c; c++) s.output[c * plane + p] = from.data[p * from.ld + c];
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
      "N10: weights lie outside their table",
      "GOSSAMER_ISA asks for an instruction set that is none of portable, avx2, avx512, or that this machine lacks",
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
    if (int code = check(made->file)) return code;
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
  const Value &in = model->file.values[model->file.input], &out = model->file.values[model->file.output];
  input[0] = in.h, input[1] = in.w, input[2] = in.c;
  *outputs = int64_t(out.h) * out.w * out.c;
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
    bool fits = made->arena.make(model->arena) && made->whole.make(threads > 1 ? model->whole : 0);
    for (int t = 0; t < threads; t++)
      fits = fits && made->expanded[size_t(t)].make(model->expanded) && made->middle[size_t(t)].make(model->middle);
    if (!fits) return GOSSAMER_MEMORY;
    *session = made.release();
    return GOSSAMER_OK;
  } catch (...) {  // bad_alloc, or a thread that cannot be started
    return GOSSAMER_MEMORY;
  }
}

const char *gossamer_session_isa(const gossamer_session *session) { return session ? session->model->level->name : ""; }

int gossamer_run(gossamer_session *session, const float *input, int64_t images, float *output) {
  if (!session || !input || !output || images < 0) return GOSSAMER_ARGUMENT;
  gossamer_session &s = *session;
  const Model &f = s.model->file;
  const Value &in = f.values[f.input], &out = f.values[f.output];
  for (int64_t i = 0; i < images; i++) {
    s.input = input + i * in.h * in.w * in.c;
    s.output = output + i * out.h * out.w * out.c;
    s.pool.run(take_input, &s);
    for (int32_t o = 0; o < f.op_count; o++) {
      s.op = &f.ops[o];
      s.step = &s.model->steps[size_t(o)];
      const int phases = s.op->kind == BLOCK && !by_rows(s, s.step->fused) ? 2 : 1;
      for (s.phase = 0; s.phase < phases; s.phase++) s.pool.run(work, &s);
    }
    give_output(s);
  }
  return GOSSAMER_OK;
}

void gossamer_session_close(gossamer_session *session) { delete session; }
void gossamer_close(gossamer_model *model) { delete model; }

}  // extern "C"
