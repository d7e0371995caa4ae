"""Blocks that one option puts into any network of a kind: deformable convolutions, self-attention, gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from gossamer.blocks.attention import SelfAttention2d
from gossamer.blocks.deform import DeformableConv2d
from gossamer.blocks.gates import ChannelGate, Draw, Gate, PositionGate
from gossamer.blocks.residual import BasicBlock, Bottleneck, InvertedResidual, PreActBlock, UniversalInvertedBottleneck
from gossamer.errors import SettingsError, UnknownNameError

Deformable = Literal["none", "v1", "v2"]
Gating = Literal["none", "channels", "positions"]
DEFORMABLE = ("none", "v1", "v2")
GATING = ("none", "channels", "positions")
GATED = (BasicBlock, Bottleneck, InvertedResidual)
WITH_BLOCKS = "a network of residual or inverted residual blocks, such as resnet18 or mobilenet_v2"


@dataclass(frozen=True)
class Options:
    """What is added to a network after its family's function has built it.

    deformable: the k x k convolutions of the residual blocks in the last `deformable_stages` stages that have any: "v1"
    with offsets, "v2" with offsets and a mask. self_attention: numbers of the stages, from 0 as in `stages.3`, behind whose last block
    each position attends to all others. gating: what hard gates open in residual blocks, "channels" or "positions";
    gate_draw: "gumbel", each by itself, or "topk"; gate_target: the fraction that "topk" opens.
    """

    deformable: Deformable = "none"
    deformable_stages: int = 1
    self_attention: tuple[int, ...] = ()
    gating: Gating = "none"
    gate_draw: Draw = "gumbel"
    gate_target: float = 0.5


def add_options(stages: nn.ModuleList, options: Options, channels: list[int]) -> None:
    """Put what `options` say into the stages of a network, in place; the weights of what stays are kept.

    channels: of the output of each stage. Raises SettingsError where a stage has no such block, UnknownNameError.
    """
    for name, value, known in (
        ("deformable convolution", options.deformable, DEFORMABLE),
        ("gating", options.gating, GATING),
    ):
        if value not in known:
            raise UnknownNameError(name, str(value), known)
    if options.gating != "none":
        _add_gates(stages, options)
    if options.deformable != "none":
        _add_deformable(stages, options.deformable, options.deformable_stages)
    for number in options.self_attention:
        _add_self_attention(stages, number, channels)


def _add_deformable(stages: nn.ModuleList, version: str, count: int) -> None:
    if type(count) is not int or not 1 <= count <= len(stages):
        raise SettingsError(f"deformable_stages: {count!r}", f"1 to {len(stages)} for this network", "change it")
    with_blocks = [convolutions for stage in stages if (convolutions := _kernels(stage))]
    if not with_blocks:
        raise SettingsError(
            f"deformable: {version}, and no k x k convolution of a residual block",
            WITH_BLOCKS,
            "choose another network",
        )
    for convolutions in with_blocks[-count:]:
        for parent, name, conv in convolutions:
            setattr(parent, name, DeformableConv2d.in_place_of(conv, modulated=version == "v2"))


def _kernels(stage: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """The convolutions larger than 1x1 of the residual blocks of a stage, but for those of their attention."""
    blocks = [
        block for block in stage.modules() if isinstance(block, (*GATED, UniversalInvertedBottleneck, PreActBlock))
    ]
    convolutions = []
    for block in blocks:
        attention = getattr(block, "attention", None)
        others = set(attention.modules()) if isinstance(attention, nn.Module) else set()
        for parent in block.modules():
            for name, child in parent.named_children():
                if type(child) is nn.Conv2d and max(child.kernel_size) > 1 and parent not in others:
                    convolutions.append((parent, name, child))
    return convolutions


def _add_self_attention(stages: nn.ModuleList, number: int, channels: list[int]) -> None:
    if type(number) is not int or not 0 <= number < len(stages):
        raise SettingsError(
            f"self_attention behind stage {number!r}", f"0 to {len(stages) - 1} for this network", "change it"
        )
    stage = stages[number]
    assert isinstance(stage, nn.Sequential)
    stage.add_module("attention", SelfAttention2d(channels[number]))


def _add_gates(stages: nn.ModuleList, options: Options) -> None:
    target = options.gate_target
    if not isinstance(target, (int, float)) or not 0 < target <= 1:
        raise SettingsError(f"gate_target: {target!r}", "above 0, up to 1", "fix the argument")
    gated_blocks = 0
    for block in stages.modules():
        if isinstance(block, GATED):
            block.gate = _gate(block, options)
            gated_blocks += block.gate is not None
    if not gated_blocks:
        raise SettingsError(
            f"gating: {options.gating}, and no block that a gate fits", WITH_BLOCKS, "choose another network"
        )


def _gate(block: nn.Module, options: Options) -> Gate | None:
    """A gate for a block; None where it has none: without an expansion, with selective kernels in the middle, or, by
    positions, without a plain shortcut."""
    first = block.conv1 if isinstance(block, (BasicBlock, Bottleneck)) else block.expand
    if isinstance(first, nn.Identity) or not hasattr(getattr(block, "conv2", first), "conv"):  # or selective kernels
        return None
    assert isinstance(first, nn.Module)
    conv = first.get_submodule("conv")
    assert isinstance(conv, nn.Conv2d)
    if options.gating == "channels":
        return ChannelGate(
            conv.in_channels, conv.out_channels, draw=options.gate_draw, target=float(options.gate_target)
        )
    plain = block.shortcut if isinstance(block, InvertedResidual) else isinstance(block.shortcut, nn.Identity)
    if not plain:
        return None
    return PositionGate(conv.in_channels, draw=options.gate_draw, target=float(options.gate_target))
