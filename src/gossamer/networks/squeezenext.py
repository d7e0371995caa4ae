"""SqueezeNext. Gholami et al., SqueezeNext: Hardware-Aware Neural Network Design, 2018, arXiv 1803.10615, figure 2;
counts by the authors' repository, amirgholami/SqueezeNext.

"authors": no biases, no padding in the stem, whose 64 channels and the head's 128 are not scaled; in v5 a widening
1x1, strided but in the first stage, comes first and feeds both branches. "pytorchcv": biases everywhere, padding 1 in
a 7x7 stem, stem and head scaled, and the plain first blocks in v5, too.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from gossamer.blocks.activation import activation
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.drop import DropPath
from gossamer.blocks.head import LinearHead
from gossamer.blocks.width import make_divisible
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.text import counted
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder


class SqueezeNeXtVersion(NamedTuple):
    """Kernel of the stem, blocks of the four stages, and whether a widening 1x1 begins a stage."""

    kernel: int
    repeats: tuple[int, int, int, int]
    widen_first: bool


STEM, HEAD = 64, 128
CHANNELS = (32, 64, 128, 256)
VERSIONS = {"23": SqueezeNeXtVersion(7, (6, 6, 8, 1), False), "23v5": SqueezeNeXtVersion(5, (2, 4, 14, 1), True)}
STYLES = ("authors", "pytorchcv")


class SqueezeNextBlock(nn.Module):
    """1x1 to c/2, 1x1 to c/4, 3x1 and 1x3 to c/2 (or 1x3 first), 1x1 to c, and a shortcut.

    (N, c_in, H, W) -> (N, c, h, w), h = ceil(H / stride). The shortcut is a 1x1 convolution where `project`.
    groups: of the first 1x1, the 3x1 and the 1x3. MACs: (c_in * c / 2 / groups + c^2 / 8 + 9 * c^2 / 8 / groups
    * 2 / 3 + c^2 / 2) * h * w, and c_in * c * h * w more for a shortcut convolution. Source: figure 1d.
    """

    def __init__(
        self, c_in: int, c: int, *, stride: int, groups: int, rows_first: bool, bias: bool, project: bool
    ) -> None:
        super().__init__()
        half, quarter = c // 2, c // 4
        kernels = ((3, 1), (1, 3)) if rows_first else ((1, 3), (3, 1))
        self.branch = nn.Sequential(
            ConvNormAct(c_in, half, stride=stride, groups=groups, bias=bias),
            ConvNormAct(half, quarter, bias=bias),
            ConvNormAct(quarter, half, kernels[0], groups=groups, bias=bias),
            ConvNormAct(half, half, kernels[1], groups=groups, bias=bias),
            ConvNormAct(half, c, bias=bias),
        )
        self.shortcut = ConvNormAct(c_in, c, stride=stride, bias=bias) if project else nn.Identity()
        self.drop_path = DropPath()
        self.act = activation("relu")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.drop_path(self.branch(x)) + self.shortcut(x))
        return out

    def without_branch(self) -> nn.Module | None:
        """What is left of the block without its branch; None where the shortcut is no identity."""
        return self.act if isinstance(self.shortcut, nn.Identity) else None


def squeezenext(
    builder: Builder,
    *,
    version: Literal["23", "23v5"],
    width: float = 1.0,
    groups: int = 1,
    repeats: tuple[int, ...] | None = None,
    style: Literal["authors", "pytorchcv"] = "authors",
) -> Network:
    """SqueezeNext; `width` scales the stages, `groups` is 2 in the authors' G net, `repeats` are the stages' blocks.

    style: whose details. Raises UnknownNameError for another, SettingsError where `repeats` are not four.
    """
    if style not in STYLES:
        raise UnknownNameError("style of SqueezeNext", style, STYLES)
    row = VERSIONS[version]
    if repeats is not None and len(repeats) != len(CHANNELS):
        raise SettingsError(
            f"repeats of {counted(len(repeats), 'stage')} for SqueezeNext", "four", "give one per stage"
        )
    theirs = style == "pytorchcv"
    stem, last = (make_divisible(c * width) if theirs else c for c in (STEM, HEAD))
    kernel, padding = (7, 1) if theirs else (row.kernel, 0)
    conv = ConvNormAct(builder.in_chans, stem, kernel, stride=builder.stride(2), padding=padding, bias=theirs)
    builder.stem(conv, stem)
    pool: nn.Module | None = builder.max_pool(padding=0, ceil_mode=True)
    for index, (channels, n) in enumerate(zip(CHANNELS, repeats or row.repeats)):
        c, c_in = make_divisible(channels * width), builder.channels
        stride = builder.stride(2) if index else 1
        blocks: list[nn.Module] = []
        if row.widen_first and not theirs:
            blocks.append(ConvNormAct(c_in, c, stride=stride))
            c_in, stride = c, 1
        widened = bool(blocks)
        for block in range(n):
            blocks.append(
                SqueezeNextBlock(
                    c_in,
                    c,
                    stride=stride,
                    groups=groups,
                    rows_first=block % 2 == 0,
                    bias=theirs,
                    project=block == 0 and not widened,
                )
            )
            c_in, stride = c, 1
        builder.stage(blocks, c, pool=pool)
        pool = None
    head = LinearHead(last, builder.num_classes, drop_rate=builder.drop_rate, bias=theirs)
    return builder.network(head, conv_head=ConvNormAct(builder.channels, last, bias=theirs))
