"""ONNX nodes to operations of the engine, activations and residual additions fused into the layers before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile import (
    arithmetic,
    dense,
    distances,
    gates,
    heads,
    layout,
    layout_ops,
    padding,
    quantised,
    reductions,
    schema,
    shapes,
    slices,
    stacks,
    windows,
)
from gossamer.compile.attributes import channel_row, check, from_the_first, normalized_axes, scalar_input
from gossamer.compile.channels_last import lower_in_order
from gossamer.compile.constants import fold, slice_bounds
from gossamer.compile.lowering import FLOAT_MOST, FUSES_ACTIVATION, Handler, Lowering, Pads
from gossamer.compile.program import MOST_STRIDE, MOST_TAPS, QDQ_OPS, FeatureMap, LayerWeights, Program
from gossamer.compile.scaling import append_channel_scale
from gossamer.errors import InputError
from gossamer.modelfile.onnx import FLOAT, OnnxModel, OnnxNode

UNARY = {
    "Relu": "relu",
    "HardSwish": "hard_swish",
    "HardSigmoid": "hard_sigmoid",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}
GATES = {"Sigmoid": "silu", "HardSigmoid": "hard_swish"}  # times its input
MOST_END = 2**63 - 1
RESHAPES = ("Flatten", "Squeeze")


def _pair(values: Any, default: int = 1) -> tuple[int, int]:
    first, second = values if values else (default, default)
    return int(first), int(second)


def _window(
    value: FeatureMap, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, dilation: int
) -> tuple[int, int]:
    h = (value.h + pads[0] + pads[2] - dilation * (kernel[0] - 1) - 1) // stride[0] + 1
    w = (value.w + pads[1] + pads[3] - dilation * (kernel[1] - 1) - 1) // stride[1] + 1
    return h, w


def _conv(low: Lowering, node: OnnxNode) -> None:
    source, weight = low.value(node), low.tensor(node, 1)
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32:
        low.refuse(node, "its weight is not float32 of four axes")
    value, groups, c_out = low.program.values[source], node.attributes.get("group", 1), int(weight.shape[0])
    stride, dilations = _pair(node.attributes.get("strides")), _pair(node.attributes.get("dilations"))
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    if dilations[0] != dilations[1] or kernel != _pair(node.attributes.get("kernel_shape") or kernel):
        low.refuse(node, "two dilations, or another kernel than its weight's")
    if not 1 <= kernel[0] * kernel[1] <= MOST_TAPS or value.c != weight.shape[1] * groups or c_out % groups:
        low.refuse(node, "its kernel, channels or groups are outside what the engine has")
    pads = padding.of(low, node, kernel, stride, dilations[0])
    h, w = _window(value, kernel, stride, pads, dilations[0])
    bias_row = channel_row(low, node, 2, c_out)
    bias = np.zeros(c_out, np.float32) if bias_row is None else bias_row
    depthwise = groups > 1 and groups == value.c == c_out
    source, layer = (
        (source, LayerWeights(weight, bias)) if depthwise else quantised.layer(low, node, weight, bias, source)
    )
    layers: list[LayerWeights | None] = [None, layer, None] if depthwise else [layer]
    emitted = low.emit(
        "block" if depthwise else "conv",
        source,
        FeatureMap(h, w, c_out),
        kernel=kernel,
        stride=stride,
        pads=pads,
        dilation=dilations[0],
        groups=1 if depthwise else groups,
        mid=c_out if depthwise else 0,
        weights=layers,
    )
    low.bind(node, emitted)


def _batch_norm(low: Lowering, node: OnnxNode) -> None:
    source = low.value(node)
    value = low.program.values[source]
    scale, shift, mean, variance = (channel_row(low, node, place, value.c) for place in range(1, 5))
    if any(one is None for one in (scale, shift, mean, variance)) or node.attributes.get("training_mode", 0):
        low.refuse(node, "its scale, shift, mean or variance is left out, or it trains")
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.attributes.get("epsilon", 1e-5))
    offset = shift - mean * factor
    low.bind(node, append_channel_scale(low, source, factor, offset))


def _clip(low: Lowering, node: OnnxNode) -> None:
    # attributes before operator set 11
    lower, upper = scalar_input(low, node, 1, "min"), scalar_input(low, node, 2, "max")
    least = -FLOAT_MOST if lower is None else max(lower, -FLOAT_MOST)
    most = FLOAT_MOST if upper is None else min(upper, FLOAT_MOST)
    if least > most:
        low.refuse(node, f"from {least:g} to {most:g}")
    if (least, most) == (0.0, 6.0):
        low.activate(node, "relu6")
    else:
        low.activate(node, "clip", bound=(least, most))


def _dropout(low: Lowering, node: OnnxNode) -> None:
    training = low.tensor(node, 2)
    if training is not None and training.any():
        low.refuse(node, "its training_mode is true")
    low.pass_on(node)


def _leaky(low: Lowering, node: OnnxNode) -> None:
    low.activate(node, "leaky_relu", bound=(float(node.attributes.get("alpha", 0.01)), 0.0))


def _unary(low: Lowering, node: OnnxNode) -> None:
    product = low.match_gate_product(node) if node.op in GATES and node.inputs[0] in low.names else None
    if product is not None:  # x * sigmoid(x), x * hard_sigmoid(x)
        low.activate(node, GATES[node.op], uses=2)
        value = low.names[node.outputs[0]]
        low.names[product.outputs[0]], low.value_uses[value] = value, low.uses.get(product.outputs[0], 0)
        low.axes[product.outputs[0]] = low.axes_of(node.outputs[0])
        return
    low.activate(node, UNARY[node.op])


def _hard_sigmoid(low: Lowering, node: OnnxNode) -> None:
    """The engine's own has slope 1/6 and 1/2 at 0; others are a line between 0 and 1."""
    alpha, beta = (node.attributes.get(name, usual) for name, usual in (("alpha", 0.2), ("beta", 0.5)))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        _unary(low, node)
        return

    def line(source: int, _: layout.Axes) -> int:
        value = low.program.values[source]
        layer = LayerWeights(np.full(value.c, alpha, np.float32), np.full(value.c, beta, np.float32))
        return low.emit(
            "affine", source, FeatureMap(value.h, value.w, value.c), act="clip", bound=(0.0, 1.0), weights=[layer]
        )

    low.each(node, line)


