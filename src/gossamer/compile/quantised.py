"""QuantizeLinear and DequantizeLinear: bytes become the type of maps and weights, and cost no operation of their own."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import channel_scales, reductions
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import Array, FeatureMap, LayerWeights, Quantised
from gossamer.modelfile.onnx import OnnxNode

FLOAT, BYTES = 1, {2: np.dtype(np.uint8), 3: np.dtype(np.int8)}  # ONNX's numbers of types
# operators whose output holds the bytes of their input unchanged, so that its scale and zero point stay
KEEPING_BYTES = (
    "Concat DepthToSpace Dropout Flatten Gather Identity MaxPool Reshape Shape Slice SpaceToDepth Split Squeeze Transpose "
    "Unsqueeze"
).split()
CONSTANTS = tuple(map(np.dtype, ("int8", "uint8", "int16", "uint16", "int32")))  # those of 16 bits become floats
LEAST_SCALE, MOST_SCALE, MOST_ZERO = 1e-29, 1e29, 255
MOST_TERMS = (2**31 - 1) // (255 * 128)  # of a sum of products of bytes, which the engine computes in int32


def follow_bytes(low: Lowering, node: OnnxNode) -> None:
    """Note which names are bytes. Raises InputError for a node that computes with them as they are."""
    kinds = [low.bytes[name] for name in node.inputs if name in low.bytes]
    if not kinds or node.op == "DequantizeLinear":
        return
    if node.op not in KEEPING_BYTES or len(set(kinds)) > 1:
        low.refuse(node, "it reads bytes as they are, not what they stand for")
    low.bytes.update(dict.fromkeys(node.outputs if node.op != "Shape" else (), kinds[0]))


def quantise(low: Lowering, node: OnnxNode) -> None:
    """A map's type becomes uint8; where something else reads it as it is, a copy's does. A constant becomes another."""
    if node.inputs[0] in low.onnx.tensors:
        _quantise_constant(low, node)
        return
    if channel_scales.by_channel(low, node):
        channel_scales.quantise(low, node, _byte_type(low, node))
        return
    scale, zero = _parameters(low, node)
    low.bytes[node.outputs[0]] = _byte_type(low, node)
    if node.inputs[0] in low.series:
        low.each(node, lambda one, _: _bytes(low, one, scale, zero))
        return
    source = low.read(node)
    value = low.program.values[source]
    if value.type == "uint8" and (value.scale, value.zero) == (scale, zero):
        low.alias(node, source)
        return
    slices = {number: other for number, other in enumerate(low.program.values) if other.parent == source}
    # a part that something reads beside the concatenated map stays as it is
    once = max(low.value_uses.get(number, 0) for number in (source, *slices)) <= 1
    maker = low.maker.get(source)
    if once and value.parent < 0 and value.type == "float32" and (maker is None or maker.kind != "shuffle"):
        for one in (value, *slices.values()):
            one.type, one.scale, one.zero = "uint8", scale, zero
        low.alias(node, source)
        return
    low.bind(node, _bytes(low, source, scale, zero), low.axes_of(node.inputs[0]))


def requantised(low: Lowering, node: OnnxNode, source: int) -> int:
    """The value that a QuantizeLinear or DequantizeLinear between layout operators makes of a map. Raises InputError."""
    if node.op == "QuantizeLinear":
        scale, zero = _parameters(low, node)
        low.bytes[node.outputs[0]] = _byte_type(low, node)
        return _bytes(low, source, scale, zero)
    value = low.program.values[source]
    scale, zero = _parameters(low, node)
    if value.type != "uint8" or abs(value.scale - scale) > 1e-6 * scale or value.zero != zero:
        low.refuse(node, "a scale other than that of the map it reads")
    return source


def _bytes(low: Lowering, source: int, scale: float, zero: int) -> int:
    """A map as bytes of this scale: itself, or a copy."""
    value = low.program.values[source]
    if value.type == "uint8" and (value.scale, value.zero) == (scale, zero):
        return source
    return low.emit("copy", source, FeatureMap(value.h, value.w, value.c, type="uint8", scale=scale, zero=zero))


def gate_rounding(low: Lowering, quantise: OnnxNode, dequantise: OnnxNode) -> tuple[float, int]:
    """Scale and zero of a pair of nodes that round a map within an activation. Raises InputError where they differ."""
    scale, zero = _parameters(low, quantise)
    low.bytes[quantise.outputs[0]] = _byte_type(low, quantise)
    if _parameters(low, dequantise) != (scale, zero):
        low.refuse(dequantise, "a scale other than that of the map it reads")
    return scale, zero


def dequantise(low: Lowering, node: OnnxNode) -> None:
    """A constant is kept both as bytes and as floats; a map continues under the new name."""
    name = node.inputs[0]
    if node.attributes.get("block_size", 0) and low.onnx.tensors.get(name) is None:
        low.refuse(node, "its block_size is not 0")
    if name in low.channel_scales:
        channel_scales.dequantise(low, node)
        return
    if name in low.names or name in low.series:
        scale, zero = _parameters(low, node)
        for source in [low.names[name]] if name in low.names else [one for one, _ in low.series[name]]:
            value = low.program.values[source]
            if value.type != "uint8" or abs(value.scale - scale) > 1e-6 * scale or value.zero != zero:
                low.refuse(node, "a scale other than that of the map it reads")
        low.pass_on(node)
        return
    data, scales, zeros = (low.tensor(node, place) for place in range(3))
    if data is None or scales is None or data.dtype not in CONSTANTS or not data.size:
        low.refuse(node, "its input is no constant of int8, uint8, int16, uint16 or int32")
    if node.attributes.get("output_dtype", 0) not in (0, FLOAT):
        low.refuse(node, "an output_dtype that is not float32")
    if zeros is not None and zeros.dtype != data.dtype:
        low.refuse(node, "a zero point of another type than the bytes that it reads")
    if node.attributes.get("block_size", 0):
        low.onnx.tensors[node.outputs[0]] = _of_blocks(low, node, data, scales, zeros)
        return
    rows = np.asarray(scales, np.float32)
    scales, zeros, axis = _of_axis(low, node, data, scales, zeros)
    if zeros is not None and np.abs(zeros.astype(np.int64)).max() > (MOST_ZERO if data.dtype == np.int32 else 2**16):
        low.refuse(node, "its zero is no byte")
    wide = data.astype(np.int32) - (0 if zeros is None else zeros.astype(np.int32))
    name = node.outputs[0]
    low.onnx.tensors[name] = (wide * scales.astype(np.float64)).astype(np.float32)
    if data.dtype != np.int32 and wide.min() >= -128 and wide.max() <= 127:
        low.quantised[name] = Quantised(wide.astype(np.int8), rows, axis)


def layer(
    low: Lowering,
    node: OnnxNode,
    weight: Array,
    bias: Array,
    source: int,
    axis: int = 0,
    order: NDArray[np.int64] | None = None,
) -> tuple[int, LayerWeights]:
    """A map and the layer of a weight (in the shape it is used in) that meets it: int8 where both are quantised, else floats.

    order: of the columns of a fully connected layer, as they are in `weight`.
    """
    quantised = low.quantised.get(node.inputs[1])
    rows = quantised.rows(axis) if quantised is not None and low.program.values[source].type == "uint8" else None
    if weight[:1].size > MOST_TERMS:  # in floats
        rows = None
    if quantised is None or rows is None:
        return reductions.floats(low, source), LayerWeights(weight, bias)
    data = quantised.data if axis == 0 else quantised.data.T
    data = data if order is None else data[:, order]
    return source, LayerWeights(np.ascontiguousarray(data.reshape(weight.shape)), bias, rows)


def depthwise_layer(low: Lowering, node: OnnxNode, weight: Array, bias: Array, source: int) -> LayerWeights:
    """The layer of a depthwise convolution: int8 where it and its map are quantised, else floats, which meet any map."""
    quantised = low.quantised.get(node.inputs[1])
    rows = quantised.rows(0) if quantised is not None and low.program.values[source].type == "uint8" else None
    if quantised is None or rows is None:
        return LayerWeights(weight, bias)
    return LayerWeights(np.ascontiguousarray(quantised.data.reshape(weight.shape)), bias, rows)


def _byte_type(low: Lowering, node: OnnxNode) -> np.dtype[Any]:
    """The type of the bytes that a QuantizeLinear makes or a DequantizeLinear of a map reads. Raises InputError for others."""
    zero: Any = low.tensor(node, 2)
    if node.attributes.get("precision", 0) not in (0, FLOAT):
        low.refuse(node, "a precision that is not float32")
    wanted = node.attributes.get("output_dtype", 0)
    if node.op == "DequantizeLinear":
        if wanted not in (0, FLOAT):
            low.refuse(node, "an output_dtype that is not float32")
        kind = low.bytes.get(node.inputs[0])
        if kind is None or (zero is not None and zero.dtype != kind):
            low.refuse(node, "a zero point of another type than the bytes that it reads")
        return kind
    if wanted not in (0, *BYTES) or (wanted and zero is not None and zero.dtype != BYTES[wanted]):
        low.refuse(node, "an output_dtype that is not uint8 or int8, or not the type of its zero point")
    kind = np.dtype(BYTES[wanted] if wanted else np.uint8 if zero is None else zero.dtype)
    if kind not in BYTES.values():
        low.refuse(node, f"maps of {kind}")
    return kind


def _quantise_constant(low: Lowering, node: OnnxNode) -> None:
    """The bytes of a constant, each place of an axis by a scale of its own where there are several."""
    values, scales, zeros = (low.tensor(node, place) for place in range(3))
    kind = _byte_type(low, node)
    limits = np.iinfo(kind)
    scales, zeros, _ = _of_axis(low, node, values, scales, zeros)
    if values.dtype != np.float32 or not (scales > 0).all():
        low.refuse(node, "a constant that is not float32, or a scale that is not over 0")
    rounded = np.rint(values / scales) + (0 if zeros is None else zeros.astype(np.float32))
    low.onnx.tensors[node.outputs[0]] = np.clip(np.nan_to_num(rounded), limits.min, limits.max).astype(kind)


def _of_blocks(low: Lowering, node: OnnxNode, data: Any, scales: Any, zeros: Any) -> NDArray[np.float32]:
    """A constant of bytes with a scale for each block of places along its axis, as floats. Raises InputError."""
    size, axis = node.attributes["block_size"], node.attributes.get("axis", 1)
    if not isinstance(size, int) or size < 1 or not -data.ndim <= axis < data.ndim:
        low.refuse(node, "its block_size is below 0, or its axis is none of the constant's")
    shape = [-(-side // size) if place == axis % data.ndim else side for place, side in enumerate(data.shape)]
    fits = list(scales.shape) == shape and (zeros is None or zeros.shape == scales.shape)
    if not fits or scales.dtype != np.float32 or not np.isfinite(scales).all():
        low.refuse(node, f"its scales are not finite numbers in float32 in the shape {shape}")
    places = np.arange(data.shape[axis]) // size
    wide = data.astype(np.int64) - (0 if zeros is None else np.take(zeros, places, axis).astype(np.int64))
    return np.asarray(wide * np.take(scales, places, axis).astype(np.float64), np.float32)


def _of_axis(low: Lowering, node: OnnxNode, data: Any, scales: Any, zeros: Any) -> tuple[Any, Any, int]:
    """Scales and zeros of a constant in the shape in which they meet it, and their axis. Raises InputError."""
    axis, shape = node.attributes.get("axis", 1), [1] * data.ndim
    if scales.size > 1 and -data.ndim <= axis < data.ndim:
        shape[axis] = data.shape[axis]
    fits = scales.ndim <= 1 and scales.size == prod(shape) and (zeros is None or zeros.size in (1, scales.size))
    if not fits or scales.dtype != np.float32 or not np.isfinite(scales).all() or (scales < 0).any():
        low.refuse(node, "its scales are not numbers from 0 in float32, one for all or one per place of its axis")
    return scales.reshape(shape), None if zeros is None else zeros.reshape(shape if zeros.size > 1 else ()), axis


def _parameters(low: Lowering, node: OnnxNode) -> tuple[float, int]:
    """Scale and zero of a map of bytes; signed ones are moved up by 128. Raises InputError for others."""
    scale: Any = low.tensor(node, 1)
    zero: Any = low.tensor(node, 2)
    alike = scale is not None and scale.size and (scale == scale.reshape(-1)[0]).all()
    if not alike or (zero is not None and (not zero.size or (zero != zero.reshape(-1)[0]).any())):
        low.refuse(node, "a scale that is not one number for the map")
    scale, zero = scale.reshape(-1)[:1], None if zero is None else zero.reshape(-1)[:1]
    kind = _byte_type(low, node)
    if scale.dtype != np.float32 or not LEAST_SCALE <= float(scale.reshape(())) <= MOST_SCALE:
        low.refuse(node, f"a scale that is not from {LEAST_SCALE:g} to {MOST_SCALE:g} in float32")
    shift = 128 if kind == np.int8 else 0
    return float(np.float32(scale.reshape(()))), (0 if zero is None else int(zero.reshape(()))) + shift
