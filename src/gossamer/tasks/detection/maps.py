"""The maps of a backbone that a detector reads, and a pyramid that lets the finer ones know of the coarser."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from gossamer.blocks.residual import InvertedResidual
from gossamer.errors import SettingsError
from gossamer.networks.base import Network, NetworkParts


class WideMaps(NetworkParts):
    """The last `count` maps of a network by stride, wide: (N, C, H, W) -> list of (N, c, h, w), finest first.

    The last is the one behind `conv_head`. Of the others, where the next stage begins with an inverted residual, its
    expansion replaces the bottleneck map that it reads. It uses the modules of `network`, by their names.
    Raises SettingsError where it has fewer. Source: MobileNetV2 (1801.04381), section 6.2: the first layer of SSDLite is
    "attached to the expansion of layer 15".
    """

    def __init__(self, network: Network, count: int) -> None:
        super().__init__(network.stem, network.stages, network.key_mappings, conv_head=network.conv_head)
        every = network.feature_info
        if not 1 <= count <= len(every):
            raise SettingsError(f"{count} maps of a network", f"1 to {len(every)}", "ask for as many as it has")
        infos = every[-count:-1]
        self._tapped = {-1 if info.module == "stem" else int(info.module.removeprefix("stages.")) for info in infos}

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            if index - 1 in self._tapped:
                x = self._read(stage, x, maps)
            else:
                x = stage(x)
        maps.append(self.conv_head(x))
        return maps

    @staticmethod
    def _read(stage: nn.Module, x: Tensor, maps: list[Tensor]) -> Tensor:
        """The stage's result; the map that it begins with goes to `maps`."""
        first, *rest = stage.children()
        if not isinstance(first, InvertedResidual) or isinstance(first.expand, nn.Identity):
            maps.append(x)
            out: Tensor = stage(x)
            return out
        wide: Tensor = first.expand(x)
        maps.append(wide)
        x = first.contract(wide, x)
        for block in rest:
            x = block(x)
        return x


class FeaturePyramid(nn.Module):
    """Maps of these channels, finest first, all brought to `width` channels, each with the next coarser one added.

    list of (N, c, h, w) -> list of (N, width, h, w): a 1x1 lateral, plus the coarser sum enlarged (nearest), then a
    separable 3x3. Source: Lin et al. 2016, Feature Pyramid Networks (1612.03144), section 3; separable as in SSDLite.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNormAct(c, width, act=None) for c in channels)
        self.smooth = nn.ModuleList(DepthwiseSeparable(width, width) for _ in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        laterals = [lateral(each) for lateral, each in zip(self.laterals, maps)]
        sums = [laterals[-1]]
        for finer in reversed(laterals[:-1]):
            sums.append(finer + F.interpolate(sums[-1], size=finer.shape[-2:], mode="nearest"))
        return [smooth(each) for smooth, each in zip(self.smooth, reversed(sums))]
