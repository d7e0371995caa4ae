// What an instruction set offers: the same tasks for all, so that one planner serves every level.
#pragma once
#include <cstddef>
#include <cstdint>

#include "model.h"

namespace gossamer {

// A map in memory: channels of one position lie together, `ld` floats from one position to the next.
struct Map {
  float *data;
  int32_t h, w, c;
  int64_t ld;
};

// A dense convolution of one group, weights packed in panels of columns.
struct Dense {
  Map in, out;
  const float *other;  // added before the activation, at other_ld, or null
  int64_t other_ld;
  const float *weight, *bias, *zeros;  // zeros: as many as in.c, for positions outside
  int32_t kh, kw, sh, sw, top, left, dilation, act, vectors;
};

// Expansion (or a copy), depthwise convolution and projection of some rows.
struct Fused {
  Dense expand, project;  // of a whole image; project.weight null: the depthwise rows are the output
  bool expands, projects;
  const float *weight, *bias;  // depthwise, (kh, kw, mid padded), and its bias
  int32_t kh, kw, sh, sw, top, left, mid, padded, chunk, act;
  int32_t rows, inner;  // output rows at once of all chunks, of one chunk
  Map in, middle, out;
};

struct Level {
  const char *name;
  int32_t vector;   // floats in a register
  int32_t widest;   // registers across a panel, at most
  // floats that panels of `vectors` registers take, and the packing of (n, k) or (n, kh, kw, k) weights into them
  void (*dense)(const Dense &task, int64_t position0, int64_t position1, int32_t panel0, int32_t panel1);
  void (*fused_rows)(const Fused &task, int32_t row0, int32_t row1, float *expanded, float *middle);
  void (*fused_chunks)(const Fused &task, int32_t chunk0, int32_t chunk1, float *expanded);
  void (*pool)(const Map &in, const Map &out, const Op &op, int32_t row0, int32_t row1);
  void (*average)(const Map &in, const Map &out);
  void (*pointwise)(const Map &in, const float *other, int64_t other_ld, const Map &out, const Op &op, const float *weights,
                    int64_t position0, int64_t position1);
};

extern const Level PORTABLE, AVX2, AVX512;

}  // namespace gossamer
