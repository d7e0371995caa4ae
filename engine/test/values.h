// How many values all inputs of an image have together, or all outputs.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../include/gossamer.h"

// count_of, describe: gossamer_input_count and gossamer_input, or those of outputs. Aborts where they do not follow one another,
// or have no name: only one input may have none.
template <class Count, class Describe>
int64_t values(const gossamer_model *model, Count count_of, Describe describe) {
  int32_t count = 0, rank = 0, sides[4];
  int64_t first = 0, total = 0;
  const char *name = nullptr;
  if (count_of(model, &count)) std::abort();
  for (int32_t i = 0; i < count; i++) {
    if (describe(model, i, &name, &rank, sides, &first) || rank < 1 || rank > 4 || first != total) std::abort();
    if (count > 1 && !std::strlen(name)) std::abort();
    int64_t numbers = 1;
    for (int32_t axis = 0; axis < rank; axis++) numbers *= sides[axis];
    total += numbers;
  }
  return total;
}

inline int64_t input_values(const gossamer_model *model) { return values(model, gossamer_input_count, gossamer_input); }

inline int64_t output_values(const gossamer_model *model) {
  return values(model, gossamer_output_count, gossamer_output);
}
