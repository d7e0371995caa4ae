"""Maps of bytes with a scale for each channel, where depthwise layers alone read them: the scales go into the layers around.

NNCF writes such files before depthwise layers. The map is stored times S / scale[c] with one scale S for all, so its bytes are
those of the file; the layer before it computes that, and the depthwise layer behind it multiplies its weights by scale[c] / S.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap, LayerWeights, Operation
from gossamer.modelfile.onnx import OnnxNode

HOMOGENEOUS = ("none", "relu", "leaky_relu")  # activations that a positive factor passes
CLIPS = {"relu6": (0.0, 6.0)}
LEAST_SCALE, MOST_SCALE = 1e-18, 1e18


def by_channel(low: Lowering, node: OnnxNode) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear of a map has scales that differ among channels."""
    scale: Any = low.tensor(node, 1)
    return scale is not None and scale.size > 1 and not bool((scale == scale.reshape(-1)[0]).all())


def quantise(low: Lowering, node: OnnxNode, kind: np.dtype[Any]) -> None:
    """The map as bytes. kind: of the bytes. Raises InputError where something but depthwise layers reads it."""
    source = low.value(node)
    value = low.program.values[source]
    scales, zero = _scales(low, node, value.c)
    zero += 128 if kind == np.int8 else 0
    for reader in low.users.get(node.outputs[0], []):
        _check_reader(low, node, reader, value.c)
    if low.uses.get(node.outputs[0], 0) != len(low.users.get(node.outputs[0], [])):
        low.refuse(node, "a scale for each channel of an output")
    shared = 2.0 ** round(math.log2(float(scales.max())))  # a power of 2: nothing is rounded twice
    factor = shared / scales.astype(np.float64)
    low.bytes[node.outputs[0]] = kind
    low.channel_scales[node.outputs[0]] = scales / shared
    maker = low.free_to_take(source)
    axes = low.axes_of(node.inputs[0])
    if maker is not None and value.type == "float32" and _scaled(maker, factor, scales, zero):
        low.alias(node, source)
        number = source
    else:
        plain = reductions.floats(low, source)
        layer = LayerWeights(factor.astype(np.float32), np.zeros(value.c, np.float32))
        number = low.emit("affine", plain, FeatureMap(value.h, value.w, value.c), weights=[layer])
        low.bind(node, number, axes)
    one = low.program.values[number]
    one.type, one.scale, one.zero = "uint8", shared, zero


def dequantise(low: Lowering, node: OnnxNode) -> None:
    """The map under another name; its readers, which `quantise` has checked, look for the scales."""
    low.channel_scales[node.outputs[0]] = low.channel_scales[node.inputs[0]]
    low.pass_on(node)


def into_weights(low: Lowering, node: OnnxNode, layer: LayerWeights) -> LayerWeights:
    """The layer of a depthwise convolution with the scales of the channels that it reads, where they have their own."""
    factor = low.channel_scales.get(node.inputs[0])
    if factor is None:
        return layer
    rows = np.repeat(factor, len(layer.weight) // len(factor)).astype(np.float32)
    if layer.scale is not None:
        return LayerWeights(layer.weight, layer.bias, (layer.scale * rows).astype(np.float32))
    weight = layer.weight.astype(np.float32) * rows.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return LayerWeights(weight.astype(np.float32), layer.bias)


def _scales(low: Lowering, node: OnnxNode, channels: int) -> tuple[NDArray[np.float32], int]:
    """The scale of each channel, and the level of 0 of all. Raises InputError for others."""
    scale: Any = low.tensor(node, 1)
    zero: Any = low.tensor(node, 2)
    rank = low.rank(node.inputs[0]) or 4
    if scale.ndim != 1 or scale.size != channels or node.attributes.get("axis", 1) % rank != 1:
        low.refuse(node, "scales that are neither one for the map nor one for each of its channels")
    if scale.dtype != np.float32 or not (scale.min() >= LEAST_SCALE and scale.max() <= MOST_SCALE):
        low.refuse(node, f"a scale that is not from {LEAST_SCALE:g} to {MOST_SCALE:g} in float32")
    if zero is not None and (zero.size not in (1, channels) or len(np.unique(zero)) != 1):
        low.refuse(node, "a zero point for each channel: padding of a depthwise layer has one")
    return scale, 0 if zero is None else int(zero.reshape(-1)[0])


def _check_reader(low: Lowering, node: OnnxNode, reader: OnnxNode, channels: int) -> None:
    """Raises InputError where a reader of the bytes is no DequantizeLinear of the same scales that depthwise layers alone read."""
    why = "a scale for each channel of a map that something but depthwise convolutions reads"
    if reader.op != "DequantizeLinear" or reader.attributes.get("axis", 1) % 4 != 1:
        low.refuse(node, why)
    for place in (1, 2):
        ours, theirs = low.tensor(node, place), low.tensor(reader, place)
        if (ours is None) != (theirs is None) or (ours is not None and not np.array_equal(ours, theirs)):
            low.refuse(reader, "scales other than those of the map it reads")
    behind = low.users.get(reader.outputs[0], [])
    depthwise = all(
        one.op == "Conv" and one.attributes.get("group", 1) == channels and one.inputs[0] == reader.outputs[0]
        for one in behind
    )
    if not behind or not depthwise or low.uses.get(reader.outputs[0], 0) != len(behind):
        low.refuse(node, why)


def _scaled(maker: Operation, factor: NDArray[np.float64], scales: NDArray[np.float32], zero: int) -> bool:
    """Multiply the channels that an operation makes, before its activation; whether that can be."""
    block = maker.kind == "block"
    place, act = (1, maker.acts[1]) if block else (0, maker.act)
    bound = maker.bounds[1] if block else maker.bound
    rounding = maker.roundings[1] if block else maker.rounding
    if maker.kind not in ("conv", "block", "affine") or maker.other >= 0 or rounding.sum[0] or rounding.gate[0]:
        return False
    layer = maker.weights[place] if len(maker.weights) > place else None
    if layer is None or (block and len(maker.weights) > 2 and maker.weights[2] is not None):
        return False
    if act not in HOMOGENEOUS:
        clip = CLIPS.get(act, bound if act == "clip" else None)
        if clip is None or not _saturates(clip, scales, zero):
            return False
        act = "none"
    weight, rows = layer.weight, layer.scale
    if rows is not None:
        rows = (rows * factor).astype(np.float32)
    elif weight.dtype == np.float32:
        weight = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    else:
        return False
    bias = (layer.bias * factor).astype(np.float32)
    if not (np.isfinite(bias).all() and np.isfinite(weight if rows is None else rows).all()):
        return False
    maker.weights[place] = LayerWeights(weight, bias, rows)
    if block:
        maker.acts = (maker.acts[0], act)
    else:
        maker.act = act
    return True


def _saturates(clip: tuple[float, float], scales: NDArray[np.float32], zero: int) -> bool:
    """Whether bytes end in every channel where the clip does, or before."""
    with np.errstate(over="ignore"):
        low, high = (np.rint(np.float32(limit) / scales) + zero for limit in clip)
    return bool((low <= 0).all() and (high >= 255).all())
