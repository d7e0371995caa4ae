"""The network of metric learning: a backbone and a projection."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gossamer.blocks.attention import AttentionPooling
from gossamer.errors import SettingsError
from gossamer.networks.base import Network, check_count
from gossamer.tasks.frames import Frames, frame_features


class Embedder(nn.Module):
    """A backbone and a linear projection: (N, in_chans, H, W) -> {"embedding": (N, D)}, not normalised.

    dim: D; 0 leaves the projection out, D then is the backbone's num_features. The backbone's classifier is removed.
    frames: a sample is so many frames below each other, whose features an `AttentionPooling` makes one of.
    MACs of the projection: num_features * dim. Raises SettingsError for a backbone with auxiliary classifiers.
    """

    backbone_path = "backbone."

    def __init__(self, backbone: Network, dim: int, frames: Frames | None = None) -> None:
        super().__init__()
        check_count("dim", dim, 0)
        if backbone.aux:
            raise SettingsError(
                "auxiliary classifiers in an embedder", "a backbone without them", "leave aux out of net_options"
            )
        backbone.reset_classifier(0)
        self.backbone, self.frames = backbone, frames
        self.pooling = AttentionPooling(backbone.num_features) if frames else None
        self.dim = dim or backbone.num_features
        self.projection: nn.Module = nn.Identity()
        if dim:
            self.projection = nn.Linear(backbone.num_features, dim)  # with a bias: exported as the engine's Gemm
            # variance 1 / inputs keeps the length of the embedding, by which gradients behind it are divided
            nn.init.normal_(self.projection.weight, 0.0, 1 / math.sqrt(backbone.num_features))
            nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.frames is not None and self.pooling is not None:
            features = self.pooling(frame_features(self.backbone, x, self.frames))
        else:
            features = self.backbone.forward_head(self.backbone.forward_features(x), pre_logits=True)
        return {"embedding": self.projection(features)}
