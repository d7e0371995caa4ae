// The planner: the ISA, the kernel of each operation, the offsets of maps in the arena, and which weights nothing reads any more.
#if defined(GOSSAMER_AMX)
#include <sys/syscall.h>
#endif
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "../include/gossamer.h"
#include "cpu.h"
#include "kernel.h"
#include "plan.h"

namespace gossamer {

Map shape(const gossamer_model &m, int32_t index) {
  const Value &v = m.file.values[index];
  const int64_t ld = m.ld[size_t(v.parent < 0 ? index : v.parent)];
  return Map{nullptr, v.h, v.w, v.c, v.type, ld, v.type == U8 ? v.scale : 1.0f, v.type == U8 ? v.zero : 0};
}

namespace {

// A root value's bytes in the arena, and the first and the last operation between which it must stay there.
struct Lifetime {
  size_t value;
  int64_t bytes;
  int32_t first, last;
};

// By falling size, each as low as the values that live at the same time allow: the smallest arena for most networks, but every
// value is compared with every other.
void place_by_size(gossamer_model &m, std::vector<Lifetime> lifetimes) {
  std::sort(lifetimes.begin(), lifetimes.end(), [](const Lifetime &a, const Lifetime &b) { return a.bytes > b.bytes; });
  for (size_t i = 0; i < lifetimes.size(); i++) {
    const Lifetime &v = lifetimes[i];
    std::vector<std::pair<int64_t, int64_t>> occupied;
    for (size_t j = 0; j < i; j++)
      if (const Lifetime &o = lifetimes[j]; o.first <= v.last && v.first <= o.last)
        occupied.emplace_back(m.offsets[o.value], m.offsets[o.value] + o.bytes);
    std::sort(occupied.begin(), occupied.end());
    int64_t at = 0;
    for (const auto &[first, last] : occupied) {
      if (at + v.bytes <= first) break;
      at = std::max(at, last);
    }
    m.offsets[v.value] = at;
    m.arena = std::max(m.arena, size_t(at + v.bytes));
  }
}

// In the order of the operations, each into the smallest gap that holds it: n log n steps.
void place_by_time(gossamer_model &m, std::vector<Lifetime> lifetimes) {
  const auto by_first = [](const Lifetime &a, const Lifetime &b) { return a.first < b.first; };
  std::stable_sort(lifetimes.begin(), lifetimes.end(), by_first);
  std::vector<size_t> ending(lifetimes.size());
  for (size_t i = 0; i < ending.size(); i++) ending[i] = i;
  const auto by_last = [&](size_t a, size_t b) { return lifetimes[a].last < lifetimes[b].last; };
  std::stable_sort(ending.begin(), ending.end(), by_last);
  std::map<int64_t, int64_t> gaps;                // from each gap's first byte to its end
  std::set<std::pair<int64_t, int64_t>> by_size;  // their sizes and first bytes
  const auto remove = [&](std::map<int64_t, int64_t>::iterator gap) {
    by_size.erase({gap->second - gap->first, gap->first});
    return gaps.erase(gap);
  };
  const auto insert = [&](int64_t first, int64_t end) {
    auto next = gaps.lower_bound(first);
    if (next != gaps.end() && next->first == end) end = next->second, next = remove(next);
    if (next != gaps.begin() && std::prev(next)->second == first)
      first = std::prev(next)->first, remove(std::prev(next));
    gaps[first] = end, by_size.insert({end - first, first});
  };
  size_t ended = 0;
  for (const Lifetime &v : lifetimes) {
    for (; ended < ending.size() && lifetimes[ending[ended]].last < v.first; ended++) {
      const Lifetime &o = lifetimes[ending[ended]];
      insert(m.offsets[o.value], m.offsets[o.value] + o.bytes);
    }
    const auto fit = by_size.lower_bound({v.bytes, 0});
    int64_t at = int64_t(m.arena), end = at;
    if (fit != by_size.end()) {
      const auto gap = gaps.find(fit->second);
      at = gap->first, end = gap->second;
      remove(gap);
    } else if (!gaps.empty() && std::prev(gaps.end())->second == end) {  // the last gap grows
      at = std::prev(gaps.end())->first;
      remove(std::prev(gaps.end()));
    }
    m.offsets[v.value] = at;
    if (at + v.bytes < end) insert(at + v.bytes, end);
    m.arena = std::max(m.arena, size_t(at + v.bytes));
  }
}

// Root values into one arena: a value's bytes are free again after the last operation that reads it.
void place_values(gossamer_model &m) {
  constexpr size_t FEW_VALUES = 2048;  // whose pairs are compared in a small part of a second
  constexpr int32_t NEVER = -2;
  const Model &f = m.file;
  const size_t count = size_t(f.value_count);
  std::vector<int32_t> born(count, NEVER), dies(count, NEVER);
  auto touch = [&](int32_t value, int32_t when) {
    const size_t r = size_t(f.values[value].parent < 0 ? value : f.values[value].parent);
    if (born[r] == NEVER) born[r] = when;
    dies[r] = std::max(dies[r], when);
  };
  for (int32_t input : f.input_values) touch(input, -1);
  for (int32_t i = 0; i < f.op_count; i++) {
    touch(f.ops[i].in, i);
    if (f.ops[i].other >= 0) touch(f.ops[i].other, i);
    touch(f.ops[i].out, i);
  }
  for (int32_t i = 0; i < f.piece_count; i++) touch(f.pieces[i].value, f.op_count);
  m.ld.assign(count, 0);
  m.offsets.assign(count, 0);
  std::vector<Lifetime> lifetimes;
  for (size_t v = 0; v < count; v++) {
    const Value &value = f.values[v];
    m.ld[v] = (value.c <= 4 ? value.c : round_up(value.c, 16)) * size_of(value.type);
    const int64_t bytes = round_up(int64_t(value.h) * value.w * m.ld[v] + SLACK, 64);
    if (value.parent < 0 && born[v] != NEVER) lifetimes.push_back({v, bytes, born[v], dies[v]});
  }
  if (lifetimes.size() <= FEW_VALUES) place_by_size(m, std::move(lifetimes));
  else place_by_time(m, std::move(lifetimes));
}

// The ranges of weights that an operation reads, as visit(offset, count) in units of 4 bytes.
template <class F>
void visit_weights(const Model &f, const Op &op, F visit) {
  const Value &in = f.values[op.in], &out = f.values[op.out];
  const auto layer = [&](int64_t weight, int32_t type, int64_t n, int64_t scale, int64_t bias, int64_t rows) {
    if (weight < 0) return;
    visit(weight, weight_units(type, n)), visit(bias, rows);
    if (type == U8) visit(scale, rows);
  };
  const int64_t taps = int64_t(op.kh) * op.kw, n = out.c;
  if (op.kind == CONV) layer(op.weight0, op.type0, n * (in.c / op.groups) * taps, op.scale0, op.bias0, n);
  if (op.kind == BLOCK) {
    layer(op.weight0, op.type0, int64_t(op.mid) * in.c, op.scale0, op.bias0, op.mid);
    layer(op.weight1, op.type1, op.mid * taps, op.scale1, op.bias1, op.mid);
    layer(op.weight2, op.type2, op.mid * n, op.scale2, op.bias2, n);
  }
  if (op.kind == AFFINE) visit(op.weight0, in.c), visit(op.bias0, in.c);
  if (op.kind == RESIZE) visit(op.weight0, 2 * int64_t(out.h)), visit(op.bias0, 2 * int64_t(out.w));
}

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

// Add first to end to disjoint ranges; the parts that were in none of them.
Ranges add_range(std::map<int64_t, int64_t> &ranges, int64_t first, int64_t end) {
  Ranges added;
  auto next = ranges.upper_bound(first);
  if (next != ranges.begin() && std::prev(next)->second >= first) --next;
  int64_t at = first, merged_first = first, merged_end = end;
  while (next != ranges.end() && next->first <= end) {
    if (next->first > at) added.emplace_back(at, next->first);
    at = std::max(at, next->second);
    merged_first = std::min(merged_first, next->first), merged_end = std::max(merged_end, next->second);
    next = ranges.erase(next);
  }
  if (at < end) added.emplace_back(at, end);
  ranges[merged_first] = merged_end;
  return added;
}

// Of each operation the weights that nothing reads once it is packed.
std::vector<Ranges> last_reads(const gossamer_model &m) {
  std::map<int64_t, int64_t> needed;
  std::vector<Ranges> reads(size_t(m.file.op_count));
  for (int32_t i = 0; i < m.file.op_count; i++)
    if (!kernel_of(m, m.file.ops[i])->packs)
      visit_weights(m.file, m.file.ops[i],
                    [&](int64_t first, int64_t count) { add_range(needed, first, first + count); });
  for (int32_t i = m.file.op_count; i-- > 0;)
    if (kernel_of(m, m.file.ops[i])->packs)
      visit_weights(m.file, m.file.ops[i], [&](int64_t first, int64_t count) {
        for (const auto &part : add_range(needed, first, first + count)) reads[size_t(i)].push_back(part);
      });
  return reads;
}

// Return the memory of the full pages of a range of weights, which are then zeros.
void release_weights(const gossamer_model &m, int64_t first, int64_t end) {
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  const uintptr_t from = (reinterpret_cast<uintptr_t>(m.file.weights + first) + page - 1) / page * page;
  const uintptr_t to = reinterpret_cast<uintptr_t>(m.file.weights + end) / page * page;
  if (from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_DONTNEED);
}

#if defined(GOSSAMER_AMX)
// Whether the system lets this process use AMX: it saves the tile registers of each thread.
bool may_use_amx() {
  constexpr int REQUEST = 0x1023, REGISTERS = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, REQUEST, REGISTERS) == 0;
}
#endif

int choose_isa(const Isa *&isa) {
  const Isa *isas[7];
  int count = 0;
#if defined(__x86_64__) && !defined(GOSSAMER_PORTABLE_ONLY)
#if defined(GOSSAMER_AMX)
  if (cpu().bf16 && cpu().amx && may_use_amx()) isas[count++] = &AMX;
#endif
  if (cpu().bf16) isas[count++] = &AVX512_BF16;
  if (cpu().vnni) isas[count++] = &AVX512_VNNI;
  if (cpu().avx512) isas[count++] = &AVX512;
  if (cpu().avx2) isas[count++] = &AVX2;
#elif defined(__aarch64__) && !defined(GOSSAMER_PORTABLE_ONLY)
  constexpr unsigned long DOTPROD = 1 << 20;  // of the kernel's HWCAP_ASIMDDP, which older headers lack
  if (getauxval(AT_HWCAP) & DOTPROD) isas[count++] = &NEON_DOTPROD;
  isas[count++] = &NEON;
#endif
  isas[count++] = &PORTABLE;
  const char *requested = std::getenv("GOSSAMER_ISA");
  for (int i = 0; i < count; i++)
    if (!requested || !*requested || !std::strcmp(requested, isas[i]->name)) {
      isa = isas[i];
      return GOSSAMER_OK;
    }
  isa = nullptr;
  return std::strcmp(requested, "reference") ? GOSSAMER_ISA : GOSSAMER_OK;
}

}  // namespace

