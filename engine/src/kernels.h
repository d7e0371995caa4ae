// What an instruction set offers: the same tasks for all, so that one planner serves every level.
#pragma once
#include <cstddef>
#include <cstdint>

#include "model.h"

namespace gossamer {

// A map in memory: channels of one position lie together, `ld` bytes from one position to the next.
struct Map {
  uint8_t *data;
  int32_t h, w, c, type;
  int64_t ld;
  float scale;   // of U8: a number is (byte - zero) * scale
  int32_t zero;
};

// What happens to a sum: `other` added, activated, clamped, written as the output's type.
struct Finish {
  int32_t act;
  float low, high;  // of CLIP; low is the slope of LEAKY_RELU
};

// Weights that are read next, and so fetched meanwhile: a core that computes leaves its memory idle.
struct Next {
  const uint8_t *at;
  int64_t bytes;
};

// Where a tile's rows go, and what is added to them.
struct Ends {
  const float *bias, *scale;
  uint8_t *c[16];
  const uint8_t *other[16];
  const Map *out, *more;  // more: the map of `other`, or null
  Finish finish;
  int columns;
  const uint8_t *fetch;  // what is fetched at the first step of a tile, and how many bytes on at each further one
  int64_t apart;
};

// Some positions by some registers of columns, of one type of map.
using Tile = void (*)(const uint8_t *const *a, int taps, int words, uint32_t tail, const uint8_t *b, const Ends &e);
struct Tiles {
  Tile at[5][16], even[5][16];  // by registers and positions; even: of positions that lie evenly
};

// A dense convolution of one group, weights packed in panels of columns.
struct Dense {
  Map in, out, other;  // other.data: added before the activation, or null
  const uint8_t *weight, *zeros;  // zeros: as many as in.c, for positions outside, of the type that tiles take
  const float *bias, *scale;      // scale: of integer sums, a number a column
  const Tiles *tiles;
  int32_t kh, kw, sh, sw, top, left, dilation, vectors;
  bool lines;     // a row of the kernel is one place of in.c * kw channels: the map's positions lie without gaps
  int32_t words;  // 4-byte words of one place: 1 float, 2 bfloat16 or 4 bytes each
  uint32_t tail;  // which bits of the last word are channels
  int64_t room;   // bytes of a position of the output that may be written, whole registers at a time
  int32_t block;  // rows of the output at once whose input is widened
  int64_t panel;  // bytes from one panel of the weights to the next
  // of blocks: words of k at a time, 0 where tiles are used; whether what a position reads is gathered, into `line` bytes; of
  // how many positions at once
  int32_t step;
  bool gathers;
  int64_t line, at_once;
  // of minimal filtering: points down and across a square, 0 where sums are direct; bytes from a point's weights to the next
  // one's; as many zeros as columns; at_once squares
  int32_t points_y, points_x;
  int64_t matrix;
  const float *none;
  Finish finish;
  Next next;  // of what comes behind this thread's part
};

// Expansion, depthwise convolution and projection of some rows. The expanded rows are float32.
struct Fused {
  Dense expand, project;  // of a whole image; without projection the depthwise rows are the output
  bool expands, projects;
  const float *weight, *bias;  // depthwise, (kh, kw, mid padded), or (mid / vector, kh, kw, vector) without expansion; its bias
  int32_t kh, kw, sh, sw, top, left, dilation, mid, padded, chunk;
  int32_t rows, inner;  // output rows at once of all chunks, of one chunk
  Finish finish;        // of the depthwise layer
  Map in, middle, out;
};

// A convolution over the whole of its map, whose weights stay where the file has them.
struct Connected {
  Map in, out, other;  // other.data: added before the activation, or null
  const uint8_t *weight;  // (out.c, in.c, in.h, in.w)
  const float *bias, *scale;  // scale: of S8 weights, a number a row, or null
  int32_t type;  // of the weights
  Finish finish;
};

struct Kernels {
  void (*dense)(const Dense &task, int64_t position0, int64_t position1, int32_t panel0, int32_t panel1, uint8_t *wide);
  void (*fused_rows)(const Fused &task, int32_t row0, int32_t row1, float *expanded, uint8_t *middle, uint8_t *wide);
  void (*fused_chunks)(const Fused &task, int32_t chunk0, int32_t chunk1, float *expanded, uint8_t *wide);
  // outputs first to last; x: room for all numbers of the map
  void (*connected)(const Connected &task, int32_t first, int32_t last, float *x);
  void (*pool)(const Map &in, const Map &out, const Op &op, int32_t row0, int32_t row1);
  void (*average)(const Map &in, const Map &out);
  void (*take)(const float *image, const Map &to, int64_t position0, int64_t position1);
  void (*pointwise)(const Map &in, const Map &other, const Map &out, const Op &op, const float *weights, int64_t position0,
                    int64_t position1);
};

struct Level {
  const char *name;
  int32_t vector;  // floats in a register
  int32_t widest;  // registers across a panel, at most
  int32_t flip;    // what is taken off the bytes of a map before they meet weights
  int32_t taken[TYPES];  // as what tiles take the maps of a type: BF16 as F32 where there is no arithmetic for it, U8 as WIDE
  const Tiles *tiles[TYPES + 1];  // of each type that is taken, WIDE behind the others
  const Kernels *kernels;
  bool blocks;  // of bytes and bfloat16, in registers of two dimensions
};

extern const Tiles AVX512_TILES[], AVX512_VNNI_TILES[], NEON_TILES[];
extern const Kernels AVX512_KERNELS, NEON_KERNELS;
extern const Level PORTABLE, AVX2, AVX512, AVX512_VNNI, AVX512_BF16, AMX, NEON, NEON_DOTPROD;

// Plain loops over the file's own weights, one operation at a time: what every level is tested against.
void reference(const Op &op, const Map &in, const Map &other, const Map &out, const float *weights);

// Bytes from one position of a widened map to the next.
inline int64_t wide_ld(const Map &map) { return map.c <= 4 && map.ld == map.c ? 2 * map.c : (map.c + 15) / 16 * 32; }

inline int32_t size_of(int32_t type) { return type == F32 ? 4 : type == U8 ? 1 : 2; }

}  // namespace gossamer
