"""Activations, sums and products of maps, an activation or a residual addition fused into the layer before it."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossamer.compile import (
    arithmetic,
    broadcasting,
    gates,
    heads,
    layout,
    quantised,
    stacks,
)
from gossamer.compile.attributes import (
    refuse_mixed_ranks,
    scalar_input,
)
from gossamer.compile.lowering import NO_BOUND, Lowering
from gossamer.compile.program import FeatureMap, LayerWeights
from gossamer.modelfile.onnx import OnnxNode

UNARY = {
    "Relu": "relu",
    "HardSwish": "hard_swish",
    "HardSigmoid": "hard_sigmoid",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}
GATES = {"Sigmoid": "silu", "HardSigmoid": "hard_swish"}  # times its input


def clip(low: Lowering, node: OnnxNode) -> None:
    # attributes before operator set 11
    lower, upper = scalar_input(low, node, 1, "min"), scalar_input(low, node, 2, "max")
    least, most = -NO_BOUND if lower is None else lower, NO_BOUND if upper is None else upper
    if least > most:
        low.refuse(node, f"from {least:g} to {most:g}")
    if (least, most) == (-NO_BOUND, NO_BOUND):
        low.pass_on(node)
    elif (least, most) == (0.0, 6.0):
        low.activate(node, "relu6")
    elif (least, most) == (0.0, NO_BOUND):
        low.activate(node, "relu")
    else:
        low.activate(node, "clip", bound=(least, most))


def dropout(low: Lowering, node: OnnxNode) -> None:
    training = low.tensor(node, 2)
    if training is not None and training.any():
        low.refuse(node, "its training_mode is true")
    low.pass_on(node)


def leaky_relu(low: Lowering, node: OnnxNode) -> None:
    low.activate(node, "leaky_relu", bound=(float(node.attributes.get("alpha", 0.01)), 0.0))


def unary_activation(low: Lowering, node: OnnxNode) -> None:
    chain = low.match_gate_product(node) if node.op in GATES and node.inputs[0] in low.names else []
    if chain:  # x * sigmoid(x), x * hard_sigmoid(x)
        gate, product = (0.0, 0), chain[-1]
        if len(chain) > 2:
            quantised.follow_bytes(low, chain[1])
            gate = quantised.gate_rounding(low, chain[1], chain[2])
        low.skip |= {id(one) for one in chain[1:]}
        low.activate(node, GATES[node.op], uses=2, gate=gate)
        value = low.names[node.outputs[0]]
        low.names[product.outputs[0]], low.value_uses[value] = value, low.uses.get(product.outputs[0], 0)
        low.axes[product.outputs[0]] = low.axes_of(node.outputs[0])
        return
    low.activate(node, UNARY[node.op])


def hard_sigmoid(low: Lowering, node: OnnxNode) -> None:
    """The engine's own has slope 1/6 and 1/2 at 0; others are a line between 0 and 1."""
    alpha, beta = (node.attributes.get(name, usual) for name, usual in (("alpha", 0.2), ("beta", 0.5)))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        unary_activation(low, node)
        return

    def line(source: int, _: layout.Axes) -> int:
        value = low.program.values[source]
        layer = LayerWeights(np.full(value.c, alpha, np.float32), np.full(value.c, beta, np.float32))
        return low.emit(
            "affine", source, FeatureMap(value.h, value.w, value.c), act="clip", bound=(0.0, 1.0), weights=[layer]
        )

    low.each(node, line)


def add(low: Lowering, node: OnnxNode) -> None:
    if gates.gate(low, node) or heads.with_constant(low, node):
        return
    axes, a, b = _pair(low, node)
    va, vb = low.program.values[a], low.program.values[b]
    if (va.h, va.w, va.c) != (vb.h, vb.w, vb.c):
        low.bind(node, broadcasting.emit(low, "add", a, b), axes)
        return
    late, early = (a, b) if _written(low, a) > _written(low, b) else (b, a)
    maker = low.free_to_take(late)
    conv = (
        maker is not None and maker.kind == "conv" and maker.act == "none" and maker.other < 0 and maker.input != late
    )
    if maker is not None and conv and low.take_rounding(late, maker):
        maker.other = early
        low.bind(node, late, axes)
        return
    low.bind(node, low.emit("add", a, FeatureMap(va.h, va.w, va.c), other=b), axes)


def _written(low: Lowering, value: int) -> int:
    """The place of the operation behind which a map is whole; -1 for the network's input."""
    whole = value if value in low.maker else low.program.root(value)
    operations = enumerate(low.program.operations)
    return max((place for place, one in operations if whole in (one.out, low.program.root(one.out))), default=-1)


def multiply(low: Lowering, node: OnnxNode) -> None:
    if heads.with_constant(low, node) or stacks.weigh(low, node):
        return
    axes, a, b = _pair(low, node)
    one, other = low.program.values[a], low.program.values[b]
    if one.h * one.w == 1 < other.h * other.w or ((one.h, one.w) == (other.h, other.w) and one.c == 1):
        a, b = b, a
    low.bind(node, broadcasting.emit(low, "multiply", a, b), axes)


def subtract_or_divide(low: Lowering, node: OnnxNode) -> None:
    """Sub and Div, as Add and Mul of a map times -1 or of one over it."""
    a, b = node.inputs
    if node.op == "Div" and low.onnx.tensors.get(a) is not None and b in low.names:
        node = dataclasses.replace(node, op="Mul", inputs=(arithmetic.reciprocal(low, b), a))
    if heads.with_constant(low, node):
        return
    if a not in low.names or b not in low.names:
        low.refuse(node, "an input that is no map of the network")
    if node.op == "Sub":
        add(low, dataclasses.replace(node, op="Add", inputs=(a, arithmetic.negated(low, b))))
    else:
        multiply(low, dataclasses.replace(node, op="Mul", inputs=(a, arithmetic.reciprocal(low, b))))


def _pair(low: Lowering, node: OnnxNode) -> tuple[layout.Axes | None, int, int]:
    """The axes of a sum or product of two maps, None for the usual ones, and the maps. Raises InputError."""
    axes = broadcasting.common_axes(low, node)
    if axes is None:
        low.value(node, 0), low.value(node, 1)
        refuse_mixed_ranks(low, node)
        low.refuse(node, "maps of two sizes, of which one is not repeated along whole axes")
    a, b = low.read(node, 0), low.read(node, 1)
    one, other = low.program.values[a], low.program.values[b]
    usual = layout.of_map(FeatureMap(max(one.h, other.h), max(one.w, other.w), max(one.c, other.c)))
    return None if axes == usual else axes, a, b
