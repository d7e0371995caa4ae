"""Which channels belong together: a channel without what makes it is one without what reads it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gossamer.analysis.channels import ChannelGroup, channel_groups
from gossamer.analysis.graph import trace
from gossamer.errors import InputError
from gossamer.networks import create_model
from gossamer.networks.registry import NETWORKS, traits
from tests.counterparts import randomise_norms

# a network of each family; its others have the same blocks
FAMILIES: dict[tuple[str, str], str] = {}
for _name, _entry in NETWORKS.items():
    FAMILIES.setdefault((_entry.module, str(_entry.arguments.get("attention", ""))), _name)

# name -> arguments that keep it small, side of its input
SMALL: dict[str, tuple[dict[str, float], int]] = {
    "alexnet": ({"width": 0.25}, 112),
    "ghostnet_050": ({}, 64),
    "lenet5": ({}, 32),
    "lenet5_original": ({}, 32),
    "mobilenetv2_035": ({}, 64),
    "mobilenetv3_small_050": ({}, 64),
    "preresnet20": ({}, 32),
    "resnet18": ({"width": 0.25}, 64),
    "shufflenet_v1_g3_x0_25": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "squeezenet1_1": ({"width": 0.25}, 64),
}


# whose width is one of a few, or none
ONE_WIDTH = ("lenet5", "shufflenet_v2_x0_5")


def groups_of(module: nn.Module, *shape: int) -> tuple[ChannelGroup, ...]:
    return channel_groups(trace(module, (1, *shape)))


def zero(module: nn.Module, group: ChannelGroup, axis: int) -> None:
    """Set every second channel of a group to zero, where layers make it (axis 0) or where they read it (axis 1)."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, of, index in [member for channel in group.channels[::2] for member in channel]:
        if of == axis and "running" not in name:
            tensors[name].select(axis, index).zero_()


def check(module: nn.Module, x: Tensor, groups: tuple[ChannelGroup, ...]) -> None:
    with torch.no_grad():
        plain = module(x)
        for group in groups:
            without_makers, without_readers = copy.deepcopy(module), copy.deepcopy(module)
            zero(without_makers, group, 0)
            zero(without_readers, group, 1)
            expected = without_readers(x)
            torch.testing.assert_close(without_makers(x), expected, atol=1e-4 * float(plain.abs().max()), rtol=1e-4)
            assert not torch.equal(expected, plain), group.axes


@pytest.mark.parametrize("name", SMALL)
def test_a_group_without_its_makers_gives_what_it_gives_without_its_readers(name: str) -> None:
    torch.manual_seed(0)
    channels, (arguments, side) = traits(name).input[0], SMALL[name]
    model = create_model(name, num_classes=5, in_chans=channels, **arguments).eval()
    randomise_norms(model)
    groups = groups_of(model, channels, side, side)
    assert groups
    check(model, torch.randn(1, channels, side, side), groups[:: max(1, len(groups) // 3)])


@pytest.mark.parametrize("name", FAMILIES.values())
def test_every_family_is_covered_and_each_index_has_one_channel(name: str) -> None:
    channels, side, _ = traits(name).input
    width = {} if name in ONE_WIDTH else {"width": 0.25}  # what a channel costs here, and no other operations
    with torch.device("meta"):
        model = create_model(name, in_chans=channels, **width)
    groups = groups_of(model, channels, side, side)
    members = [member for group in groups for channel in group.channels for member in channel]
    assert members and len(members) == len(set(members))
    sizes = {key: value.shape for key, value in model.state_dict().items()}
    assert all(index < sizes[key][axis] for key, axis, index in members)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.relu(x + self.second(x)))


def test_what_is_added_is_one_group_and_what_goes_out_is_none() -> None:
    (group,) = groups_of(Residual(), 3, 8, 8)
    assert group.size == 8
    assert group.axes == (
        ("first.bias", 0),
        ("first.weight", 0),
        ("last.weight", 1),
        ("second.bias", 0),
        ("second.weight", 0),
        ("second.weight", 1),
    )


def test_a_grouped_convolution_loses_the_same_place_of_every_group_and_a_depthwise_one_a_channel() -> None:
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1, groups=2), nn.Conv2d(12, 4, 1))
    read, written = groups_of(grouped, 3, 8, 8)
    assert (read.size, written.size) == (4, 6)
    assert read.channels[0] == (
        ("0.bias", 0, 0),
        ("0.bias", 0, 4),
        ("0.weight", 0, 0),
        ("0.weight", 0, 4),
        ("1.weight", 1, 0),
    )
    depthwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 4))
    (group,) = groups_of(depthwise, 3, 4, 4)
    assert group.size == 8
    assert [member for member in group.channels[1] if member[:2] == ("3.weight", 1)] == [
        ("3.weight", 1, index) for index in range(4, 8)
    ]


def test_what_depends_on_the_number_of_channels_stays() -> None:
    assert groups_of(nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)), 3, 8, 8) == ()


def test_an_operation_without_a_rule_is_named() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(x, 1)

    with pytest.raises(InputError, match="cumsum in 1: no rule"):
        groups_of(nn.Sequential(nn.Conv2d(3, 8, 1), Sorted()), 3, 8, 8)
