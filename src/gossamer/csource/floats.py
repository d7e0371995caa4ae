"""A program in float32 as steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import Array, FeatureMap, Operation, Program
from gossamer.csource.network import FLOAT, Network, Output, Step, View, refuse, written

PANEL = 8  # output channels that the kernels compute at once
LARGEST = float(np.finfo(np.float32).max)
SIMPLE = {"add": "add", "scale": "multiply", "multiply": "multiply", "activation": "copy", "copy": "copy"}
SIMPLE |= {
    kind: kind for kind in ("max_pool", "average_pool", "global_average", "shuffle", "softmax", "depth_to_space")
}


def float_network(program: Program) -> Network:
    """The steps of a program whose maps and weights are all float32. Raises InputError."""
    network = Network(FLOAT, program)
    network.add_input()
    for one in program.operations:
        network.steps.append(_step(network, one))
    _add_outputs(network)
    return written(network)


def _within_floats(act: str, bound: tuple[float, float]) -> tuple[float, float]:
    """The bounds of a clip; where it has none, C source has the largest finite number."""
    low, high = bound
    return (max(low, -LARGEST), min(high, LARGEST)) if act == "clip" else bound


def _step(network: Network, one: Operation) -> Step:
    source, out = network.view(one.input), network.view(one.out)
    other = network.view(one.other) if one.other >= 0 else None
    step = Step(
        SIMPLE.get(one.kind, one.kind),
        source,
        out,
        other,
        one.name,
        one.kernel,
        one.stride,
        one.pads,
        one.dilation,
        one.groups,
        one.count_padding,
        one.act,
        _within_floats(one.act, one.bound),
    )
    second = _within_floats(one.acts[1], one.bounds[1])
    if not np.isfinite(np.array([step.bound, second], np.float32)).all():
        raise refuse("bounds or a slope that are not finite", one.name)
    if one.kind == "conv":
        weight, bias = layer(one, 0)
        return of_conv(step, panels(weight.reshape(out.c, -1, *one.kernel), one.groups), bias)
    if one.kind == "block":
        if one.weights[0] is not None or one.weights[2] is not None:
            raise refuse("a fused block", one.name)
        weight, bias = layer(one, 1)
        across = np.ascontiguousarray(weight.reshape(out.c, -1).T)
        return replace(step, kind="depthwise", weight=across, bias=bias, act=one.acts[1], bound=second)
    if one.kind in ("affine", "resize"):
        weight, bias = layer(one, 0)
        return replace(step, weight=weight, bias=bias)
    if one.kind not in SIMPLE:
        raise refuse(f"an operation {one.kind}", one.name)
    return step


def layer(one: Operation, place: int) -> tuple[Array, Array]:
    """Weight and bias in float32. Raises InputError where they are bytes, or not finite."""
    found = one.weights[place]
    if found is None or found.type != "float32":
        raise refuse(f"weights in {'nothing' if found is None else found.type}", one.name)
    weight, bias = np.asarray(found.weight, np.float32), np.asarray(found.bias, np.float32).reshape(-1)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise refuse("weights that are not finite", one.name)
    return weight, bias


def panels(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """(out, in / groups, rows, columns) in the order in which kernels read: for each group and PANEL outputs its taps."""
    each = len(weight) // groups
    parts = []
    for group in range(groups):
        for first in range(group * each, (group + 1) * each, PANEL):
            panel = weight[first : min(first + PANEL, (group + 1) * each)]
            parts.append(panel.transpose(2, 3, 1, 0).reshape(-1))
    return np.concatenate(parts)


def of_conv(step: Step, weight: NDArray[Any], bias: NDArray[Any]) -> Step:
    """A convolution; as a pointwise one where it reads one position, or a whole map, for each of its own."""
    source, out = step.input, step.out
    step = replace(step, weight=weight, bias=bias)
    whole = step.kernel == (source.h, source.w) and (out.h, out.w) == (1, 1) and source.ld == source.c
    # a dilated kernel of these sides lies on padding behind the map
    if whole and step.groups == 1 and not any(step.pads[:2]) and (step.dilation == 1 or step.kernel == (1, 1)):
        flat = View(source.buffer, source.first, 1, 1, source.h * source.w * source.c, source.h * source.w * source.c)
        return replace(step, kind="pointwise", input=flat, kernel=(1, 1), stride=(1, 1), pads=(0, 0, 0, 0), dilation=1)
    same = (out.h, out.w) == (source.h, source.w) and not any(step.pads[:2])
    if step.kernel == (1, 1) and step.stride == (1, 1) and same:
        other = None if step.other is None else step.other.flat()
        return replace(
            step,
            kind="pointwise",
            sides=(out.h, out.w),
            input=source.flat(),
            out=out.flat(),
            other=other,
            pads=(0, 0, 0, 0),
            dilation=1,
        )
    return step


def _add_outputs(network: Network) -> None:
    """The outputs, by steps that copy maps into them; an only map of an only output is the output."""
    program, first = network.program, 0
    for one in program.outputs:
        count = math.prod(one.shape)
        network.outputs.append(Output(one.name, one.shape, first, count))
        first += count
    pieces = [piece for one in program.outputs for piece in one.pieces]
    if len(pieces) == 1 and pieces[0][0] != program.input:
        view = network.view(pieces[0][0])
        if network.whole(view) and plain(program.values[pieces[0][0]], pieces[0][1]):
            network.output = view.buffer
            return
    network.output, at = network.new(first), 0
    for value, last in pieces:
        view = network.view(value)
        count = view.h * view.w * view.c
        kind = "rows" if last or plain(program.values[value], last) else "planes"
        network.steps.append(Step(kind, view, View(network.output, at, 1, 1, count, count), name="output"))
        at += count


def plain(one: FeatureMap, channels_last: bool) -> bool:
    """Whether a map's numbers lie in the order of an output."""
    return channels_last or one.c == 1 or one.h * one.w == 1
