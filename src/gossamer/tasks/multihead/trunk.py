"""The backbone of several heads: its feature maps, its last map, and that pooled."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from gossamer.networks import create_model
from gossamer.networks.base import FeatureList, Features, Network, NetworkParts
from gossamer.networks.registry import traits
from gossamer.settings import Settings
from gossamer.tasks.backbone import arguments


class Shared(NamedTuple):
    """maps: (N, c, h, w) each, finest first. last: (N, C, h, w), behind the last convolution. pooled: (N, F), or None
    where no head reads it."""

    maps: list[Tensor]
    last: Tensor
    pooled: Tensor | None


class Trunk(nn.Module):
    """A network of ours without its classifier: (N, in_chans, H, W) -> `Shared`.

    pools: whether any head reads the pooled features, which are those that the network's own classifier reads. wide:
    whether any reads `last` behind the `conv_head`; otherwise that is left out, and `last` is the last map.
    """

    def __init__(self, network: Network, pools: bool, wide: bool) -> None:
        super().__init__()
        network.reset_classifier(0)
        self.feature_info: FeatureList = network.feature_info
        self.num_features = network.num_features
        self.stem, self.stages = network.stem, network.stages
        self.conv_head: nn.Module = network.conv_head if pools or wide else nn.Identity()
        self.pool: nn.Module | None = network.head if pools else None
        self._key_mappings = network.key_mappings
        self._tapped = {info.module for info in self.feature_info}

    def backbone_parts(self) -> nn.Module:
        """What the weights of the network are loaded into."""
        conv_head = None if isinstance(self.conv_head, nn.Identity) else self.conv_head
        return NetworkParts(self.stem, self.stages, self._key_mappings, conv_head=conv_head, head=self.pool)

    def forward(self, x: Tensor) -> Shared:
        x = self.stem(x)
        maps = [x] if "stem" in self._tapped else []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in self._tapped:
                maps.append(x)
        last = self.conv_head(x)
        return Shared(maps, last, None if self.pool is None else self.pool(last, pre_logits=True))

    @property
    def shared_by_all(self) -> nn.Module:
        """The layers before every head."""
        return self.stages


class FeaturesTrunk(nn.Module):
    """Feature maps alone: (N, in_chans, H, W) -> `Shared`; `last` is the last of them, pooled by its mean over all places."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features, self.feature_info = features, features.feature_info
        self.num_features = self.feature_info[-1].channels

    def backbone_parts(self) -> nn.Module:
        """What the weights of the network are loaded into."""
        return self.features

    def forward(self, x: Tensor) -> Shared:
        maps: list[Tensor] = self.features(x)
        return Shared(maps, maps[-1], maps[-1].mean((2, 3)))

    @property
    def shared_by_all(self) -> nn.Module:
        """The layers before every head."""
        return self.features


def build_trunk(settings: Settings, pools: bool, wide: bool) -> Trunk | FeaturesTrunk:
    """The backbone of `settings`. Raises UnknownNameError, SettingsError, MissingPackageError."""
    if traits(settings.net).has_stages:
        return Trunk(create_model(settings.net, num_classes=1, **arguments(settings)), pools, wide)
    return FeaturesTrunk(create_model(settings.net, features_only=True, **arguments(settings)))
