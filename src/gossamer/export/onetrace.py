"""torch's exporter without its second trace of a network, where that would change nothing: half of the time of an export.

The exporter traces a network, then its graph once more, to replace operators without an ONNX function by others. Most
networks have two of those: the average over the whole map, which is a mean, and dropout, which does nothing in evaluation.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

# Of the operators that consist of others, those that a second trace keeps, and those below them, of which it makes what has the
# same nodes in the file. Of the rest, such as a batch norm, it leaves nothing, whether or not the table says so.
_ATEN = torch.ops.aten
KEPT = frozenset(
    [
        _ATEN.conv2d.default,
        _ATEN.conv2d.padding,
        _ATEN.conv_transpose2d.input,
        _ATEN.linear.default,
        _ATEN.matmul.default,
        _ATEN.max_pool2d.default,
        _ATEN.pad.default,
        _ATEN.softmax.int,
        _ATEN.layer_norm.default,
        _ATEN.sym_size.int,
        _ATEN.flatten.using_ints,
        _ATEN.reshape.default,
        _ATEN.chunk.default,
    ]
)
_LOCK = threading.RLock()  # a method of torch is replaced for a while


@contextlib.contextmanager
def one_trace() -> Iterator[list[ExportedProgram]]:
    """`torch.onnx.export` within it traces a graph again only where another operator is to be replaced, or one writes.

    Gives the programs that were traced once, which fill while it exports. Other threads that ask for it wait; what they
    decompose themselves is traced again.
    """
    once: list[ExportedProgram] = []
    thread = threading.get_ident()

    def run_decompositions(self: ExportedProgram, *given: Any, **named: Any) -> Any:
        nodes = list(self.graph.nodes)
        others = threading.get_ident() != thread or len(given) != 1 or given[0] is None or named
        if others or not all(_stays(node, given[0]) for node in nodes):
            return traced_again(self, *given, **named)
        for node in nodes:
            _replace(node)
        once.append(self)
        return self

    with _LOCK:
        traced_again: Any = ExportedProgram.run_decompositions
        ExportedProgram.run_decompositions = run_decompositions  # type: ignore[method-assign]
        try:
            yield once
        finally:
            ExportedProgram.run_decompositions = traced_again  # type: ignore[method-assign]


def _stays(node: Node, table: Any) -> bool:
    """Whether a node of the graph has an ONNX function, or is replaced here. table: the operators to be replaced."""
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    if not isinstance(node.target, torch._ops.OpOverload):  # arithmetic of sizes, control flow
        return node.target is operator.getitem
    if _is_mean(node) or _is_idle(node):
        # the program knows its outputs by the names of their nodes
        return all(user.op != "output" for user in node.users)
    name: str = node.target.name()  # type: ignore[no-untyped-call]
    if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
        return node.target in KEPT and node.target not in table
    return node.target not in table and not node.target._schema.is_mutable


def _is_mean(node: Node) -> bool:
    """An average over the whole map."""
    return node.target is torch.ops.aten.adaptive_avg_pool2d.default and node.args[1] == [1, 1]


def _is_idle(node: Node) -> bool:
    """A dropout that is off."""
    return node.target is torch.ops.aten.dropout.default and node.args[2] is False


def _replace(node: Node) -> None:
    if _is_idle(node):
        assert isinstance(node.args[0], Node)
        node.replace_all_uses_with(node.args[0])
        node.graph.erase_node(node)
    elif _is_mean(node):
        with node.graph.inserting_before(node):
            mean = node.graph.call_function(torch.ops.aten.mean.dim, (node.args[0], [-1, -2], True))
        mean.meta = node.meta
        node.replace_all_uses_with(mean)
        node.graph.erase_node(node)