int prepare(gossamer_model &m) {
  if (int code = choose_isa(m.isa)) return code;
  m.values.assign(m.file.values, m.file.values + m.file.value_count);
  for (Value &value : m.values)
    if (m.isa && value.type == BF16) value.type = m.isa->compute_type[BF16];
  m.file.values = m.values.data();
  m.quantised = std::any_of(m.values.begin(), m.values.end(), [](const Value &v) { return v.type == U8; });
  for (int32_t i = 0; i < m.file.op_count; i++) {  // what is rounded within an operation is not among the values
    const Op &op = m.file.ops[i];
    for (float scale :
         {op.sum_scale, op.sum_scale0, op.sum_scale1, op.gate_scale, op.gate_scale0, op.gate_scale1, op.expanded_scale})
      m.quantised |= scale > 0;
    m.quantised |= op.kind == BLOCK && op.weight2 >= 0 && op.type2 == U8;
  }
  place_values(m);
  if (!m.isa) return GOSSAMER_OK;
  m.steps.resize(size_t(m.file.op_count));
  const std::vector<Ranges> unused = last_reads(m);
  for (int32_t i = 0; i < m.file.op_count; i++) {
    const Op &op = m.file.ops[i];
    Step &step = m.steps[size_t(i)];
    step.kernel = kernel_of(m, op);
    if (step.kernel->plan && !step.kernel->plan(m, op, step)) return GOSSAMER_MEMORY;
    for (const auto &[first, end] : unused[size_t(i)]) release_weights(m, first, end);
    m.expanded = std::max(m.expanded, step.expanded);
    m.middle = std::max(m.middle, step.middle);
    m.scratch = std::max(m.scratch, step.scratch);
    m.shared = std::max(m.shared, step.shared);
  }
  return GOSSAMER_OK;
}

}  // namespace gossamer
