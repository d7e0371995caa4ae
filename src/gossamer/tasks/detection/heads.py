"""A detector around any backbone: SSD and SSDLite, with or without a feature pyramid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.analysis.graph import trace
from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from gossamer.blocks.initialise import initialise
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks import create_model
from gossamer.networks.base import Features
from gossamer.networks.registry import traits
from gossamer.predictions.anchors import Size, fitted_anchors, ssd_anchors
from gossamer.predictions.boxes import SCORES
from gossamer.tasks.detection.maps import FeaturePyramid, WideMaps

EXTRAS = (512, 256, 256, 128)  # channels of the levels behind the backbone: SSD (1512.02325), figure 2, and its authors
PYRAMID_WIDTH, PYRAMID_EXTRAS = 128, 2
PRIOR = 0.01  # fraction of anchors that hold an object, at the start: Lin et al. 2017 (1708.02002), section 4.1


class BoxHead(nn.Module):
    """Maps -> {"deltas": (N, A, 4), "logits": (N, A, K + 1)}, or (N, A, K) logits where score is "sigmoid".

    Anchors come in the order of `spec`: level, row, column, shape. channels, sizes: of the backbone's maps, finest
    first, sizes (height, width), of an image of `size`. Behind them come EXTRAS, each half as large as the one before,
    as long as that is larger than 1x1. lite: separable prediction and extra layers in place of 3x3 convolutions.
    pyramid: lets each map know of the coarser ones. shapes: (width, height) of anchors in pixels, such as those of
    `fit.shapes_of`, in place of SSD's; levels without any are left out. Raises UnknownNameError, InputError where the image is too small.
    Source: SSD (1512.02325), section 2.1; SSDLite: MobileNetV2 (1801.04381), section 6.2. With MobileNetV2, 320x320 and
    80 classes, everything behind the backbone has 14.8 M parameters and 1.26 G MACs, or lite 2.11 M and 0.178 G. Table 5
    there has 14.8 M and 1.25 G, and 2.1 M and 0.35 G, which must be twice the MACs: table 6 has 0.8 G in all, of
    which the backbone takes 0.61.
    """

    backbone_path = "maps."

    def __init__(
        self,
        channels: Sequence[int],
        sizes: Sequence[Size],
        num_classes: int,
        size: Size,
        *,
        lite: bool = True,
        pyramid: bool = False,
        score: str = "softmax",
        shapes: Sequence[tuple[float, float]] = (),
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise UnknownNameError("score", score, SCORES)
        self.outputs = num_classes + (score == "softmax")
        channels, sizes = list(channels), list(sizes)
        self.pyramid = FeaturePyramid(channels, PYRAMID_WIDTH) if pyramid else None
        if pyramid:
            channels = [PYRAMID_WIDTH] * len(channels)
        wanted = len(fitted_anchors(size, _halved(sizes), shapes).levels) if shapes else len(sizes) + len(EXTRAS)
        self.extras = nn.ModuleList()
        for width in (PYRAMID_WIDTH,) * PYRAMID_EXTRAS if pyramid else EXTRAS:
            height, across = sizes[-1]
            if max(height, across) == 1 or len(sizes) >= wanted:
                break
            self.extras.append(_extra(channels[-1], width, lite))
            channels.append(width)
            sizes.append((math.ceil(height / 2), math.ceil(across / 2)))
        self.spec = fitted_anchors(size, sizes, shapes) if shapes else ssd_anchors(size, sizes)
        counts = [len(pyramid_level.shapes) for pyramid_level in self.spec.levels]
        channels = channels[: len(counts)]
        self.deltas = nn.ModuleList(_prediction(c, 4 * n, lite) for c, n in zip(channels, counts))
        self.logits = nn.ModuleList(_prediction(c, self.outputs * n, lite) for c, n in zip(channels, counts))
        self._initialise(score)

    def predict(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """The outputs for the backbone's maps (N, c, h, w)."""
        maps = list(maps) if self.pyramid is None else self.pyramid(maps)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return {"deltas": _gather(self.deltas, maps, 4), "logits": _gather(self.logits, maps, self.outputs)}

    def _initialise(self, score: str) -> None:
        """Fresh weights for all but the backbone; every anchor is background with probability 1 - PRIOR at first."""
        for part in (self.pyramid, self.extras, self.deltas, self.logits):
            if part is not None:
                initialise(part)
        for layer in (*self.deltas, *self.logits):
            nn.init.normal_(_last(layer).weight, 0.0, 0.01)
        odds = (1 - PRIOR) / PRIOR
        for layer in self.logits:
            bias = _last(layer).bias
            assert bias is not None
            with torch.no_grad():
                if score == "softmax":
                    bias.view(-1, self.outputs)[:, 0] = math.log(odds * max(1, self.outputs - 1))
                else:
                    bias.fill_(-math.log(odds))


