"""VGG. Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014,
arXiv 1409.1556, table 1.

With batch norm the convolutions keep their biases, as in torchvision's weights. The paper's dropout of the two hidden
layers is `drop_rate=0.5`. Other input sizes than 224 are averaged to the 7x7 that the classifier reads.
small_input: the first two max pools are left out.
"""

from __future__ import annotations

from torch import nn

from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.head import MlpHead
from gossamer.blocks.width import make_divisible
from gossamer.errors import SettingsError
from gossamer.host.text import counted
from gossamer.networks.base import KeyMapping, Network
from gossamer.networks.builder import Builder

CHANNELS = (64, 128, 256, 512, 512)
SIDE, HIDDEN = 7, 4096
DEPTHS = {  # convolutions of the five stages; columns A, B, D and E of the table
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def _key_mapping(repeats: tuple[int, ...], norm: bool) -> KeyMapping:
    """They number all layers straight through, activations and pools among them."""
    rules: list[tuple[str, str]] = []
    number = 0
    for stage, n in enumerate(repeats):
        place = f"stages.{stage - 1}" if stage else "stem"
        for index in range(n):
            rules.append((rf"^features\.{number}\.", f"{place}.{index}.conv."))
            if norm:
                rules.append((rf"^features\.{number + 1}\.", f"{place}.{index}.norm."))
            number += 3 if norm else 2
        number += 1
    for theirs in ("classifier", "pre_logits"):
        rules += [(rf"^{theirs}\.0\.", "head.hidden.0.linear."), (rf"^{theirs}\.3\.", "head.hidden.1.linear.")]
    rules += [(r"^pre_logits\.fc1\.", "head.hidden.0.linear."), (r"^pre_logits\.fc2\.", "head.hidden.1.linear.")]
    rules += [(r"^classifier\.6\.", "head.classifier."), (r"^head\.fc\.", "head.classifier.")]
    return KeyMapping("torchvision and timm", tuple(rules))


def vgg(
    builder: Builder,
    *,
    depth: int,
    batch_norm: bool = False,
    width: float = 1.0,
    repeats: tuple[int, ...] | None = None,
) -> Network:
    """VGG of a `depth` in the paper's table; `width` scales every layer but the classifier.

    repeats: convolutions of the five stages in place of the table's. Raises SettingsError where they are not five.
    """
    counts = tuple(repeats or DEPTHS[depth])
    if len(counts) != len(CHANNELS):
        raise SettingsError(f"repeats of {counted(len(counts), 'stage')} for VGG", "five", "give one per stage")
    for index, (channels, n) in enumerate(zip(CHANNELS, counts)):
        c = make_divisible(channels * width)
        inputs = [builder.channels] + [c] * (n - 1)
        convs = [ConvNormAct(c_in, c, 3, bias=True, norm=batch_norm) for c_in in inputs]
        if index == 0:
            builder.stem(nn.Sequential(*convs), c)
        else:
            builder.stage(convs, c, pool=builder.max_pool(kernel=2, padding=0))
    builder.stage([], builder.channels, pool=builder.max_pool(kernel=2, padding=0))
    hidden = make_divisible(HIDDEN * width)
    head = MlpHead(
        builder.channels, builder.num_classes, side=SIDE, hidden=(hidden, hidden), drop_rate=builder.drop_rate
    )
    return builder.network(head, key_mappings=(_key_mapping(counts, batch_norm),))
