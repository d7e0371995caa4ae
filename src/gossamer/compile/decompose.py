"""Operators written as others before lowering: sums of many maps, logarithms of sums, SpaceToDepth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import MOST_STRIDE
from gossamer.modelfile.onnx import OnnxModel, OnnxNode

MOST_END = 2**63 - 1  # of a Slice: to the last place


def decomposed(onnx: OnnxModel) -> OnnxModel:
    """The graph with some operators written as others: sums of many maps as sums of two, SpaceToDepth as slices and the like."""
    tensors = dict(onnx.tensors)
    nodes = [other for node in onnx.nodes for other in _replacements(node, tensors, onnx.opset)]
    return dataclasses.replace(onnx, nodes=tuple(nodes), tensors=tensors)


def _replacements(node: OnnxNode, tensors: dict[str, NDArray[Any] | None], opset: int) -> Iterator[OnnxNode]:
    out, count = node.outputs[0] if node.outputs else "", len(node.inputs)
    if node.op == "Mean" and out and count:
        tensors[f"{out}\0share"] = np.float32(1 / count) * np.ones((), np.float32)
        total = dataclasses.replace(node, op="Sum", outputs=(f"{out}\0sum",))
        yield from _replacements(total, tensors, opset)
        yield dataclasses.replace(node, op="Mul", inputs=(f"{out}\0sum", f"{out}\0share"), attributes={})
    elif node.op == "Sum" and out and count:
        last, *others = node.inputs
        for place, name in enumerate(others, 1):
            sum_name = f"{out}, {place} added" if place < len(others) else out
            yield dataclasses.replace(node, op="Add", inputs=(last, name), outputs=(sum_name,), attributes={})
            last = sum_name
        if not others:
            yield dataclasses.replace(node, op="Identity", attributes={})
    elif node.op == "ReduceLogSum" and out and count:
        axes, at = node.attributes.get("axes"), dict(node.attributes)
        inputs = node.inputs
        if isinstance(axes, list) and 13 <= opset < 18 and count == 1:  # of a sum they are an input by then
            tensors[f"{out}\0axes"] = np.array(axes, np.int64)
            inputs = (*inputs, f"{out}\0axes")
            del at["axes"]
        yield dataclasses.replace(node, op="ReduceSum", inputs=inputs, outputs=(f"{out}\0sum",), attributes=at)
        yield OnnxNode("Log", node.name, (f"{out}\0sum",), node.outputs, {})
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
