"""Batch norms into the convolutions before them, ahead of the export: half as many operations to follow, half the time."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gossamer.analysis.graph import Graph, Node, trace

NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm")


def fold_norms(model: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Fold each batch norm of `model`, which must be in eval mode, whose one input is a convolution that nothing else reads.

    shape: (N, C, H, W) of an input. Changes `model`: a folded norm becomes an identity. Returns how many were. What runs
    more than once, or whose weights are used elsewhere, stays as it is. Raises InputError where the model cannot be traced.
    """
    graph = trace(model, shape)
    modules = dict(model.named_modules())
    runs: dict[str, int] = {}
    for node in graph.nodes:
        runs[node.module] = runs.get(node.module, 0) + 1
    folded = 0
    for node in graph.nodes:
        before = _convolution(graph, node)
        if before is None or runs[node.module] > 1 or runs[before.module] > 1:
            continue
        layer, norm = modules[before.module], modules[node.module]
        if not isinstance(layer, nn.Conv2d) or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        # in float64, so that a weight is rounded once, not at each of three products
        fused = fuse_conv_bn_eval(copy.deepcopy(layer).double(), copy.deepcopy(norm).double())
        _replace(model, before.module, fused.to(layer.weight.dtype))
        _replace(model, node.module, nn.Identity())
        folded += 1
    return folded


def _convolution(graph: Graph, node: Node) -> Node | None:
    """The convolution that a batch norm alone reads, where it has weights of its own."""
    if node.op not in NORMS:
        return None
    source = graph.values[node.inputs[0]]
    if source.node < 0 or graph.consumers[source.index] != (node.index,) or source.index in graph.outputs:
        return None
    before = graph.nodes[source.node]
    weights = [graph.values[i] for i in before.inputs[1:]]
    if before.op != "convolution" or any(len(graph.consumers[value.index]) > 1 for value in weights):
        return None
    return before if weights[0].name == f"{before.module}.weight".lstrip(".") else None


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
