// The table of the kernels of depthwise layers (depthwise.cpp), of which blocks take the first that fits.
#pragma once
#include <string>

#include "kernel.h"

namespace gossamer {

struct DepthwiseKernel {
  const char *name;
  bool (*takes)(const gossamer_model &m, const Op &op, const Fused &f);
  bool (*pack)(gossamer_model &m, const Op &op,
               Fused &f);              // what it needs beside f.weight; false: no memory. Null: nothing
  int64_t (*scratch)(const Fused &f);  // bytes of a thread
  bool (*offered)(const Isa &isa);     // null: by every ISA, and for any shape; else for those of DEPTHWISE_SHAPES
  bool words;                          // whether it reads rows of U8_WORDS
};

// Row of DEPTHWISE_SHAPES, or their number.
int32_t depthwise_shape(const Op &op);

const DepthwiseKernel &depthwise_kernel(const gossamer_model &m, const Op &op, const Fused &f);

std::string depthwise_name(const gossamer_model &m, const Op &op, const Fused &f);
KernelNames depthwise_names(const Isa &isa);

}  // namespace gossamer
