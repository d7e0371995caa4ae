"""Channels of a network that go, as edits that its run keeps and replays."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gossamer.analysis.channels import ChannelGroup
from gossamer.errors import InputError
from gossamer.networks.changes import Change, apply_changes, channels_of, keep_channels
from gossamer.shrink.blocks import scale_branches

TOLERANCE = 1e-3  # of the largest output: float32 sums of fewer numbers, in another order


def removable(network: nn.Module, groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """The groups of which each axis belongs to a layer that `keep_channels` takes."""
    modules = dict(network.named_modules())
    return tuple(
        group
        for group in groups
        if all(channels_of(modules[name.rpartition(".")[0]], axis) is not None for name, axis in group.axes)
    )


def removal(
    network: nn.Module, groups: Sequence[ChannelGroup], removed: Sequence[Sequence[int]], blocks: Sequence[str] = ()
) -> tuple[Change, ...]:
    """The edits that remove channels: `removed[i]` are numbers of channels of `groups[i]`. None where nothing goes.

    blocks: those that go as a whole, whose layers have no edits of their own.
    """
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)  # (layer, axis) -> indices
    modules = dict(network.named_modules())
    for group, numbers in zip(groups, removed, strict=True):
        for number in numbers:
            for name, axis, index in group.channels[number]:
                layer = name.rpartition(".")[0]
                module = modules[layer]
                if axis == 1 and isinstance(module, nn.Conv2d) and module.groups > 1:  # the index counts within a group
                    size = module.in_channels // module.groups
                    gone[layer, 1].update(part * size + index for part in range(module.groups))
                else:
                    gone[layer, axis].add(index)
    changes = []
    inside = tuple(f"{block}." for block in blocks)
    for layer in modules:  # in the network's order
        if inside and layer.startswith(inside):
            continue
        for axis in (0, 1):
            if indices := gone.get((layer, axis)):
                count = channels_of(modules[layer], axis)
                assert count is not None, "only removable groups come here"
                changes.append(keep_channels(layer, axis, (index for index in range(count) if index not in indices)))
    return tuple(changes)


def without(network: nn.Module, changes: Sequence[Change]) -> nn.Module:
    """A copy of `network` with the edits applied."""
    edited = copy.deepcopy(network)
    apply_changes(edited, changes)
    return edited


def zeroed(network: nn.Module, groups: Sequence[ChannelGroup], removed: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of `network` whose layers read the removed channels as zero: what the edited one must compute."""
    silent = copy.deepcopy(network)
    tensors = dict(silent.named_parameters())
    with torch.no_grad():
        for group, numbers in zip(groups, removed, strict=True):
            for number in numbers:
                for name, axis, index in group.channels[number]:
                    if axis == 1:
                        tensors[name].select(1, index).zero_()
    return silent


def check_removal(
    network: nn.Module,
    edited: nn.Module,
    groups: Sequence[ChannelGroup],
    removed: Sequence[Sequence[int]],
    images: Tensor,
    blocks: Sequence[str] = (),
) -> None:
    """Raises InputError where the edited network does not compute, on `images` (N, C, H, W), what the channel rules say.

    blocks: the residual blocks that went: they must compute what they do with their branches at zero.
    """
    with torch.no_grad():
        silent = zeroed(network, groups, removed)
        scale_branches(silent, blocks, 0.0)
        expected = _outputs(silent.eval()(images))
        try:
            actual = _outputs(edited.eval()(images))
        except (RuntimeError, ValueError) as error:
            raise _misfit(str(error).splitlines()[0]) from error
    for name, output in expected.items():
        scale = max(1e-6, float(output.abs().max()))
        if output.shape != actual[name].shape:
            raise _misfit(f"{name} would be {tuple(actual[name].shape)}")
        difference = float((output - actual[name]).abs().max())
        if not difference <= TOLERANCE * scale:
            raise _misfit(f"{name} would differ by {difference:.3g} where {TOLERANCE * scale:.3g} is allowed")


def _outputs(outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"the output": outputs}


def _misfit(reason: str) -> InputError:
    return InputError(
        f"a network whose channels cannot be sliced out: {reason}",
        "networks of Conv2d, Linear, norms and activations whose forward takes the number of channels from its input",
        "please report this network",
    )
