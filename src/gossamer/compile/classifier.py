"""The last layers' weights in int8: they are read once per image, so that their bytes are their time."""

from __future__ import annotations

import numpy as np

from gossamer.compile.program import LayerWeights, Operation, Program

PASSED = ("activation", "affine", "copy", "softmax")  # between the last layers and an output


def last_layers(program: Program) -> list[Operation]:
    """The convolutions over full maps behind which, up to an output, only such stand and what works number by number."""
    makers = {one.out: one for one in program.operations}
    layers: list[Operation] = []
    left = [makers[value] for value in sorted(program.output_values()) if value in makers]
    while left:
        one = left.pop()
        full = covers_its_map(program, one)
        if full and not any(one is other for other in layers):
            layers.append(one)
        if (full or one.kind in PASSED) and one.input in makers:
            left.append(makers[one.input])
        if full and one.other in makers and covers_its_map(program, makers[one.other]):  # parts of one layer
            left.append(makers[one.other])
    return layers


def covers_its_map(program: Program, one: Operation) -> bool:
    """Whether an operation is a convolution whose every output reads the full map, one of floats."""
    source = program.values[one.input]
    full_kernel = one.kernel == (source.h, source.w) and one.pads == (0, 0, 0, 0)
    return one.kind == "conv" and full_kernel and one.groups == 1 and one.dilation == 1 and source.type != "uint8"


def in_bytes(layer: LayerWeights) -> LayerWeights:
    """A float32 layer with symmetric int8 weights: of each row the largest becomes 127, and a scale makes it good."""
    rows = layer.weight.reshape(len(layer.weight), -1).astype(np.float32)
    scale = (np.abs(rows).max(1) / 127).astype(np.float32)
    with np.errstate(all="ignore"):  # of weights that are not finite, which the scale shows
        steps = np.nan_to_num(np.rint(rows / np.where(scale > 0, scale, 1)[:, None])).clip(-127, 127)
    return LayerWeights(steps.astype(np.int8).reshape(layer.weight.shape), layer.bias, scale)
