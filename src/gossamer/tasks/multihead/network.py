"""One backbone and any set of heads."""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence

from torch import Tensor, nn

from gossamer.data.heads.spec import HeadSpec
from gossamer.networks.base import FeatureList
from gossamer.predictions.head import KINDS
from gossamer.settings import Settings
from gossamer.tasks.base import sized
from gossamer.tasks.detection.heads import BoxHead, map_shapes
from gossamer.tasks.multihead.trunk import FeaturesTrunk, Shared, Trunk, build_trunk
from gossamer.tasks.segmentation.heads import HEADS, RATES, HeadName, build_head, low_map

POOLED = ("classify", "multilabel", "regress", "embed")
"""Kinds that read one vector per image."""


class PooledHead(nn.Module):
    """Dropout and a linear layer on the pooled features: `Shared` -> {output: (N, count)}. MACs: inputs * count."""

    def __init__(self, inputs: int, count: int, output: str, drop_rate: float) -> None:
        super().__init__()
        self.output = output
        self.drop = nn.Dropout(drop_rate)
        self.linear = nn.Linear(inputs, count)
        # an embedding keeps its length, by which gradients behind it are divided; logits begin near 0
        nn.init.normal_(self.linear.weight, 0.0, 1 / math.sqrt(inputs) if output == "embedding" else 0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, shared: Shared) -> dict[str, Tensor]:
        return {self.output: self.linear(self.drop(shared.pooled))}


class PlainEmbedding(nn.Module):
    """The pooled features themselves as the embedding."""

    def forward(self, shared: Shared) -> dict[str, Tensor]:
        assert shared.pooled is not None
        return {"embedding": shared.pooled}


class DetectHead(nn.Module):
    """A `BoxHead` on the coarsest `levels` maps, the last of them behind the last convolution unless `skip_conv_head`."""

    def __init__(self, boxes: BoxHead, levels: int, skip_conv_head: bool) -> None:
        super().__init__()
        self.boxes, self.levels, self.skip_conv_head = boxes, levels, skip_conv_head

    def forward(self, shared: Shared) -> dict[str, Tensor]:
        return self.boxes.predict(_coarsest(shared, self.levels, self.skip_conv_head))


class SegmentHead(nn.Module):
    """A segmentation head on the map number `low` and the last: `Shared` -> {"logits": (N, K, h, w)}."""

    def __init__(self, head: nn.Module, low: int) -> None:
        super().__init__()
        self.head, self.low = head, low

    def forward(self, shared: Shared) -> dict[str, Tensor]:
        return {"logits": self.head(shared.maps[self.low], shared.maps[-1])}


class MultiNetwork(nn.Module):
    """(N, in_chans, H, W) -> the outputs of all heads in their order, as `gossamer.predictions.head.Head` names them.

    head_losses: the losses with their parameters, which only training uses; set by the task, so that they are optimised
    and saved with the network.
    """

    classifier_path = "head_"
    head_losses: nn.Module

    def __init__(self, trunk: Trunk | FeaturesTrunk, names: Sequence[str], parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.names = trunk, tuple(names)
        self.head_parts = nn.ModuleList(parts)

    def backbone_parts(self) -> nn.Module:
        """What the weights of the network common to all heads are loaded into."""
        return self.trunk.backbone_parts()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        shared = self.trunk(x)
        outputs: dict[str, Tensor] = {}
        for name, part in zip(self.names, self.head_parts):
            outputs.update({f"{name}.{output}" if name else output: value for output, value in part(shared).items()})
        return outputs


def build_multi_network(settings: Settings, specs: Sequence[HeadSpec], counts: dict[str, int]) -> MultiNetwork:
    """The network of resolved `settings` with these heads. counts: how many classes or quantities each has.

    Raises UnknownNameError, SettingsError, InputError for an image too small, MissingPackageError.
    """
    pools = any(spec.kind in POOLED for spec in specs)
    wide = any(spec.kind == "detect" for spec in specs) and not settings.fpn
    trunk = build_trunk(settings, pools, wide)
    return MultiNetwork(
        trunk, [spec.name for spec in specs], [_part(settings, spec, counts[spec.name], trunk) for spec in specs]
    )


def _part(settings: Settings, spec: HeadSpec, count: int, trunk: Trunk | FeaturesTrunk) -> nn.Module:
    infos = trunk.feature_info
    if spec.kind == "embed":
        dim = spec.dim if spec.dim >= 0 else settings.dim
        return PooledHead(trunk.num_features, dim, "embedding", settings.drop_rate) if dim else PlainEmbedding()
    if spec.kind in POOLED:
        return PooledHead(trunk.num_features, count, KINDS[spec.kind][0], settings.drop_rate)
    if spec.kind == "detect":
        return _detect_part(settings, spec, count, trunk)
    return _segment_part(settings, spec, count, infos)


def _detect_part(settings: Settings, spec: HeadSpec, count: int, trunk: Trunk | FeaturesTrunk) -> DetectHead:
    size, sides = sized(settings), spec.anchor_sizes
    levels = min(settings.levels, len(trunk.feature_info))
    channels, sizes = map_shapes(_Coarsest(trunk, levels, settings.fpn), size, settings.in_chans)
    boxes = BoxHead(
        channels,
        sizes,
        count,
        size,
        lite=spec.head != "ssd",
        pyramid=settings.fpn,
        score="sigmoid" if spec.loss == "focal" else "softmax",
        shapes=list(zip(sides[::2], sides[1::2])),
    )
    return DetectHead(boxes, levels, settings.fpn)


def _segment_part(settings: Settings, spec: HeadSpec, count: int, infos: FeatureList) -> SegmentHead:
    head = typing.cast(HeadName, spec.head or HEADS[0])
    stride = settings.output_stride or infos[-1].reduction
    low = low_map(infos, head, stride)
    rates = RATES.get(stride, ()) if settings.aspp else ()
    module = build_head(head, infos[low].channels, infos[-1].channels, count, rates=rates, drop_rate=settings.drop_rate)
    return SegmentHead(module, low)


class _Coarsest(nn.Module):
    """The maps that a detector reads, to ask for their shapes."""

    def __init__(self, trunk: nn.Module, levels: int, skip_conv_head: bool) -> None:
        super().__init__()
        self.trunk, self.levels, self.skip_conv_head = trunk, levels, skip_conv_head

    def forward(self, x: Tensor) -> list[Tensor]:
        return _coarsest(self.trunk(x), self.levels, self.skip_conv_head)


def _coarsest(shared: Shared, levels: int, skip_conv_head: bool) -> list[Tensor]:
    return shared.maps[-levels:] if skip_conv_head else [*shared.maps[-levels:-1], shared.last]