def _add(low: Lowering, node: OnnxNode) -> None:
    if gates.gate(low, node) or heads.with_constant(low, node):
        return
    axes = _alike(low, node)
    a, b = (low.value if axes is None else low.read)(node, 0), (low.value if axes is None else low.read)(node, 1)
    _of_one_rank(low, node)
    va, vb = low.program.values[a], low.program.values[b]
    if (va.h, va.w) == (vb.h, vb.w) and va.c != vb.c and 1 in (va.c, vb.c):  # one channel for all
        a, b = (reductions.to_channels(low, one, max(va.c, vb.c)) for one in (a, b))
        va, vb = low.program.values[a], low.program.values[b]
    if va.c == vb.c and va.h * va.w != vb.h * vb.w and 1 in (va.h * va.w, vb.h * vb.w):  # one number per channel
        a, b, va = (a, b, va) if vb.h * vb.w == 1 else (b, a, vb)
        low.bind(node, low.emit("add", a, FeatureMap(va.h, va.w, va.c), other=b))
        return
    if (va.h, va.w, va.c) != (vb.h, vb.w, vb.c):
        low.refuse(node, "maps of two sizes")
    order = {id(one): place for place, one in enumerate(low.program.operations)}
    late, early = (a, b) if order.get(id(low.maker.get(a)), -1) > order.get(id(low.maker.get(b)), -1) else (b, a)
    maker = low.free_to_take(late)
    conv = (
        maker is not None and maker.kind == "conv" and maker.act == "none" and maker.other < 0 and maker.input != late
    )
    if maker is not None and conv and low.drop_requantise(late, maker):
        maker.other = early
        low.bind(node, late, axes)
        return
    low.bind(node, low.emit("add", a, FeatureMap(va.h, va.w, va.c), other=b), axes)


