"""Networks over several frames: the features of each, pooled by attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.blocks.attention import AttentionPooling
from gossamer.blocks.initialise import initialise_classifier
from gossamer.errors import InputError, SettingsError
from gossamer.networks.base import Network
from gossamer.settings import Settings


@dataclass(frozen=True)
class Frames:
    """How many frames a sample has, and their (height, width); they lie one below the other in an input."""

    count: int
    size: tuple[int, int]


def frames_of(settings: Settings) -> Frames | None:
    """The frames of resolved settings, None where a sample is an image."""
    size = settings.input_size()
    return Frames(settings.frames, size) if settings.frames and size else None


def frame_features(backbone: Network, x: Tensor, frames: Frames) -> Tensor:
    """The features of each frame: (N, in_chans, count * H, W) -> (N, count, num_features).

    Raises InputError for an input of another shape, such as a single image.
    """
    n, channels, tall, width = x.shape
    height = tall // frames.count
    # a progressive run has other sizes of nearly the same shape; a single image is `count` times too flat
    if tall % frames.count or not 2 / 3 < height * frames.size[1] / (width * frames.size[0]) < 3 / 2:
        raise InputError(
            f"an input of {tall}x{width} for a network over {frames.count} frames",
            f"{frames.count} frames of {frames.size[0]}x{frames.size[1]}, one below the other",
            "give it folders of frames: gossamer eval RUN DATA",
        )
    each = x.reshape(n, channels, frames.count, height, width).transpose(1, 2)
    each = each.reshape(n * frames.count, channels, height, width)
    features: Tensor = backbone.forward_head(backbone.forward_features(each), pre_logits=True)
    return features.reshape(n, frames.count, backbone.num_features)


class FrameClassifier(nn.Module):
    """A backbone on each frame, attention over the frames, a classifier: (N, in_chans, count * H, W) -> (N, num_classes).

    MACs: those of the backbone for each frame, of the pooling, and num_features * num_classes.
    Raises SettingsError for a backbone with auxiliary classifiers.
    """

    backbone_path = "backbone."
    classifier_path = "classifier."

    def __init__(self, backbone: Network, frames: Frames, num_classes: int) -> None:
        super().__init__()
        if backbone.aux:
            raise SettingsError("auxiliary classifiers over frames", "a backbone without them", "leave aux out")
        backbone.reset_classifier(0)
        self.backbone, self.frames = backbone, frames
        self.pooling = AttentionPooling(backbone.num_features)
        self.classifier = nn.Linear(backbone.num_features, num_classes)
        initialise_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.pooling(frame_features(self.backbone, x, self.frames)))
        return out
