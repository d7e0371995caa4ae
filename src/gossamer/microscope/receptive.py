"""The receptive field of each value: how many input pixels it sees, and the step between its positions."""

from __future__ import annotations

from typing import NamedTuple

from gossamer.analysis.graph import Graph, Node

Axis = tuple[float, float]  # size of what is seen and step between positions, in input pixels

POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d", "max_pool2d"})
RESIZES = frozenset({"upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d"})
# each position of their output depends on all positions of their input
GLOBAL = frozenset({"mm", "addmm", "bmm", "baddbmm", "adaptive_max_pool2d", "_adaptive_avg_pool2d"})


class ReceptiveField(NamedTuple):
    """Rows and columns; None for all of the image."""

    rows: Axis | None
    columns: Axis | None

    def text(self) -> str:
        """Such as "35x35", or "all"."""
        if self.rows is None or self.columns is None:
            return "all"
        return f"{self.rows[0]:g}x{self.columns[0]:g}"


def receptive_fields(graph: Graph) -> dict[int, ReceptiveField]:
    """The field of each value that depends on the input, by index, the largest where branches merge.

    Size r and step j follow r' = r + (k - 1) * d * j and j' = j * s for a kernel k of dilation d and stride s.
    Source: Araujo et al. 2019, Computing Receptive Fields of Convolutional Neural Networks, equation 2.
    """
    fields = {index: ReceptiveField((1.0, 1.0), (1.0, 1.0)) for index in graph.inputs}
    for node in graph.nodes:
        seen = [fields[index] for index in node.inputs if index in fields]
        if not seen:
            continue
        merged = ReceptiveField(_largest([f.rows for f in seen]), _largest([f.columns for f in seen]))
        field = _through(graph, node, merged)
        for index in node.outputs:
            fields[index] = field
    return fields


def _through(graph: Graph, node: Node, field: ReceptiveField) -> ReceptiveField:
    shape = graph.values[node.inputs[0]].shape
    if node.op == "convolution" and len(shape) == 4:
        kernel = graph.values[node.inputs[1]].shape[2:]
        at = node.attributes
        axes = zip(field, kernel, _pair(at["stride"]), _pair(at["dilation"]))
        return ReceptiveField(*(_window(axis, k, s, d, bool(at["transposed"])) for axis, k, s, d in axes))
    if node.op in POOLS:
        kernel = _pair(node.attributes["kernel_size"])
        axes = zip(
            field, kernel, _pair(node.attributes.get("stride") or kernel), _pair(node.attributes.get("dilation", 1))
        )
        return ReceptiveField(*(_window(axis, k, s, d, False) for axis, k, s, d in axes))
    if node.op in RESIZES:
        out = graph.values[node.outputs[0]].shape
        scaled = [
            None if axis is None else (axis[0] + (axis[1] if "linear" in node.op else 0), axis[1] * a / b)
            for axis, a, b in zip(field, shape[-2:], out[-2:])
        ]
        return ReceptiveField(*scaled)
    if node.op in GLOBAL or node.op in ("mean", "amax", "sum"):
        if node.op in GLOBAL:
            return ReceptiveField(None, None)
        dims = node.attributes.get("dim")
        over = list(range(len(shape))) if not dims else [d % len(shape) for d in _pair(dims)]
        return ReceptiveField(*(None if len(shape) - 2 + n in over else axis for n, axis in enumerate(field)))
    return field


def _window(axis: Axis | None, kernel: int, stride: int, dilation: int, transposed: bool) -> Axis | None:
    if axis is None:
        return None
    size, step = axis
    if transposed:  # a position depends on ceil(k / s) positions of its input
        return size + (-(-kernel // stride) - 1) * step, step / stride
    return size + (kernel - 1) * dilation * step, step * stride


def _largest(axes: list[Axis | None]) -> Axis | None:
    known = [axis for axis in axes if axis is not None]
    return None if len(known) < len(axes) else (max(a[0] for a in known), max(a[1] for a in known))


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(value, int):
        return value, value
    return tuple(value) if len(value) != 1 else (value[0], value[0])