def _mul(low: Lowering, node: OnnxNode) -> None:
    if heads.with_constant(low, node) or stacks.weigh(low, node):
        return
    axes = _alike(low, node)
    if axes is not None:
        a, b = low.read(node, 0), low.read(node, 1)
        one = low.program.values[a]
        low.bind(node, low.emit("multiply", a, FeatureMap(one.h, one.w, one.c), other=b), axes)
        return
    a, b = low.value(node, 0), low.value(node, 1)
    _of_one_rank(low, node)
    one, other = low.program.values[a], low.program.values[b]
    smaller = one.h * one.w == 1 < other.h * other.w  # one number per channel, or one channel for all
    if smaller or ((one.h, one.w) == (other.h, other.w) and one.c == 1):
        a, b = b, a
    va, vb = low.program.values[a], low.program.values[b]
    if (va.h, va.w) == (vb.h, vb.w) and vb.c == 1:
        b = reductions.to_channels(low, b, va.c)
    va, vb = low.program.values[a], low.program.values[b]
    if (va.h, va.w, va.c) == (vb.h, vb.w, vb.c):
        low.bind(node, low.emit("multiply", a, FeatureMap(va.h, va.w, va.c), other=b))
        return
    if vb.h * vb.w != 1 or va.c != vb.c:
        low.refuse(node, "a product that is not of two maps of one size, or of a map and one number per channel")
    low.bind(node, low.emit("scale", a, FeatureMap(va.h, va.w, va.c), other=b))


def _pool(low: Lowering, node: OnnxNode) -> None:
    source, at = low.value(node), node.attributes
    if not at.get("kernel_shape"):
        low.refuse(node, "it has no kernel_shape")
    value, kernel = low.program.values[source], _pair(at["kernel_shape"])
    stride, dilations = _pair(at.get("strides")), _pair(at.get("dilations"))
    pads = padding.of(low, node, kernel, stride, dilations[0])
    count_padding = bool(at.get("count_include_pad", 0)) or low.map_name(node.inputs[0]) in low.padded
    if dilations[0] != dilations[1] or any(one >= side for one, side in zip(at.get("pads") or (), kernel * 2)):
        low.refuse(node, "two dilations, or padding of a full kernel")
    if at.get("ceil_mode", 0):
        bottom = _rounded_up(value.h, dilations[0] * (kernel[0] - 1) + 1, stride[0], pads[0], pads[2])
        right = _rounded_up(value.w, dilations[1] * (kernel[1] - 1) + 1, stride[1], pads[1], pads[3])
        if count_padding and (bottom, right) != pads[2:]:  # what is added does not count
            if max(pads):
                low.refuse(node, "an average that rounds its size up and counts its padding")
            count_padding = False
        pads = (*pads[:2], bottom, right)
    h, w = _window(value, kernel, stride, pads, dilations[0])
    kind = "max_pool" if node.op == "MaxPool" else "average_pool"
    emitted = low.emit(
        kind,
        source,
        FeatureMap(h, w, value.c),
        kernel=kernel,
        stride=stride,
        pads=pads,
        dilation=dilations[0],
        count_padding=count_padding,
    )
    low.bind(node, emitted)


def _rounded_up(side: int, kernel: int, stride: int, before: int, behind: int) -> int:
    """The padding behind an axis with which its last window is complete, unless it would begin behind the map."""
    over = (side + before + behind - kernel) % stride
    begins = side + before + behind - kernel - over + stride
    return behind + stride - over if over and begins < side + before else behind


def _global(low: Lowering, node: OnnxNode) -> None:
    source = low.value(node)
    low.bind(node, low.emit("global_average", source, FeatureMap(1, 1, low.program.values[source].c)))


def _mean(low: Lowering, node: OnnxNode) -> None:
    """ReduceMean, of a map or of some of its rows or columns."""
    name = node.inputs[0]
    usual = name not in low.names or low.axes_of(name) == layout.of_map(low.program.values[low.names[name]])
    if not usual or not windows.mean(low, node, reductions.axes_of(low, node)):
        reductions.reduce(low, node)


