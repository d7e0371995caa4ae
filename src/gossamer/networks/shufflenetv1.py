"""ShuffleNet. Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices, 2017,
arXiv 1707.01083, table 1.

The stem's width is not the same in all counts of the paper: 12 at 0.5x and 0.25x, 24 at 1x and 1.5x, 48 at 2x give the
printed ones (`conv1` chooses; 8 groups need 16 for 12). The first unit of stage 2 has no groups in its first 1x1.
small_input: stride 1 in the stem; the max pool after it is left out.
"""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import LinearHead
from gossamer.blocks.shuffle import GroupShuffleUnit
from gossamer.errors import SettingsError
from gossamer.networks.base import Network
from gossamer.networks.builder import Builder

# outputs of stage 2 by the number of groups; stages 3 and 4 double them
STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
REPEATS = (4, 8, 4)  # units of stages 2, 3, 4; the first is strided
STEMS = {0.25: 12, 0.5: 12, 2.0: 48}  # 24 at the other widths


def shufflenet_v1(
    builder: Builder,
    *,
    groups: int = 3,
    width: float = 1.0,
    conv1: int | None = None,
    repeats: tuple[int, ...] = REPEATS,
    shuffle: bool = True,
    classifier_bias: bool = True,
) -> Network:
    """ShuffleNet with `groups` of 1, 2, 3, 4 or 8, its channels scaled by `width`.

    conv1: channels of the stem. shuffle: False for the ablation of table 3. classifier_bias: the authors' code
    (megvii-model/ShuffleNet-Series) has none. Raises SettingsError for other groups.
    """
    if groups not in STAGE2:
        raise SettingsError(f"groups {groups} for ShuffleNet", ", ".join(map(str, STAGE2)), "choose one of them")
    stem = conv1 or STEMS.get(width, 24)
    stem += (STAGE2[groups] - stem) % groups  # the first branch makes what the stem's channels leave of stage 2
    builder.stem(ConvNormAct(builder.in_chans, stem, 3, stride=builder.stride(2)), stem)
    pool: nn.Module | None = builder.max_pool()
    for index, n in enumerate(repeats):
        multiple = 4 * groups  # the middle is a quarter, and has whole groups
        c = max(multiple, round(STAGE2[groups] * width * 2**index / multiple) * multiple)
        units = []
        for unit in range(n):
            first = groups if index or unit else 1
            stride = builder.stride(2) if unit == 0 else 1
            units.append(
                GroupShuffleUnit(
                    builder.channels if unit == 0 else c,
                    c,
                    groups=groups,
                    first_groups=first,
                    stride=stride,
                    concat=unit == 0,
                    shuffle=shuffle,
                )
            )
        builder.stage(units, c, pool=pool)
        pool = None
    head = LinearHead(builder.channels, builder.num_classes, drop_rate=builder.drop_rate, bias=classifier_bias)
    return builder.network(head)