class Detector(BoxHead):
    """A backbone and a `BoxHead`: (N, C, H, W) -> its outputs.

    maps: module that gives the backbone's maps, finest first, of an image of `size` (height, width). options: of
    `BoxHead`. Raises UnknownNameError, InputError where the image is too small.
    """

    def __init__(self, maps: nn.Module, num_classes: int, size: Size, *, in_chans: int = 3, **options: Any) -> None:
        channels, sizes = map_shapes(maps, size, in_chans)
        super().__init__(channels, sizes, num_classes, size, **options)
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.predict(self.maps(x))


def map_shapes(maps: nn.Module, size: Size, in_chans: int = 3) -> tuple[list[int], list[Size]]:
    """Channels and (height, width) of the maps that a module gives of an image of `size`."""
    graph = trace(maps, (1, in_chans, *size))
    shapes = [graph.values[index].shape for index in graph.outputs]
    return [shape[1] for shape in shapes], [(shape[2], shape[3]) for shape in shapes]


def build_detector(
    net: str,
    num_classes: int,
    size: Size,
    *,
    in_chans: int = 3,
    levels: int = 2,
    lite: bool = True,
    pyramid: bool = False,
    score: str = "softmax",
    shapes: Sequence[tuple[float, float]] = (),
    **arguments: Any,
) -> Detector:
    """A detector around the network called `net`, ours or timm's, for images of `size` (height, width).

    levels: how many of the backbone's maps are read, from the coarsest: 2 are those at strides 16 and 32 of most
    networks, 3 add stride 8. arguments: those of `create_model` but `pretrained`.
    Raises SettingsError, UnknownNameError, InputError, MissingPackageError.
    """
    if type(levels) is not int or not 1 <= levels <= 4:
        raise SettingsError(f"levels: {levels!r}", "1 to 4", "check the argument")
    maps: nn.Module
    last = list(range(-levels, 0))
    if traits(net).has_stages:
        network = create_model(net, num_classes=0, in_chans=in_chans, **arguments)
        # a pyramid brings all maps to one width, so that maps with few channels lose nothing
        maps = Features(network, last) if pyramid else WideMaps(network, levels)
    else:
        maps = create_model(net, in_chans=in_chans, features_only=True, out_indices=last, **arguments)
    return Detector(maps, num_classes, size, in_chans=in_chans, lite=lite, pyramid=pyramid, score=score, shapes=shapes)


def _halved(sizes: list[Size]) -> list[Size]:
    """The sizes of the maps with those that EXTRAS could add."""
    result = list(sizes)
    for _ in EXTRAS:
        height, width = result[-1]
        if max(height, width) > 1:
            result.append((math.ceil(height / 2), math.ceil(width / 2)))
    return result


def _extra(c_in: int, c_out: int, lite: bool) -> nn.Sequential:
    """1x1 to half the channels, then 3x3 of stride 2: (N, c_in, H, W) -> (N, c_out, ceil(H / 2), ceil(W / 2))."""
    half = c_out // 2
    second = DepthwiseSeparable if lite else _plain
    return nn.Sequential(ConvNormAct(c_in, half, act="relu6"), second(half, c_out, stride=2))


def _plain(c_in: int, c_out: int, *, stride: int) -> ConvNormAct:
    return ConvNormAct(c_in, c_out, 3, stride=stride, act="relu6")


def _prediction(c_in: int, c_out: int, lite: bool) -> nn.Module:
    """3x3 convolution, or a depthwise one with norm and ReLU6 and a 1x1: (N, c_in, H, W) -> (N, c_out, H, W)."""
    if not lite:
        return nn.Conv2d(c_in, c_out, 3, padding=1)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["depthwise"] = ConvNormAct(c_in, c_in, 3, groups=c_in, act="relu6")
    parts["pointwise"] = nn.Conv2d(c_in, c_out, 1)
    return nn.Sequential(parts)


def _last(layer: nn.Module) -> nn.Conv2d:
    """The convolution that makes the prediction."""
    last = layer if isinstance(layer, nn.Conv2d) else layer.get_submodule("pointwise")
    assert isinstance(last, nn.Conv2d)
    return last


def _gather(layers: nn.ModuleList, maps: list[Tensor], values: int) -> Tensor:
    """The predictions of all levels: (N, A, values)."""
    outputs = [layer(each) for layer, each in zip(layers, maps)]
    return torch.cat([each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, values) for each in outputs], 1)
