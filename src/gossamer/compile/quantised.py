"""QuantizeLinear and DequantizeLinear: bytes become the type of maps and weights, and cost no operation of their own."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gossamer.compile import reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import Array, FeatureMap, LayerWeights, Quantised
from gossamer.modelfile.onnx import OnnxNode

LEAST_SCALE, MOST_SCALE, MOST_ZERO = 1e-29, 1e29, 255
MOST_TERMS = (2**31 - 1) // (255 * 128)  # of a sum of products of bytes, which the engine computes in int32


def quantise(low: Lowering, node: OnnxNode) -> None:
    """A map's type becomes uint8; where something else reads it as it is, a copy's does."""
    scale, zero = _parameters(low, node)
    if node.inputs[0] in low.series:
        low.each(node, lambda one, _: _bytes(low, one, scale, zero))
        return
    source = low.read(node)
    value = low.program.values[source]
    if value.type == "uint8" and (value.scale, value.zero) == (scale, zero):
        low.alias(node, source)
        return
    slices = [other for other in low.program.values if other.parent == source]
    once = low.value_uses.get(source, 0) <= 1 and value.parent < 0 and value.type == "float32"
    maker = low.maker.get(source)
    if once and (maker is None or maker.kind != "shuffle"):
        for one in (value, *slices):
            one.type, one.scale, one.zero = "uint8", scale, zero
        low.alias(node, source)
        return
    low.bind(node, _bytes(low, source, scale, zero), low.axes_of(node.inputs[0]))


def _bytes(low: Lowering, source: int, scale: float, zero: int) -> int:
    """A map as bytes of this scale: itself, or a copy."""
    value = low.program.values[source]
    if value.type == "uint8" and (value.scale, value.zero) == (scale, zero):
        return source
    return low.emit("copy", source, FeatureMap(value.h, value.w, value.c, type="uint8", scale=scale, zero=zero))


def dequantise(low: Lowering, node: OnnxNode) -> None:
    """A constant is kept both as bytes and as floats; a map continues under the new name."""
    name = node.inputs[0]
    if name in low.names or name in low.series:
        scale, zero = _parameters(low, node)
        for source in [low.names[name]] if name in low.names else [one for one, _ in low.series[name]]:
            value = low.program.values[source]
            if value.type != "uint8" or abs(value.scale - scale) > 1e-6 * scale or value.zero != zero:
                low.refuse(node, "a scale other than that of the map it reads")
        low.pass_on(node)
        return
    data, scales, zeros = (low.tensor(node, place) for place in range(3))
    if data is None or scales is None or data.dtype not in (np.int8, np.uint8, np.int32) or not data.size:
        low.refuse(node, "its input is no constant of int8, uint8 or int32")
    axis, shape = node.attributes.get("axis", 1), [1] * data.ndim
    if scales.size > 1 and -data.ndim <= axis < data.ndim:
        shape[axis] = data.shape[axis]
    fits = scales.ndim <= 1 and scales.size == prod(shape) and (zeros is None or zeros.size in (1, scales.size))
    if not fits or scales.dtype != np.float32 or not np.isfinite(scales).all() or (scales < 0).any():
        low.refuse(node, "its scales are not numbers from 0 in float32, one for all or one per place of its axis")
    if zeros is not None and (zeros.dtype.kind not in "iu" or np.abs(zeros.astype(np.int64)).max() > MOST_ZERO):
        low.refuse(node, "its zero is no byte")
    wide = data.astype(np.int32) - (
        0 if zeros is None else zeros.astype(np.int32).reshape(shape if zeros.size > 1 else ())
    )
    name = node.outputs[0]
    low.onnx.tensors[name] = (wide * scales.astype(np.float64).reshape(shape)).astype(np.float32)
    if data.dtype != np.int32 and wide.min() >= -128 and wide.max() <= 127:
        low.quantised[name] = Quantised(wide.astype(np.int8), np.asarray(scales, np.float32), axis)


def layer(
    low: Lowering, node: OnnxNode, weight: Array, bias: Array, source: int, axis: int = 0
) -> tuple[int, LayerWeights]:
    """A map and the layer of a weight (in the shape it is used in) that meets it: int8 where both are quantised, else floats."""
    quantised = low.quantised.get(node.inputs[1])
    rows = quantised.rows(axis) if quantised is not None and low.program.values[source].type == "uint8" else None
    if weight[0].size > MOST_TERMS:  # in floats
        rows = None
    if quantised is None or rows is None:
        return reductions.floats(low, source), LayerWeights(weight, bias)
    data = quantised.data if axis == 0 else quantised.data.T
    return source, LayerWeights(np.ascontiguousarray(data.reshape(weight.shape)), bias, rows)


def _parameters(low: Lowering, node: OnnxNode) -> tuple[float, int]:
    """Scale and zero of a map of bytes; signed ones are moved up by 128. Raises InputError for others."""
    scale: Any = low.tensor(node, 1)
    zero: Any = low.tensor(node, 2)
    if scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
        low.refuse(node, "a scale that is not one number for the map")
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind not in (np.uint8, np.int8):
        low.refuse(node, f"maps of {kind}")
    if scale.dtype != np.float32 or not LEAST_SCALE <= float(scale.reshape(())) <= MOST_SCALE:
        low.refuse(node, f"a scale that is not from {LEAST_SCALE:g} to {MOST_SCALE:g} in float32")
    shift = 128 if kind == np.int8 else 0
    return float(np.float32(scale.reshape(()))), (0 if zero is None else int(zero.reshape(()))) + shift
