"""ResNet. He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385, table 1.
ResNeXt: Xie et al. 2016, 1611.05431, table 1. Wide: Zagoruyko and Komodakis 2016, 1605.07146, table 8 (50-2).
SE-ResNet: Hu et al. 2017, 1709.01507, table 1. CBAM: Woo et al. 2018, 1807.06521, table 4. SKNet: Li et al. 2019,
1903.06586, table 1: ResNeXt with selective kernels in the place of the 3x3.

Projection shortcuts where the shape changes (option B of the paper). From 50 layers on the paper strides the first
1x1 of a block ("v1"); the weights in use stride the 3x3 ("v1.5"), at 6 % more multiply-adds: that is the default.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from gossamer.blocks.attention import Cbam, SelectiveKernel, SqueezeExcite
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.residual import BasicBlock, Bottleneck
from gossamer.blocks.width import make_divisible
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.text import counted
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder


class ResNetDepth(NamedTuple):
    """Blocks of conv2_x, conv3_x, conv4_x and conv5_x."""

    conv2_x: int
    conv3_x: int
    conv4_x: int
    conv5_x: int


STEM = 64
CHANNELS = (64, 128, 256, 512)
DEPTHS = {
    18: ResNetDepth(2, 2, 2, 2),
    34: ResNetDepth(3, 4, 6, 3),
    50: ResNetDepth(3, 4, 6, 3),
    101: ResNetDepth(3, 4, 23, 3),
    152: ResNetDepth(3, 8, 36, 3),
}
ATTENTION = ("none", "se", "cbam", "sk")
EXPANSION = 4  # outputs of a bottleneck block, in its rows' channels; blocks are bottlenecks from 50 layers on

KEY_MAPPING = KeyMapping(
    "torchvision and timm",
    (
        (r"^conv1\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^fc\.", "head.classifier."),
        (r"^layer1\.", "stages.0."),
        (r"^layer2\.", "stages.1."),
        (r"^layer3\.", "stages.2."),
        (r"^layer4\.", "stages.3."),
        (r"^(stages\.\d+\.\d+\.conv\d)\.", r"\1.conv."),
        (r"^(stages\.\d+\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
        (r"\.downsample\.0\.", ".shortcut.conv."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
        (r"\.se\.", ".attention."),
    ),
)

# timm's SKNet names the parts of a convolution as we do
SK_KEY_MAPPING = KeyMapping(
    "timm",
    (
        (r"^(layer\d\.\d+\.conv[13])\.conv\.", r"\1."),
        (r"^(layer\d\.\d+)\.conv([13])\.bn\.", r"\1.bn\2."),
        (r"\.conv2\.paths\.(\d)\.bn\.", r".spatial.paths.\1.norm."),
        (r"\.conv2\.paths\.", ".spatial.paths."),
        (r"\.conv2\.attn\.fc_reduce\.", ".spatial.reduce.conv."),
        (r"\.conv2\.attn\.bn\.", ".spatial.reduce.norm."),
        (r"\.conv2\.attn\.fc_select\.", ".spatial.select."),
        *KEY_MAPPING.rules,
        (r"\.spatial\.", ".conv2."),
    ),
)


def resnet(
    builder: Builder,
    *,
    depth: int,
    width: float = 1.0,
    repeats: tuple[int, ...] | None = None,
    stride_in: Literal["1x1", "3x3"] = "3x3",
    groups: int = 1,
    base_width: int = 64,
    attention: Literal["none", "se", "cbam", "sk"] = "none",
) -> Network:
    """ResNet of a `depth` in the paper's table; `width` scales every layer but the classifier.

    repeats: blocks of the four stages in place of the table's. stride_in: the strided layer of a bottleneck.
    groups, base_width: of the 3x3 in bottlenecks: 32 and 4 give ResNeXt 32x4d, 1 and 128 the wide network.
    attention: "se" for squeeze-and-excitation, "cbam" for channel and spatial attention, both at a sixteenth of the
    block's outputs; "sk" for selective kernels in a bottleneck.
    Raises SettingsError where `repeats` are not four, UnknownNameError for another stride_in or attention.
    """
    if repeats is not None and len(repeats) != len(CHANNELS):
        raise SettingsError(f"repeats of {counted(len(repeats), 'stage')} for ResNet", "four", "give one per stage")
    if stride_in not in ("1x1", "3x3"):
        raise UnknownNameError("strided layer of a bottleneck", stride_in, ("1x1", "3x3"))
    if attention not in ATTENTION or (attention == "sk" and depth < 50):
        raise UnknownNameError("attention of ResNet", attention, ATTENTION if depth >= 50 else ATTENTION[:3])
    stem = make_divisible(STEM * width)
    builder.stem(ConvNormAct(builder.in_chans, stem, 7, stride=builder.stride(2)), stem)
    for index, (channels, n) in enumerate(zip(CHANNELS, repeats or DEPTHS[depth])):
        c = make_divisible(channels * width) * (EXPANSION if depth >= 50 else 1)
        pool = builder.max_pool() if index == 0 else None
        strides = [1 if index == 0 else builder.stride(2)] + [1] * (n - 1)
        inputs = [builder.channels] + [c] * (n - 1)
        blocks: list[nn.Module] = []
        for c_in, s in zip(inputs, strides):
            gate = {"se": SqueezeExcite, "cbam": Cbam}[attention](c, c // 16) if attention in ("se", "cbam") else None
            if depth >= 50:
                c_mid = c // EXPANSION * base_width // 64 * groups
                spatial = None
                if attention == "sk":
                    reduced = make_divisible(c_mid / 16, 32)
                    spatial = SelectiveKernel(c_mid, c_mid, reduced=reduced, stride=s, groups=groups)
                blocks.append(
                    Bottleneck(
                        c_in,
                        c,
                        c_mid=c_mid,
                        stride=s,
                        stride_in=stride_in,
                        groups=groups,
                        spatial=spatial,
                        attention=gate,
                    )
                )
            else:
                blocks.append(BasicBlock(c_in, c, stride=s, attention=gate))
        builder.stage(blocks, c, pool=pool)
    head = LinearHead(builder.channels, builder.num_classes, drop_rate=builder.drop_rate)
    return builder.network(head, key_mappings=(SK_KEY_MAPPING if attention == "sk" else KEY_MAPPING,))
