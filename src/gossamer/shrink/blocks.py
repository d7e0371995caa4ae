"""Residual blocks that can go as a whole: which there are, and what a network costs without them.

A block with an identity shortcut leaves the shortcut where its branch goes. In the integer programme it is one more choice of
two, all or nothing. What its layers cost is taken off, and so is what narrower channels would save in them, which there is
nothing left to save from: where a block goes, the channels that are only its own stand in the tables at full width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.analysis.channels import ChannelGroup
from gossamer.blocks.drop import DropPath
from gossamer.networks.changes import Change, apply_changes, drop_block, without_branch
from gossamer.shrink.widths import CostModel, Layer, Numbers, mac_model, size_model

WHOLE = (1, 0)  # the candidates of a block: it is kept, it goes
SAME = 1e-4  # of the largest output: a block without its branch computes what the branch times zero does


@dataclass(frozen=True)
class Block:
    """A block that can go: its module, its parameters, and the channel groups (by number) that lie in it alone."""

    name: str
    parameters: frozenset[str]
    inner: tuple[int, ...]


class _Scaled(nn.Module):
    """In the place of a block's `DropPath`: its branch times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def scale_branches(network: nn.Module, names: Sequence[str], factor: float) -> list[nn.Parameter]:
    """Let the branches of these blocks be multiplied by a number each, in place; returns the numbers."""
    scaled = []
    for name in names:
        one = _Scaled(factor)
        network.get_submodule(name).drop_path = one
        scaled.append(one.factor)
    return scaled


def droppable(network: nn.Module, shape: tuple[int, ...], groups: Sequence[ChannelGroup]) -> tuple[Block, ...]:
    """The blocks of a network that can go, in order. shape: (N, C, H, W) of its input.

    Each was tried: the network without it computes what it does with the branch at zero. One whose layers are read from
    outside it, as by a detector's head, is left out.
    """
    images = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0))
    blocks = []
    for name, module in network.named_modules():
        if not name or without_branch(module) is None or not isinstance(getattr(module, "drop_path", None), DropPath):
            continue
        if not _runs_without(network, name, images):
            continue
        inside = f"{name}."
        parameters = frozenset(key for key, _ in network.named_parameters() if key.startswith(inside))
        inner = tuple(
            number for number, group in enumerate(groups) if all(key.startswith(inside) for key, _ in group.axes)
        )
        if parameters and inner:
            blocks.append(Block(name, parameters, inner))
    return tuple(blocks)


def _runs_without(network: nn.Module, name: str, images: Tensor) -> bool:
    silent = copy.deepcopy(network).eval()
    scale_branches(silent, [name], 0.0)
    edited = copy.deepcopy(network).eval()
    apply_changes(edited, [drop_block(name)])
    with torch.no_grad():
        try:
            expected, actual = silent(images), edited(images)
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError):
            return False  # whatever reads from the block finds it gone
    pairs = [(expected, actual)] if isinstance(expected, Tensor) else [(expected[key], actual[key]) for key in expected]
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= SAME * (1e-6 + a.abs().max())) for a, b in pairs if a.numel()
    )


def block_importance(blocks: Sequence[Block], values: Sequence[Numbers], change: Sequence[float]) -> list[Numbers]:
    """For each block one number on the scale of the channels'. values: of the channels of each group; change: of the loss by a
    block, squared and of first order, 0 where that is not known.

    A block matters at least as much as all the channels between two of its layers.
    """
    return [
        np.asarray([max(gone, *(float(values[number].sum()) for number in block.inner))])
        for block, gone in zip(blocks, change, strict=True)
    ]


def add_blocks(
    costs: Mapping[str, CostModel],
    layers: Sequence[Layer],
    groups: Sequence[ChannelGroup],
    options: Sequence[Sequence[int]],
    blocks: Sequence[Block],
    parameters: Mapping[str, Sequence[int]],
) -> None:
    """Add the choice of each block to the costs `macs` and `size`. parameters: the shape of each."""
    for block in blocks:
        own = [layer for layer in layers if layer.weight in block.parameters]
        macs = sum(layer.positions * layer.taps * layer.output * layer.input for layer in own)
        add_block(costs["macs"], float(macs), mac_model(own, options, 0).unary)
        shapes = {name: parameters[name] for name in block.parameters}
        size = 4.0 * sum(prod(shape) for shape in shapes.values())
        add_block(costs["size"], size, size_model(own, groups, options, shapes).unary)


def add_block(model: CostModel, total: float, saved: Sequence[Numbers]) -> None:
    """One more choice, all or nothing, of what costs `total`. saved: of it, by the candidates of each group, 0 or less."""
    number = len(model.unary)
    model.unary.append(np.asarray([0.0, -total]))
    for g, table in enumerate(saved):
        if table.any():
            model.add_pair(g, number, np.outer(table, [0.0, -1.0]))


def drops(blocks: Sequence[Block], choice: Sequence[int]) -> tuple[Change, ...]:
    """The edits of the blocks that go. choice: of each block, 1 where it goes."""
    return tuple(drop_block(block.name) for block, gone in zip(blocks, choice, strict=True) if gone)
