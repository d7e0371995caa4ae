"""Segmentation heads and the network around them: any backbone, any input size.

A head takes a finer map `low` and the last map `high` of the backbone, and outputs logits at its own resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.aspp import Aspp, SeparableConv
from gossamer.blocks.attention import ScaleAttention
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.initialise import initialise, initialise_classifier
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks import create_model
from gossamer.networks.base import FeatureList, Features, NetworkParts, check_count

HeadName = Literal["lraspp", "deeplabv3", "deeplabv3plus"]
HEADS = ("lraspp", "deeplabv3", "deeplabv3plus")
OUTPUT_STRIDES = (8, 16, 32)
CHANNELS = {"lraspp": 128, "deeplabv3": 256, "deeplabv3plus": 256}
RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}  # DeepLabv3 (1706.05587), section 3.3, by output stride
LOW_CHANNELS = 48  # of the finer map in the decoder: DeepLabv3+ (1802.02611), table 1
LARGE_POOL, LARGE_STRIDE = (49, 49), (16, 20)  # MobileNetV3 (1905.02244), section 6.4


class LrAspp(nn.Module):
    """Lite reduced ASPP: a 1x1 scaled by a gate of pooled features, up-sampled and added to a 1x1 of the finer map.

    low (N, c_low, h, w), high (N, c_high, h', w') -> logits (N, num_classes, h, w). pool: "global" for the mean of
    all positions, "large" for windows of 49 x 49 at strides (16, 20), meant for 1024 x 2048 inputs.
    MACs: channels * (c_high + num_classes) * h' * w' + c_low * num_classes * h * w, and the gate's
    c_high * channels a window. Source: MobileNetV3 (1905.02244), section 6.4 and figure 10.
    """

    def __init__(
        self,
        c_low: int,
        c_high: int,
        num_classes: int,
        *,
        channels: int = 128,
        pool: Literal["global", "large"] = "global",
    ) -> None:
        super().__init__()
        self.large = pool == "large"
        self.project = ConvNormAct(c_high, channels)
        self.gate = nn.Sequential(nn.Conv2d(c_high, channels, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(c_low, num_classes, 1)
        self.high_classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        gate = self.gate(self._pooled(high))
        scaled = self.project(high) * (_resized(gate, high) if self.large else gate)
        # the 1x1 is linear, so it may come before the up-sampling: the same numbers for fewer MACs
        out: Tensor = _resized(self.high_classifier(scaled), low) + self.low_classifier(low)
        return out

    def _pooled(self, x: Tensor) -> Tensor:
        if not self.large:
            return F.adaptive_avg_pool2d(x, 1)
        return F.avg_pool2d(x, (min(LARGE_POOL[0], x.shape[2]), min(LARGE_POOL[1], x.shape[3])), LARGE_STRIDE)


class DeepLabV3(nn.Module):
    """ASPP and a 1x1 classifier: high (N, c_high, h, w) -> logits (N, num_classes, h, w); the finer map is not used.

    rates: dilations of the ASPP; () for the light variant with the 1x1 and image pooling only, which MobileNetV2's
    paper reports as best (1801.04381, section 6.3). MACs: those of `Aspp` and channels * num_classes * h * w.
    Source: DeepLabv3 (1706.05587), section 3.3; without its 3x3 convolution behind the ASPP, as its authors' code.
    """

    def __init__(
        self,
        c_high: int,
        num_classes: int,
        *,
        channels: int = 256,
        rates: tuple[int, ...] = (),
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.aspp = Aspp(c_high, channels, rates, drop_rate=drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.aspp(high))
        return out


class DeepLabV3Plus(nn.Module):
    """ASPP, up-sampled, concatenated with the finer map, refined by two separable 3x3 convolutions.

    low (N, c_low, h, w), high (N, c_high, h', w') -> logits (N, num_classes, h, w).
    Source: DeepLabv3+ (1802.02611), figure 2 and section 4.1.
    """

    def __init__(
        self,
        c_low: int,
        c_high: int,
        num_classes: int,
        *,
        channels: int = 256,
        rates: tuple[int, ...] = RATES[16],
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.aspp = Aspp(c_high, channels, rates, separable=True, drop_rate=drop_rate)
        self.low = ConvNormAct(c_low, LOW_CHANNELS)
        self.refine = nn.Sequential(SeparableConv(channels + LOW_CHANNELS, channels), SeparableConv(channels, channels))
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        concatenated = torch.cat([_resized(self.aspp(high), low), self.low(low)], dim=1)
        out: Tensor = self.classifier(self.refine(concatenated))
        return out


class Segmenter(nn.Module):
    """A backbone with a segmentation head: (N, in_chans, H, W) -> {"logits": (N, num_classes, h, w)}.

    h, w: of the head's resolution, which is that of the finer map for "lraspp" (stride 8; 4 at output stride 8) and
    "deeplabv3plus" (stride 4), and of the last map for "deeplabv3". `reduction` is the stride of the logits.

    net: any network of ours or "timm:NAME". head: one of HEADS. output_stride: 8, 16 or 32, of the last map.
    channels: of the head, default CHANNELS. aspp: the 3x3 branches of the DeepLab heads. conv_head: take the last map
    behind the network's last 1x1 convolution, as MobileNetV3's paper does for "lraspp"; MobileNetV2's leaves it out.
    pool: see `LrAspp`. options: of `create_model`. scale_attention: scales of the input, the first of which gives the
    size of the logits: the same network sees each, and a `ScaleAttention` weighs their logits for each pixel. While
    training, "scale_logits" are those of each scale by itself, which the paper gives a loss of their own.
    Raises SettingsError, UnknownNameError, MissingPackageError.
    """

    backbone_path = "backbone."

    def __init__(
        self,
        net: str,
        num_classes: int,
        *,
        head: HeadName = "lraspp",
        output_stride: int = 16,
        channels: int | None = None,
        aspp: bool = False,
        conv_head: bool = False,
        pool: Literal["global", "large"] = "global",
        drop_rate: float = 0.1,
        scale_attention: Sequence[float] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes, 1)
        check_scales(scale_attention)
        if head not in HEADS:
            raise UnknownNameError("segmentation head", head, HEADS)
        if output_stride not in OUTPUT_STRIDES:
            raise SettingsError(f"output_stride: {output_stride!r}", "8, 16 or 32", "choose one of them")
        self.num_classes = num_classes
        with torch.device("meta"):  # only to ask for its maps
            infos = create_model(net, features_only=True, output_stride=output_stride, **options).feature_info
        low, high = low_map(infos, head, output_stride), len(infos) - 1
        wanted = (high,) if head == "deeplabv3" else (low, high)
        shared = {**options, "output_stride": output_stride}
        self.backbone, self.conv_head, c_high = _backbone(net, wanted, conv_head, shared)
        self.head = build_head(
            head,
            infos[low].channels,
            c_high,
            num_classes,
            channels=channels,
            rates=RATES[output_stride] if aspp else (),
            pool=pool,
            drop_rate=drop_rate,
        )
        self.reduction = infos[wanted[0]].reduction
        self.scales = tuple(float(scale) for scale in scale_attention)
        if self.scales:
            self.attention = ScaleAttention(c_high, len(self.scales))
            initialise(self.attention)
            initialise_classifier(self.attention.select)

    def backbone_parts(self) -> nn.Module:
        """What the weights of the network are loaded into."""
        if isinstance(self.conv_head, nn.Identity):
            return self.backbone
        return NetworkParts(
            self.backbone.stem, self.backbone.stages, self.backbone.key_mappings, conv_head=self.conv_head
        )

    def forward(self, x: Tensor) -> dict[str, Any]:
        if not self.scales:
            return {"logits": self._of_scale(x, 1.0)[0]}
        seen = [self._of_scale(x, scale) for scale in self.scales]
        like = seen[0][0]
        logits = [_resized(each, like) for each, _ in seen]
        weights = _resized(self.attention([high for _, high in seen]), like)
        weighed = torch.stack([each * weights[:, i : i + 1] for i, each in enumerate(logits)]).sum(0)
        return {"logits": weighed, **({"scale_logits": logits} if self.training else {})}

    def _of_scale(self, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """The logits, and the map that the head reads, of the input at `scale` of its sides."""
        if scale != 1:
            height, width = (max(1, round(side * scale)) for side in x.shape[-2:])
            x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        maps: list[Tensor] = self.backbone(x)
        high = self.conv_head(maps[-1])
        return self.head(maps[0], high), high


def check_scales(scales: Sequence[float]) -> None:
    """Raises SettingsError unless these are input scales of a `ScaleAttention`, or none."""
    if not scales:
        return
    if len(scales) < 2 or len(set(scales)) < len(scales) or not all(0.1 <= scale <= 2 for scale in scales):
        listed = " ".join(f"{scale:g}" for scale in scales)
        raise SettingsError(
            f"scale_attention: {listed}", "two or more different scales of 0.1 to 2, as 1 0.5", "fix it"
        )


def low_map(infos: FeatureList, head: str, output_stride: int) -> int:
    """The index of the finer map that a head reads: the coarsest at a stride of its own or less, or the finest.

    For "lraspp" that is stride 8, 4 at output stride 8; for "deeplabv3plus" it is 4.
    """
    reduction = 4 if head == "deeplabv3plus" else min(8, output_stride // 2)
    fine = [index for index, info in enumerate(infos) if info.reduction <= reduction]
    return fine[-1] if fine else 0


def build_head(
    head: HeadName,
    c_low: int,
    c_high: int,
    num_classes: int,
    *,
    channels: int | None = None,
    rates: tuple[int, ...] = (),
    pool: Literal["global", "large"] = "global",
    drop_rate: float = 0.1,
) -> nn.Module:
    """One of HEADS with fresh weights, for maps of c_low and c_high channels; arguments as of `Segmenter`."""
    c = CHANNELS[head] if channels is None else channels
    check_count("channels", c, 1)
    module: nn.Module
    if head == "lraspp":
        module = LrAspp(c_low, c_high, num_classes, channels=c, pool=pool)
    elif head == "deeplabv3":
        module = DeepLabV3(c_high, num_classes, channels=c, rates=rates, drop_rate=drop_rate)
    else:
        module = DeepLabV3Plus(c_low, c_high, num_classes, channels=c, rates=rates, drop_rate=drop_rate)
    initialise(module)
    for name, layer in module.named_modules():
        if name.endswith("classifier"):
            initialise_classifier(layer)
    return module


def _backbone(
    net: str, wanted: tuple[int, ...], conv_head: bool, shared: dict[str, Any]
) -> tuple[Features, nn.Module, int]:
    """The feature maps, what follows the last, and how many channels that has."""
    if not conv_head:
        features = create_model(net, features_only=True, out_indices=wanted, **shared)
        return features, nn.Identity(), features.feature_info[-1].channels
    network = create_model(net, num_classes=0, **shared)
    last = getattr(network, "conv_head", None)
    if not isinstance(last, ConvNormAct):
        raise SettingsError(f"{net} has no last 1x1 convolution", "conv_head=False", "leave it out")
    features = Features(network, wanted)
    assert isinstance(last.conv, nn.Conv2d)
    return features, last, last.conv.out_channels


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, bilinear, corners not aligned."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