def _less_or_over(low: Lowering, node: OnnxNode) -> None:
    """Sub and Div, as Add and Mul of a map times -1 or of one over it."""
    a, b = node.inputs
    if node.op == "Div" and low.onnx.tensors.get(a) is not None and b in low.names:
        node = dataclasses.replace(node, op="Mul", inputs=(arithmetic.reciprocal(low, b), a))
    if heads.with_constant(low, node):
        return
    if a not in low.names or b not in low.names:
        low.refuse(node, "an input that is no map of the network")
    if node.op == "Sub":
        _add(low, dataclasses.replace(node, op="Add", inputs=(a, arithmetic.negated(low, b))))
    else:
        _mul(low, dataclasses.replace(node, op="Mul", inputs=(a, arithmetic.reciprocal(low, b))))


def _reshape(low: Lowering, node: OnnxNode) -> None:
    if not _shuffle(low, node):
        layout_ops.lower_reshape(low, node)


def _shuffle(low: Lowering, node: OnnxNode) -> bool:
    """Reshape, Transpose, Reshape: the channels of some groups interleaved; whether that is what begins here."""
    source, chain = low.read(node), [node]
    while len(chain) < 8 and len(users := low.users.get(name := chain[-1].outputs[0], [])) == 1 == low.uses[name]:
        chain.append(users[0])
        if chain[-1].op == "Reshape":
            break
    moved = [one for one in chain if one.op not in QDQ_OPS]
    names, value = [one.op for one in moved], low.program.values[source]
    if names != ["Reshape", "Transpose", "Reshape"] or moved[1].attributes.get("perm") != [0, 2, 1, 3, 4]:
        return False
    axes = layout_ops.rearranged(low, node) if low.axes_of(node.inputs[0]) == layout.of_map(value) else None
    groups, each, *sides = (0, 0) if axes is None else layout.sides_of(axes)
    if axes is None or groups * each != value.c or sides != [value.h, value.w]:
        return False
    low.skip |= {id(one) for one in chain[:-1]}  # bytes that are moved stay as they are
    emitted = low.emit("shuffle", source, value.like(value.h, value.w, value.c), groups=groups)
    low.bind(chain[-2], emitted, layout.reshaped_axes(layout.of_map(value), (each, groups, *sides)))
    return True


def _concat(low: Lowering, node: OnnxNode) -> None:
    if windows.lower_concat(low, node) or slices.focus(low, node) or slices.again(low, node) or _turned(low, node):
        return
    if node.attributes.get("axis") == 1 and not all(_is_map(low, name) for name in node.inputs):
        rows = [low.series.get(name) or [(low.read(node, i), low.axes_of(name))] for i, name in enumerate(node.inputs)]
        merged = [one for part in rows for one in part]
        if len({layout.sides_of(axes)[1:] for _, axes in merged}) > 1:
            low.refuse(node, "rows of different lengths")
        low.series[node.outputs[0]] = merged
        return
    if node.attributes.get("axis") != 1:
        low.refuse(node, "an axis other than the channels")
    parts = [low.value(node, place) for place in range(len(node.inputs))]
    _of_one_rank(low, node)
    values = low.program.values
    first = values[parts[0]]
    values.append(FeatureMap(first.h, first.w, sum(values[part].c for part in parts)))
    concatenated, offset = len(values) - 1, 0
    for part in parts:
        value = values[part]
        if (value.h, value.w) != (first.h, first.w):
            low.refuse(node, "maps of two sizes")
        # a layer writes its slice itself, unless its output is a slice already or has slices of its own
        alone = part in low.maker and value.parent < 0 and parts.count(part) == 1
        maker = low.maker.get(part)
        if alone and value.type == "uint8":
            # bytes are those of the concatenated map; what they clip stays clipped
            alone = (
                maker is not None
                and maker.kind in FUSES_ACTIVATION
                and maker.act == "none"
                and low.value_uses[part] <= 1
            )
            if alone and maker is not None:
                maker.act, maker.bound = "clip", value.range()
                value.type, value.scale, value.zero = "float32", 1.0, 0
        if alone and not any(other.parent == part for other in values):
            value.parent, value.first = concatenated, offset
        else:
            copied = low.emit("copy", part, FeatureMap(value.h, value.w, value.c))
            values[copied].parent, values[copied].first = concatenated, offset
        offset += value.c
    low.bind(node, concatenated)


