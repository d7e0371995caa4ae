"""Activations that others write as several operators, or with numbers of their own for each channel."""

from __future__ import annotations

import numpy as np

from gossamer.compile import constants, layout
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import FeatureMap, LayerWeights
from gossamer.compile.scaling import Row
from gossamer.modelfile.onnx import OnnxNode

NEAR = 1e-6


def gate(low: Lowering, node: OnnxNode) -> bool:
    """Whether an Add begins x * clip(x + 3, 0, 6) / 6, or that without x, of which nothing else sees a part: then it is one."""
    place = 1 if _number(low, node, 1) == 3 else 0
    if _number(low, node, place) != 3:
        return False
    x = node.inputs[1 - place]
    clip = _only(low, node)
    if clip is None or clip.op != "Clip" or clip.inputs[0] != node.outputs[0]:
        return False
    if (_bound(low, clip, 1, "min"), _bound(low, clip, 2, "max")) != (0, 6):
        return False
    after = _only(low, clip)
    if after is None:
        return False
    chain = [node, clip, after]
    if _over_six(low, after, clip):
        last = _only(low, after)
        swish = last is not None and _times(last, after, x)
        chain += [last] if swish and last is not None else []
    else:
        swish, last = _times(after, clip, x), _only(low, after)
        if not swish or last is None or not _over_six(low, last, after):
            return False
        chain.append(last)
    if x not in low.names and x not in low.series:
        return False
    low.skip |= {id(one) for one in chain}
    act, uses = ("hard_swish", 2) if swish else ("hard_sigmoid", 1)
    low.activate(OnnxNode(node.op, node.name, (x,), chain[-1].outputs, {}), act, uses)
    return True


def _only(low: Lowering, node: OnnxNode) -> OnnxNode | None:
    """What alone reads a node's output, once."""
    name = node.outputs[0]
    readers = low.users.get(name, [])
    return readers[0] if len(readers) == 1 == low.uses[name] else None


def _number(low: Lowering, node: OnnxNode, place: int) -> float | None:
    """One number that is a constant input, though what makes it may stand behind what is looked at."""
    name = node.inputs[place] if place < len(node.inputs) else ""
    if name and name not in low.onnx.tensors and name in low.producer:
        constants.fold(low, low.producer[name])
    constant = low.onnx.tensors.get(name)
    return float(constant.reshape(())) if constant is not None and constant.size == 1 and constant.ndim <= 1 else None


def _bound(low: Lowering, node: OnnxNode, place: int, name: str) -> float | None:
    """Of a Clip: an attribute before operator set 11."""
    return node.attributes[name] if name in node.attributes else _number(low, node, place)


def _over_six(low: Lowering, node: OnnxNode, before: OnnxNode) -> bool:
    """Whether a node divides what another makes by six."""
    first = node.inputs[0] == before.outputs[0]
    by = _number(low, node, 1 if first else 0) if node.op == "Mul" or (first and node.op == "Div") else None
    return by is not None and abs((by * 6 if node.op == "Mul" else by / 6) - 1) < NEAR


def _times(node: OnnxNode, before: OnnxNode, x: str) -> bool:
    return node.op == "Mul" and sorted(node.inputs) == sorted((before.outputs[0], x))


def sloped(low: Lowering, node: OnnxNode) -> None:
    """PRelu: a leaky ReLU where all slopes are one, else relu(x) - slope * relu(-x), which is the same to the bit."""
    slopes, source = low.tensor(node, 1), low.read(node)
    value, axes = low.program.values[source], low.axes_of(node.inputs[0])
    if slopes is None or slopes.dtype != np.float32 or not slopes.size or not np.isfinite(slopes).all():
        low.refuse(node, "slopes that are not finite numbers in float32")
    first = float(slopes.reshape(-1)[0])
    if (slopes == first).all() and slopes.ndim <= len(axes) + 1:
        low.activate(node, "leaky_relu", bound=(first, 0.0))
        return
    row = layout.broadcast_channel_row(slopes, axes, value)
    if row is None:
        low.refuse(node, "slopes that are neither one number nor one per channel")
    none = np.zeros(value.c, np.float32)

    def affine(of: int, factor: Row, act: str = "none") -> int:
        out = FeatureMap(value.h, value.w, value.c)
        return low.emit("affine", of, out, act=act, weights=[LayerWeights(factor.astype(np.float32), none)])

    below = affine(affine(source, none - 1, "relu"), -row)
    above = low.activation(source, "relu", (0.0, 0.0))
    low.bind(node, low.emit("add", above, FeatureMap(value.h, value.w, value.c), other=below), axes)
