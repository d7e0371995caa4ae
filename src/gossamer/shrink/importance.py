"""How much each channel matters: what the loss, or the weights alone, say of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gossamer.analysis.channels import ChannelGroup
from gossamer.data.loader import Batches, prefetch
from gossamer.data.source import Data
from gossamer.errors import InputError
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings
from gossamer.shrink.blocks import Block, block_importance, scale_branches
from gossamer.shrink.widths import Numbers
from gossamer.tasks.base import Task

IMAGES = 512  # training images on which the loss is differentiated, at most
FEW = 16  # images of one gradient: its square is the mean of a few, not of one
Values = Callable[[str, int], Numbers]  # of a parameter by name and axis: a number per index


def channel_importance(
    kind: str,
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    task: Task,
    data: Data,
    preprocess: Preprocess,
    progress: Progress,
    blocks: Sequence[Block] = (),
) -> list[Numbers]:
    """For each group a number per channel, 0 or more, then for each block one; larger matters more. kind: a name in `KINDS`.

    Raises InputError where the loss or a weight is not finite, or a network has no norms for `bn-scale`, and what reading images raises.
    """
    if kind == "taylor":
        values, change = _taylor(network, groups, task, data, preprocess, progress, blocks)
    else:
        values, change = KINDS[kind](network, groups), [0.0] * len(blocks)
    if not all(np.isfinite(one).all() for one in values):
        raise InputError(
            f"importance {kind} that is NaN or infinite", "finite weights and gradients", "train the run anew"
        )
    return [*values, *block_importance(blocks, values, change)]


def _taylor(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    task: Task,
    data: Data,
    preprocess: Preprocess,
    progress: Progress,
    blocks: Sequence[Block],
) -> tuple[list[Numbers], list[float]]:
    """The squared first-order change of the loss when a channel's readers lose it, the mean over training batches.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning (CVPR 2019, 1906.10771), equation 8; taken
    over all weights that read the channel, so that a channel that several layers read is judged by all of them. The second
    list has the same of the branch of each block.
    """
    model = copy.deepcopy(network).train()
    for module in model.modules():
        if isinstance(module, (_NormBase, nn.Dropout, nn.Dropout2d)):
            module.eval()  # the loss of the network that is deployed
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    scales = scale_branches(model, [block.name for block in blocks], 1.0)
    for frozen in task.frozen_modules():
        frozen.eval().requires_grad_(False)
    parameters = dict(model.named_parameters())
    totals = [np.zeros(group.size) for group in groups]
    of_blocks = [0.0] * len(blocks)
    settings = task.settings
    size = min(FEW, max(1, settings.batch // settings.accumulate))
    steps = max(1, min(IMAGES, len(data.train)) // size)
    for images, targets in progress.track(
        _batches(settings, task, data, preprocess, size, steps), steps, "importance of channels"
    ):
        model.zero_grad(set_to_none=True)
        loss = task.loss(model(images), targets, images).mean()
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"a loss of {float(loss.detach())} on training images", "a finite loss", "train the run anew"
            )
        torch.autograd.backward(loss)

        def change(name: str, axis: int) -> Numbers:
            parameter = parameters[name]
            if parameter.grad is None:
                return np.zeros(parameter.shape[axis])
            return _per_index((parameter.detach() * parameter.grad).double(), axis)

        for number, scale in enumerate(scales):
            of_blocks[number] += 0.0 if scale.grad is None else float(scale.grad) ** 2
        for total, group in zip(totals, groups, strict=True):
            total += _summed(group, change, _readers(group) or _makers(group, parameters)) ** 2
    return [total / steps for total in totals], [total / steps for total in of_blocks]


def _batches(
    settings: Settings, task: Task, data: Data, preprocess: Preprocess, size: int, steps: int
) -> Iterator[tuple[Tensor, Any]]:
    batches = Batches(
        data.train,
        task.transform(preprocess, data.train),
        task.order(data.train, 0),
        size,
        seed=settings.seed,
        drop_last=True,
        max_unreadable=settings.max_unreadable,
    )
    with closing(prefetch(batches)) as parts:
        for part in islice(parts, steps):
            targets = part.targets if isinstance(part.targets, list) else torch.from_numpy(part.targets)
            yield torch.from_numpy(preprocess.normalise(part.pixels)), targets


def _norm(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[Numbers]:
    """The Euclidean norm of all weights of a channel, those that make it and those that read it, relative to its group's mean.

    Source: group norms of DepGraph (2301.12900), section 3.2.
    """
    parameters = dict(network.named_parameters())

    def squared(name: str, axis: int) -> Numbers:
        return _per_index(parameters[name].detach().double() ** 2, axis)

    return [
        _relative(np.sqrt(_summed(group, squared, [one for one in group.axes if one[0] in parameters])))
        for group in groups
    ]


def _bn_scale(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[Numbers]:
    """The size of the norms' scales of a channel, relative to its group's mean; the group norm where it has no norm.

    Source: Network Slimming (Liu et al. 2017, 1708.06519).
    """
    norms = {name for name, module in network.named_modules() if isinstance(module, _NormBase) and module.affine}
    parameters = dict(network.named_parameters())
    if not norms:
        raise InputError("importance bn-scale of a network without batch norm", "taylor or norm", "choose one of them")

    def scale(name: str, axis: int) -> Numbers:
        return np.asarray(parameters[name].detach().double().abs().numpy())

    plain = _norm(network, groups)
    result = []
    for number, group in enumerate(groups):
        scales = [(name, axis) for name, axis in group.axes if name.removesuffix(".weight") in norms]
        result.append(_relative(_summed(group, scale, scales)) if scales else plain[number])
    return result


KINDS: dict[str, Callable[..., Any]] = {"taylor": _taylor, "norm": _norm, "bn-scale": _bn_scale}


def _readers(group: ChannelGroup) -> list[tuple[str, int]]:
    return [one for one in group.axes if one[1] == 1]


def _makers(group: ChannelGroup, parameters: dict[str, nn.Parameter]) -> list[tuple[str, int]]:
    return [one for one in group.axes if one[0] in parameters]


def _summed(group: ChannelGroup, values: Values, axes: Sequence[tuple[str, int]]) -> Numbers:
    """For each channel the sum of the values of its indices on these axes."""
    total = np.zeros(group.size)
    tables = {one: values(*one) for one in axes}
    places = [
        (number, (name, axis), index)
        for number, channel in enumerate(group.channels)
        for name, axis, index in channel
        if (name, axis) in tables
    ]
    for one, table in tables.items():
        numbers, indices = zip(*((number, index) for number, of, index in places if of == one), strict=True)
        np.add.at(total, np.asarray(numbers), table[np.asarray(indices)])
    return total


def _per_index(values: Tensor, axis: int) -> Numbers:
    """The sum of the values at each index of an axis."""
    return np.asarray(values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1).numpy())


def _relative(values: Numbers) -> Numbers:
    mean = float(values.mean())
    return values / mean if mean > 0 else values