def _turned(low: Lowering, node: OnnxNode) -> bool:
    """Maps flattened to (C, positions) side by side, then transposed: rows behind rows; whether a Concat begins that."""
    name, readers = node.outputs[0], low.users.get(node.outputs[0], [])
    parts = [(low.names[one], low.axes_of(one)) for one in node.inputs if one in low.names]
    flat = len(parts) == len(node.inputs) and all(len(axes) == 2 for _, axes in parts)
    if (
        not flat
        or node.attributes.get("axis") not in (2, -1)
        or len({layout.sides_of(axes)[0] for _, axes in parts}) > 1
    ):
        return False
    if len(readers) != 1 or low.uses[name] != 1 or readers[0].op != "Transpose":
        return False
    if readers[0].attributes.get("perm") != [0, 2, 1]:
        return False
    low.skip.add(id(readers[0]))
    low.series[readers[0].outputs[0]] = [(value, (axes[1], axes[0])) for value, axes in parts]
    return True


def _alike(low: Lowering, node: OnnxNode) -> layout.Axes | None:
    """The axes of two maps of one size whose axes are not channels, height, width, but the same; None for others."""
    a, b = node.inputs
    if a not in low.names or b not in low.names or low.axes_of(a) != low.axes_of(b):
        return None
    one, other = low.program.values[low.names[a]], low.program.values[low.names[b]]
    usual = low.axes_of(a) == layout.of_map(one) or len(low.axes_of(a)) == 1
    return None if usual or (one.h, one.w, one.c) != (other.h, other.w, other.c) else low.axes_of(a)


def _of_one_rank(low: Lowering, node: OnnxNode) -> None:
    """Raises InputError where a row of channels meets a map."""
    if len({len(low.axes_of(name)) for name in node.inputs}) > 1:
        low.refuse(node, "its inputs have different numbers of axes")


def _is_map(low: Lowering, name: str) -> bool:
    """Whether a name is a map, flattened to its channels or not: such are concatenated by channels, others as rows."""
    if name not in low.names:
        return False
    value, axes = low.program.values[low.names[name]], low.axes_of(name)
    return axes == layout.of_map(value) or (value.h * value.w == 1 and len(axes) == 1)


