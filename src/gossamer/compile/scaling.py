"""A factor and an offset for each channel, fused into the layer before them where nothing else reads it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap, LayerWeights, Operation

Row = NDArray[np.float32] | NDArray[np.float64]


def append_channel_scale(low: Lowering, source: int, factor: Row, offset: Row) -> int:
    """The map times `factor` plus `offset`: the same value, of another layer, or a new one."""
    maker, value = low.free_to_take(source), low.program.values[source]
    if maker is not None and value.type == "float32" and _fused(maker, factor, offset):
        return source
    layer = LayerWeights(factor.astype(np.float32), offset.astype(np.float32))
    return low.emit("affine", source, FeatureMap(value.h, value.w, value.c), weights=[layer])


def _fused(maker: Operation, factor: Row, offset: Row) -> bool:
    """Change an operation's layer so that its output is scaled; whether that is right."""
    place, act = (1, maker.acts[1]) if maker.kind == "block" else (0, maker.act)
    if maker.kind not in ("conv", "block", "affine") or act != "none" or maker.other >= 0:
        return False
    layer = maker.weights[place]
    if layer is None or (layer.type != "float32" and not (factor == 1).all()):
        return False
    weight = layer.weight
    if not (factor == 1).all():
        weight = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    bias = (layer.bias * factor + offset).astype(np.float32)
    if layer.type == "float32" and not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return False  # infinity times 0 is not what a large number times 0 is
    maker.weights[place] = LayerWeights(weight, bias, layer.scale)
    return True
