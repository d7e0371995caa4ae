"""Layers of networks as their papers' tables have them, where no counterpart and no published count shows each number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gossamer.networks import create_model


def convolutions(module: nn.Module) -> list[str]:
    """ "7x1 128" of each convolution, in order."""
    return [
        f"{one.kernel_size[0]}x{one.kernel_size[1]} {one.out_channels}"
        for one in module.modules()
        if isinstance(one, nn.Conv2d)
    ]


def empty(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **arguments)


# of the figures 10 to 13 of 1602.07261: a block or reduction, its convolutions, and how many such blocks its stage has
INCEPTION_RESNET_V1 = {
    "stages.1.1": ("1x1 32, 1x1 32, 3x3 32, 1x1 32, 3x3 32, 3x3 32, 1x1 256", 5),
    "stages.2.0": ("3x3 384, 1x1 192, 3x3 192, 3x3 256", 1),
    "stages.2.1": ("1x1 128, 1x1 128, 1x7 128, 7x1 128, 1x1 896", 10),
    "stages.3.0": ("1x1 256, 3x3 384, 1x1 256, 3x3 256, 1x1 256, 3x3 256, 3x3 256", 1),
    "stages.3.1": ("1x1 192, 1x1 192, 1x3 192, 3x1 192, 1x1 1792", 5),
}


def test_inception_resnet_v1_is_that_of_the_figures() -> None:
    model = empty("inception_resnet_v1")
    for path, (expected, count) in INCEPTION_RESNET_V1.items():
        assert convolutions(model.get_submodule(path)) == expected.split(", "), path
        stage, _, index = path.rpartition(".")
        if index != "0":
            blocks = [convolutions(one) for one in model.get_submodule(stage).children()]
            assert blocks.count(expected.split(", ")) == count


@pytest.mark.parametrize(("width", "channels"), [(1.0, (64, 128, 256, 512, 512)), (100 / 512, (16, 24, 48, 104, 104))])
def test_vgg_16_is_column_d_of_the_table(width: float, channels: tuple[int, ...]) -> None:
    model = empty("vgg16", width=width)
    layers = [f"3x3 {c}" for c, count in zip(channels, (2, 2, 3, 3, 3)) for _ in range(count)]
    assert convolutions(model) == layers
    hidden = round(4096 * width)
    linears = {name: one.out_features for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    assert linears == {"head.hidden.0.linear": hidden, "head.hidden.1.linear": hidden, "head.classifier": 1000}


@pytest.mark.parametrize(("arguments", "has_bias"), [({}, True), ({"classifier_bias": False}, False)])
def test_the_classifier_of_a_shufflenet_has_a_bias_unless_it_is_told_otherwise(
    arguments: dict[str, Any], has_bias: bool
) -> None:
    names = [name for name, _ in empty("shufflenet_v1_g3_x0_25", **arguments).named_parameters()]
    assert [name for name in names if name.startswith("head.")] == [
        "head.classifier.weight",
        *["head.classifier.bias"] * has_bias,
    ]


@pytest.mark.parametrize("small_input", [False, True])
def test_transitions_of_a_densenet_average_2x2_positions_of_half_the_channels(small_input: bool) -> None:
    model = empty("densenet121", small_input=small_input)
    for stage, channels in ((1, 128), (2, 256), (3, 512)):
        pool = model.get_submodule(f"stages.{stage}.pool.pool")
        assert isinstance(pool, nn.AvgPool2d) and (pool.kernel_size, pool.stride) == (2, 2)
        assert convolutions(model.get_submodule(f"stages.{stage}.pool")) == [f"1x1 {channels}"]


@pytest.mark.parametrize(("groups", "channels"), [(1, 144), (2, 200), (3, 240), (4, 272), (8, 384)])
def test_stages_of_a_shufflenet_are_those_of_table_1(groups: int, channels: int) -> None:
    model = empty(f"shufflenet_v1_g{groups}_x1_0", features_only=True)
    info: Any = model.feature_info
    assert info.channels()[-3:] == [channels, 2 * channels, 4 * channels]


# of the files of networks whose tables hold multiples of 8, in which small changes are rounded away at width 1
ROUNDED = (
    *("alexnet", "densenet121", "densenet161", "efficientnet_b0", "ghostnet_100", "googlenet", "inception_resnet_v1"),
    *("inception_resnet_v2", "inception_v2", "inception_v3", "inception_v4", "mnasnet_100", "mnasnet_small"),
    *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100", "mobilenetv4_conv_large"),
    *("mobilenetv4_conv_medium", "mobilenetv4_conv_small", "rir18", "semnasnet_100", "sqnxt23_w1", "sqnxt23v5_w1"),
    *("squeezenet1_0", "squeezenet1_1", "vgg16"),
)


@pytest.mark.parametrize("name", ROUNDED)
def test_a_network_of_8_times_the_width_has_8_times_the_channels(name: str) -> None:
    """But for a stem or a head that stays as it is."""
    plain, wide = (
        {path: one.out_channels for path, one in empty(name, width=width).named_modules() if isinstance(one, nn.Conv2d)}
        for width in (1.0, 8.0)
    )
    assert plain.keys() == wide.keys()
    for path, channels in plain.items():
        if ".attention." in path:
            continue  # a quarter of its channels, rounded
        fixed = [channels] if path.startswith(("stem", "conv_head", "head")) else []
        assert wide[path] in [8 * channels, *fixed], path