def _slices(low: Lowering, node: OnnxNode) -> None:
    if node.op == "Slice" and windows.cut(low, node):
        return
    source, at = low.value(node), node.attributes
    value = low.program.values[source]
    if node.op == "Split":
        sizes, count = low.ints(node, 1, "split"), len(node.outputs)
        axis = at.get("axis", 0)
        if not 1 <= axis <= len(low.axes_of(node.inputs[0])):
            low.refuse(node, "the batch as its axis")
        side = (value.c, value.h, value.w)[axis - 1]
        if at.get("num_outputs", count) != count or (sizes is not None and "num_outputs" in at):
            low.refuse(node, f"{count} outputs")
        each = sizes
        if each is None:  # equal parts, the last one smaller where the number of parts is given
            equal = -(-side // count)
            each = [equal] * (count - 1) + [side - equal * (count - 1)]
            if "num_outputs" not in at and side % count:
                low.refuse(node, f"{count} equal parts of {side}")
        if len(each) != count or min(each) < 1 or sum(each) != side:
            low.refuse(node, f"{count} parts of {str(each)[:60]} of {side}")
        starts = [sum(each[:place]) for place in range(count)]
        if axis > 1:
            for name, begin, size in zip(node.outputs, starts, each):
                lines, every = range(begin, begin + size), (range(value.h), range(value.w))
                rows, columns = (lines, every[1]) if axis == 2 else (every[0], lines)
                if name:
                    low.names[name] = slices.cropped(low, source, rows, columns)
                    low.value_uses[low.names[name]] = low.uses.get(name, 0)
            return
    else:
        channels, rows, columns = _chosen(low, node, value)
        full_map = rows == range(value.h) and columns == range(value.w)
        if channels == range(value.c):
            low.alias(node, source) if full_map else low.bind(node, slices.crop_map(low, source, rows, columns))
            return
        source = source if full_map else slices.crop_map(low, source, rows, columns)
        if channels.step != 1:
            low.bind(node, slices.select_channels(low, node, source, channels))
            return
        value, first, last = low.program.values[source], channels.start, channels.stop
        starts, each = [first], [last - first]
    base = value.parent if value.parent >= 0 else source
    for name, begin, size in zip(node.outputs, starts, each):
        part = value.like(value.h, value.w, size)
        part.parent, part.first = base, value.first + begin
        low.program.values.append(part)
        if not name:
            continue
        low.names[name] = len(low.program.values) - 1
        if len(low.axes_of(node.inputs[0])) == 1:
            low.axes[name] = layout.of_map(part)[:1]
        low.value_uses[low.names[name]] = low.uses.get(name, 0)


def _chosen(low: Lowering, node: OnnxNode, value: FeatureMap) -> list[range]:
    """The channels, rows and columns of a map that a Slice leaves. Raises InputError."""
    start, end, axes, steps = slice_bounds(low, node)
    rank = len(low.axes_of(node.inputs[0])) + 1
    axes = normalized_axes(low, node, range(len(start)) if axes is None else axes, rank)
    sides, chosen = (value.c, value.h, value.w), [range(value.c), range(value.h), range(value.w)]
    for axis, first, last, step in zip(axes, start, end, steps, strict=True):
        if axis == 0 and (first, step) == (0, 1) and (last >= 2**31 - 1 or last == (low.onnx.input.shape or ())[0]):
            continue  # all of the batch
        if axis == 0:
            low.refuse(node, "part of the batch")
        # below -side a backward slice runs to the first place, which Python writes as None
        stop = None if step < 0 and last < -sides[axis - 1] else last
        chosen[axis - 1] = range(sides[axis - 1])[slice(first, stop, step)]
        if not chosen[axis - 1]:
            low.refuse(node, f"nothing of axis {axis}")
    return chosen


HANDLERS: dict[str, Handler] = {
    "Abs": arithmetic.absolute,
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": arithmetic.cast,
    "Clip": _clip,
    "Concat": _concat,
    "DequantizeLinear": quantised.dequantise,
    "Conv": _conv,
    "ConvTranspose": heads.conv_transpose,
    "DepthToSpace": heads.depth_to_space,
    "Div": _less_or_over,
    "Expand": arithmetic.expand,
    "Gather": slices.gather,
    "Gemm": dense.gemm,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": reductions.largest,
    "LeakyRelu": _leaky,
    "LogSoftmax": arithmetic.log_softmax,
    "MatMul": dense.gemm,
    "Max": arithmetic.extreme,
    "MaxPool": _pool,
    "Min": arithmetic.extreme,
    "Mul": _mul,
    "PRelu": gates.sloped,
    "Pad": padding.pad,
    "Pow": arithmetic.power,
    "QuantizeLinear": quantised.quantise,
    "ReduceMean": _mean,
    **{f"Reduce{kind}": reductions.reduce for kind in ("L1", "L2", "LogSumExp", "Max", "Min", "SumSquare")},
    "ReduceSum": stacks.total,
    "Reshape": _reshape,
    "Resize": heads.resize,
    "Shape": shapes.lower_shape,
    "Size": shapes.lower_shape,
    "Slice": _slices,
    "Softmax": heads.lower_softmax,
    "Split": _slices,
    "Sub": _less_or_over,
    "Transpose": layout_ops.transpose,
    "Unsqueeze": distances.unsqueeze,
    "Upsample": heads.resize,
    **dict.fromkeys(RESHAPES, layout_ops.lower_reshape),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(arithmetic.UNARY, arithmetic.unary),
    "HardSigmoid": _hard_sigmoid,
    "Identity": Lowering.pass_on,
    "Dropout": _dropout,
}


def lower(onnx: OnnxModel) -> Program:
    """The program of an ONNX graph. Raises InputError where the engine lacks an operator."""
    with np.errstate(all="ignore"):  # infinities and NaN among weights flow on, as in every runtime
        return _run(Lowering(_spelt_out(onnx), HANDLERS, shapes.ARITHMETIC))


def _run(low: Lowering) -> Program:
    """All nodes in their order. Raises InputError, naming the node, where the engine has no operation for it."""
    if low.onnx.opset > schema.LATEST_OPSET:
        known = f"1 to {schema.LATEST_OPSET}"
        raise InputError(f"ONNX operator set {low.onnx.opset}", known, "export the network for one of these")
    for node in low.onnx.nodes:  # of all, as handlers look at what comes behind theirs
        check(low, node)
    values, operations = low.program.values, low.program.operations
    for node in low.onnx.nodes:
        quantised.follow_bytes(low, node)
        if id(node) in low.skip or fold(low, node) or shapes.follow(low, node):
            continue
        handler = low.handlers.get(node.op)
        if handler is None:
            low.refuse(node, "the engine has no such operator")
        before = len(values), len(operations)
        forward = from_the_first(low, node)
        if not lower_in_order(low, forward, handler):
            handler(low, forward)
        for value in values[before[0] :]:
            if not value.fits():
                low.refuse(node, f"a map of {value.c} channels and {value.h} x {value.w}")
        for operation in operations[before[1] :]:
            if not operation.fits():
                low.refuse(
                    node, f"a kernel of {operation.kernel}, strides {operation.stride} or padding {operation.pads}"
                )
    for one in low.onnx.outputs:
        if one.type not in (0, FLOAT) or one.name in low.bytes:
            raise InputError(
                f"an output {one.name[:60]!r} of type {one.type}",
                "float32 (1)",
                "name the outputs, or leave that one out",
            )
    low.program.outputs = [low.output(one.name) for one in low.onnx.outputs]
    if not operations:
        raise InputError("a network that computes nothing", "one operation at least", "leave it out")
    return low.program


def _spelt_out(onnx: OnnxModel) -> OnnxModel:
    """The graph with some operators written as others: sums of many maps as sums of two, SpaceToDepth as slices."""
    tensors = dict(onnx.tensors)
    nodes = [other for node in onnx.nodes for other in _others(node, tensors)]
    return dataclasses.replace(onnx, nodes=tuple(nodes), tensors=tensors)


def _others(node: OnnxNode, tensors: dict[str, NDArray[Any] | None]) -> Iterator[OnnxNode]:
    out, count = node.outputs[0] if node.outputs else "", len(node.inputs)
    if node.op == "Mean" and out and count:
        tensors[f"{out}\0share"] = np.float32(1 / count) * np.ones((), np.float32)
        total = dataclasses.replace(node, op="Sum", outputs=(f"{out}\0sum",))
        yield from _others(total, tensors)
        yield dataclasses.replace(node, op="Mul", inputs=(f"{out}\0sum", f"{out}\0share"), attributes={})
    elif node.op == "Sum" and out and count:
        last, *others = node.inputs
        for place, name in enumerate(others, 1):
            sum_name = f"{out}, {place} added" if place < len(others) else out
            yield dataclasses.replace(node, op="Add", inputs=(last, name), outputs=(sum_name,), attributes={})
            last = sum_name
        if not others:
            yield dataclasses.replace(node, op="Identity", attributes={})
    elif node.op == "SpaceToDepth" and out and count == 1:
        block = node.attributes.get("blocksize")
        if not isinstance(block, int) or not 1 <= block <= MOST_STRIDE or len(node.attributes) > 1:
            yield node
            return
        row = {name: np.array(numbers, np.int64) for name, numbers in (("axes", (2, 3)), ("steps", (block, block)))}
        row["ends"] = np.array((MOST_END, MOST_END), np.int64)
        for name, numbers in row.items():
            tensors[f"{out}\0{name}"] = numbers
        parts = []
        for top, left in np.ndindex(block, block):
            tensors[f"{out}\0{top} {left}"] = np.array((top, left), np.int64)
            parts.append(f"{out}\0from {top} {left}")
            places = (f"{out}\0{top} {left}", *(f"{out}\0{name}" for name in ("ends", "axes", "steps")))
            yield OnnxNode("Slice", node.name, (node.inputs[0], *places), (parts[-1],), {})
        yield OnnxNode("Concat", node.name, tuple(parts), node.outputs, {"axis": 1})
    else:
        yield node
