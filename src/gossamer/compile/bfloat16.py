"""A program in bfloat16: maps and 1x1 and dense weights of half the bytes; depthwise weights, biases and sums stay float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import Array, LayerWeights, Program


def to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each number, ties to even, as its 16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def convert_to_bfloat16(program: Program) -> Program:
    """The program with all float32 maps but those of outputs in bfloat16, and the weights that meet them. Changes it."""
    output_maps, before = {program.root(value) for value in program.output_values()}, 0
    shuffles = [{program.root(one.input), program.root(one.out)} for one in program.operations if one.kind == "shuffle"]
    while len(output_maps) > before:  # a shuffle's two maps are of one type
        before = len(output_maps)
        output_maps = output_maps.union(*(pair for pair in shuffles if pair & output_maps))
    for number, value in enumerate(program.values):
        if value.type == "float32" and program.root(number) not in output_maps:
            value.type = "bfloat16"
    for one in program.operations:
        first = program.values[one.input].type
        for place, layer in enumerate(one.weights):
            met = first if place == 0 else "uint8" if layer is not None and layer.scale is not None else "bfloat16"
            takes = one.kind == "conv" or (one.kind == "block" and place != 1)
            if not takes or layer is None or met != "bfloat16":
                continue
            weight = layer.weight
            if layer.scale is not None:
                weight = weight * layer.scale.reshape(-1, *[1] * (weight.ndim - 1))
            one.weights[place] = LayerWeights(to_bfloat16(weight.astype(np.float32)), layer.bias)
    return program
