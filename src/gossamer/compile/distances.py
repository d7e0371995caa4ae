"""Squared distances of a row of numbers to fixed ones, as LeNet-5's last layer has them, by two fully connected layers."""

from __future__ import annotations

import numpy as np

from gossamer.compile import layout, layout_ops, reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap, LayerWeights
from gossamer.modelfile.onnx import OnnxNode


def unsqueeze(low: Lowering, node: OnnxNode) -> None:
    """Unsqueeze, Sub of codes (K, C), Pow 2, ReduceSum: |x|^2 - 2 x c + |c|^2 for each code c; else a mere move."""
    chain = [node]
    for op in ("Sub", "Pow", "ReduceSum"):
        name = chain[-1].outputs[0]
        users = low.users.get(name, [])
        if len(users) != 1 or low.uses[name] != 1 or users[0].op != op or users[0].inputs[0] != chain[-1].outputs[0]:
            return layout_ops.lower_reshape(low, node)
        chain.append(users[0])
    codes, power, axes = (low.onnx.tensors.get(one.inputs[1]) if len(one.inputs) > 1 else None for one in chain[1:])
    at = low.onnx.tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
    source = low.read(node)
    value = low.program.values[source]
    flat = low.axes_of(node.inputs[0]) == layout.of_map(value)[:1] and value.h * value.w == 1
    fits = codes is not None and codes.ndim == 2 and codes.shape[1] == value.c and codes.dtype == np.float32
    known = [None if one is None else one.reshape(-1).tolist() for one in (at, power, axes)]
    if (
        not flat
        or not fits
        or known not in ([[1], [2.0], [2]], [[1], [2.0], [-1]])
        or chain[3].attributes.get("keepdims", 1)
    ):
        return layout_ops.lower_reshape(low, node)
    assert codes is not None
    low.skip |= {id(one) for one in chain}
    count = len(codes)
    weight, ones = (-2 * codes).reshape(count, -1, 1, 1), np.ones((count, value.c, 1, 1), np.float32)
    length = (codes.astype(np.float64) ** 2).sum(1).astype(np.float32)
    source = reductions.floats(low, source)
    squared = low.emit("multiply", source, FeatureMap(1, 1, value.c), other=source)
    first = low.emit("conv", source, FeatureMap(1, 1, count), weights=[LayerWeights(weight.astype(np.float32), length)])
    layer = LayerWeights(ones, np.zeros(count, np.float32))
    emitted = low.emit("conv", squared, FeatureMap(1, 1, count), other=first, weights=[layer])
    low.bind(chain[-1], emitted, layout.of_map(low.program.values[emitted])[:1])
    return None
