"""The networks: counted exactly, equal to their counterparts, usable as backbones."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.drop import DropPath
from gossamer.blocks.inception import GridReduction, InceptionA
from gossamer.blocks.pool import DilatedAvgPool2d
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks import Features, Network, create_model, list_models, load_weights, resolve
from gossamer.networks.dilate import dilate
from gossamer.networks.registry import ALIASES, NETWORKS, traits
from gossamer.networks.weights import _compare, _in_our_names
from tests.counterparts import counterpart
from tests.tiers import one_case_per_family, one_per_family, quick_ones

with (Path(__file__).parent / "networks.csv").open(encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

FAMILIES = ("mobilenetv1_100", "mobilenetv2_100", "resnet18", "shufflenet_v2_x1_0", "squeezenet1_1")

with (Path(__file__).parent / "counterparts.csv").open(encoding="utf-8") as file:
    COUNTERPARTS = list(csv.DictReader(file))

LATER_FAMILIES = (
    "densenet121",
    "efficientnet_b0",
    "ghostnet_050",
    "googlenet",
    "lenet5",
    "lenet5_original",
    "mnasnet_small",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "preresnet20",
    "resnext50_32x4d",
    "rir18",
    "seresnet50",
    "shufflenet_v1_g3_x0_5",
    "sqnxt23v5_w1",
)

# they have layers without padding
UNPADDED = ("alexnet", "googlenet", "inception", "lenet", "sqnxt", "squeezenet")

# for small images: all their strides are kept
MADE_SMALL = ("lenet", "preresnet", "rir", "wrn")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def macs(model: Callable[[torch.Tensor], Any], shape: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape, device="meta"))
    assert counter.get_total_flops() % 2 == 0
    return int(counter.get_total_flops()) // 2


def empty(name: str, **arguments: Any) -> Network:
    """The network without memory for its weights."""
    with torch.device("meta"):
        model = create_model(name, **arguments)
    return model.eval()


def features(name: str, **arguments: Any) -> Features:
    with torch.device("meta"):
        model = create_model(name, features_only=True, **arguments)
    return model.eval()


class AuxPath(nn.Module):
    """A network as it runs while training, with its auxiliary classifiers."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> Any:
        return self.network.forward_aux(x)


def shapes(model: nn.Module, *shape: int) -> list[tuple[int, ...]]:
    """Of what `model` gives for an input of `shape`."""
    graph = trace(model, shape)
    return [graph.values[index].shape for index in graph.outputs]


def last_reduction(name: str) -> int:
    """The reduction of the last feature map, without `small_input`."""
    return 4 if name.startswith(MADE_SMALL) else 16 if name.startswith("squeezenet") else 32


def check_feature_maps(name: str, model: Features, channels: int, last: int) -> None:
    size = 128 if name.startswith(UNPADDED) else 64
    maps = shapes(model, 2, channels, size, size)
    reductions = model.feature_info.reduction()
    assert reductions[-1] == last
    assert reductions == sorted({2 ** (r.bit_length() - 1) for r in reductions})
    assert [shape[:2] for shape in maps] == [(2, c) for c in model.feature_info.channels()]
    for shape, reduction in zip(maps, reductions, strict=True):
        if name.startswith(UNPADDED):
            assert size // reduction - 12 <= shape[2] <= size // reduction
        else:
            assert shape[2:] == (size // reduction, size // reduction)


# counts


@pytest.mark.parametrize("row", one_case_per_family((row["model"], row["name"], row) for row in ROWS))
def test_parameters_macs_and_feature_maps_are_those_of_the_reference(row: dict[str, str]) -> None:
    model = empty(row["model"], **json.loads(row["options"] or "{}"))
    shape = (1, *map(int, row["input"].split("x")))
    total = cost(AuxPath(model) if row["path"] == "aux" else model, shape)
    assert (total.params, total.macs) == (int(row["params"]), int(row["macs"]))
    assert sum(p.numel() for p in model.parameters()) == total.params
    assert total.unknown == {}
    check_feature_maps(row["model"], Features(model), shape[1], last_reduction(row["model"]))


@pytest.mark.parametrize("name", sorted(set(list_models()) - {resolve(row["model"]) for row in ROWS}))
def test_feature_maps_have_the_shapes_they_announce(name: str) -> None:
    check_feature_maps(name, features(name), traits(name).input[0], last_reduction(name))


@pytest.mark.parametrize("name", one_per_family(list_models()))
def test_feature_maps_of_small_inputs_have_the_shapes_they_announce(name: str) -> None:
    kept = 8 if name.startswith("alexnet") else 1 if name.startswith(MADE_SMALL) else 4  # AlexNet's first stride is 4
    check_feature_maps(name, features(name, small_input=True, in_chans=1), 1, last_reduction(name) // kept)


def test_mobilenet_v2_has_17_bottlenecks_each_at_the_cost_of_the_papers_formula() -> None:
    model = empty("mobilenet_v2")
    blocks = [block for stage in model.stages for block in stage]
    assert len(blocks) == 17
    side, d = 112, 32
    for block, (t, d_out, s) in zip(
        blocks,
        [(1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1), (6, 64, 2)]
        + [(6, 64, 1)] * 3
        + [(6, 96, 1)] * 3
        + [(6, 160, 2), (6, 160, 1), (6, 160, 1), (6, 320, 1)],
        strict=True,
    ):
        out = side // s
        expand = side * side * d * t * d if t > 1 else 0
        assert macs(block, (d, side, side)) == expand + out * out * t * d * (9 + d_out)
        side, d = out, d_out


# counterparts


@pytest.mark.parametrize(
    "row",
    one_case_per_family(
        (row["ours"], f"{row['library']}-{row['theirs']}-{row['their_arguments']}", row) for row in COUNTERPARTS
    ),
)
def test_a_counterparts_weights_load_strictly_and_give_its_outputs(row: dict[str, str], tmp_path: Path) -> None:
    library = row["library"]
    other = counterpart(library, row["theirs"], **json.loads(row["their_arguments"] or "{}"))
    torch.save(other.state_dict(), tmp_path / "counterpart.pth")
    model = empty(row["ours"], **json.loads(row["arguments"] or "{}"))
    model.to_empty(device="cpu")  # every tensor must come from the counterpart
    difference = load_weights(model, tmp_path / "counterpart.pth")
    assert difference.fits and difference.classifier is None
    assert library in difference.key_mapping
    assert difference.loaded == len(model.state_dict())
    x = torch.randn(2, 3, *map(int, (row["input"] or "64x96").split("x")))
    with torch.no_grad():
        got = model(x)
        if library == "timm":
            maps, their_maps = model.forward_features(x), other.forward_features(x)
            expected = other.forward_head(their_maps)
            torch.testing.assert_close(maps, their_maps, atol=1e-5, rtol=1e-5)
            embedding = other.forward_head(their_maps, pre_logits=True)
            torch.testing.assert_close(model.forward_head(maps, pre_logits=True), embedding, atol=1e-5, rtol=1e-5)
        else:
            expected = other(x)
    assert float(expected.std()) > 1e-3  # a dead network would agree with anything
    assert float((expected - got).abs().max()) < 1e-5


# of each file of networks one a library, and two of other layers
SHAPES = [
    *{(row["library"], NETWORKS[resolve(row["ours"])].module): row for row in reversed(COUNTERPARTS)}.values(),
    *(row for row in COUNTERPARTS if row["ours"] in ("resnext50_32x4d", "wide_resnet50_2")),
]


@pytest.mark.parametrize("row", SHAPES, ids=[f"{row['library']}-{row['theirs']}" for row in SHAPES])
def test_each_tensor_of_a_counterpart_is_one_of_ours_of_its_shape(row: dict[str, str]) -> None:
    """On the meta device; without those of which ours has none."""
    with torch.device("meta"):
        other = counterpart(row["library"], row["theirs"], **json.loads(row["their_arguments"] or "{}"))
    model = empty(row["ours"], **json.loads(row["arguments"] or "{}"))
    own = model.state_dict()
    key_mapping, renamed = _in_our_names(other.state_dict(), model, own)
    difference, fitting = _compare("counterpart", key_mapping, renamed, model, own)
    assert difference.fits and difference.classifier is None and difference.adapted is None, difference
    assert row["library"] in key_mapping.library and fitting.keys() == own.keys()


@pytest.mark.parametrize("name", ["mobilenetv1_100", "mobilenetv2_050", "mobilenetv2_140", "resnet18"])
def test_features_have_the_channels_and_reductions_of_timm(name: str) -> None:
    theirs = counterpart("timm", name, features_only=True)
    ours = features(name)
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


def test_features_are_the_maps_of_timm(tmp_path: Path) -> None:
    other = counterpart("timm", "mobilenetv2_050")
    torch.save(other.state_dict(), tmp_path / "counterpart.pth")
    model = create_model("mobilenetv2_050", features_only=True).eval()
    load_weights(model, tmp_path / "counterpart.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = other.forward_intermediates(x, intermediates_only=True)
        got = model(x)
    for theirs, ours in zip(expected, got, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# backbones


@pytest.mark.parametrize("name", FAMILIES)
def test_small_input_changes_strides_and_no_weight(name: str) -> None:
    plain, small = empty(name), empty(name, small_input=True)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in small.state_dict().items()}
    strided = [m for m in small.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d)) and m.stride in (2, (2, 2))]
    assert small.feature_info[-1].reduction * 4 == plain.feature_info[-1].reduction
    assert strided
    with torch.no_grad():
        x = torch.empty(2, 3, 32, 32, device="meta")
        side = small.forward_features(x).shape[-1]
    assert side == (7 if name == "squeezenet1_1" else 4)


def test_small_input_adds_no_shortcut() -> None:
    """At width 0.35 the second row's first block keeps its channels, and at stride 1 it could have a shortcut."""
    plain, small = empty("mobilenetv2_035"), empty("mobilenetv2_035", small_input=True)
    for ours, theirs in zip(plain.stages, small.stages, strict=True):
        assert [block.shortcut for block in ours] == [block.shortcut for block in theirs]
    assert not small.stages[1][0].shortcut


def test_out_indices_choose_maps_and_leave_out_what_follows() -> None:
    model = features("mobilenet_v2", out_indices=(-3, 1))
    assert model.feature_info.reduction() == [4, 8]
    assert [m.shape[1] for m in model(torch.empty(1, 3, 64, 64, device="meta"))] == [24, 32]
    assert len(model.stages) == 3
    stem = features("resnet18", out_indices=[0])
    assert [tuple(m.shape) for m in stem(torch.empty(1, 3, 64, 64, device="meta"))] == [(1, 64, 32, 32)]


@pytest.mark.parametrize("name", [*FAMILIES, *LATER_FAMILIES])
@pytest.mark.parametrize(
    "memory_format", [torch.channels_last, pytest.param(torch.contiguous_format, marks=pytest.mark.full)]
)
def test_one_step_trains_every_parameter(name: str, memory_format: torch.memory_format) -> None:
    model = create_model(name, num_classes=3, small_input=True, drop_rate=0.1)
    model.to(memory_format=memory_format).train()
    x = torch.randn(4, 3, 32, 32).to(memory_format=memory_format)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = F.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for key, value in model.named_parameters():
        assert value.grad is not None, key
        assert torch.isfinite(value).all(), key
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before)


@pytest.mark.parametrize(
    ("name", "aux"),
    [
        ("inception_v2", 0),
        ("inception_v3", 1),
        ("inception_v4", 0),
        ("inception_resnet_v1", 0),
        ("googlenet_paper", 2),
        ("cbam_resnet50", 0),
        ("skresnext50_32x4d", 0),
    ],
)
def test_one_step_trains_the_networks_of_large_inputs_and_their_auxiliary_classifiers(name: str, aux: int) -> None:
    model = create_model(name, num_classes=3, **({"aux": True} if aux else {})).train()
    outputs = model(torch.randn(2, 3, 107, 107))
    logits, others = outputs if aux else (outputs, [])
    assert len(others) == aux and all(other.shape == (2, 3) for other in others)
    target = torch.tensor([0, 2])
    loss = F.cross_entropy(logits, target) + sum(0.3 * F.cross_entropy(other, target) for other in others)
    loss.backward()
    assert torch.isfinite(loss)
    for key, value in model.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), key


def test_shufflenet_v2_with_attention_has_a_gate_in_each_unit() -> None:
    plain, attention = empty("shufflenet_v2_x1_0"), empty("shufflenet_v2_x1_0", attention="se")
    added = 0
    for half, units in ((58, 4), (116, 8), (232, 4)):
        added += units * (2 * half * (half // 16) + half // 16 + half)
    assert sum(p.numel() for p in attention.parameters()) - sum(p.numel() for p in plain.parameters()) == added
    with pytest.raises(UnknownNameError, match="sk"):
        create_model("shufflenet_v2_x1_0", attention="sk")


@pytest.mark.parametrize("name", FAMILIES)
def test_without_classes_a_network_returns_the_input_of_its_classifier(name: str) -> None:
    model = create_model(name, num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = model.forward_features(x)
        embedding = model.forward_head(maps, pre_logits=True)
        logits = model(x)
        torch.testing.assert_close(model.forward_head(maps), logits)
        assert maps.shape[1] == model.num_features
        assert logits.shape == (2, 7)
        model.reset_classifier(0)
        assert model.num_classes == 0 and not list(model.head.parameters())
        torch.testing.assert_close(model(x), embedding)
        assert embedding.shape == (2, model.num_features)
        model.reset_classifier(4)
        assert model(x).shape == (2, 4)
    assert create_model(name, num_classes=0)(x).shape == (2, model.num_features)


def test_a_new_classifier_is_on_the_device_of_the_network() -> None:
    model = create_model("mobilenetv1_025", num_classes=0).to(torch.bfloat16)
    model.reset_classifier(5)
    assert model.head.classifier.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenetv1_100", "mobilenet_v2"])
def test_width_scales_every_layer_but_the_classifier(name: str) -> None:
    model = empty(name, width=0.5)
    full = empty(name)
    assert macs(model, (3, 64, 64)) < 0.5 * macs(full, (3, 64, 64))
    assert all(
        half in (c // 2, c // 2 + 4) for half, c in zip(model.feature_info.channels(), full.feature_info.channels())
    )
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize(
    "name",
    [
        "googlenet",
        "inception_v3",
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name in ("inception_v2", "inception_v4", "inception_resnet_v1", "inception_resnet_v2")
        ),
    ],
)
def test_an_inception_network_of_half_the_width_costs_about_a_quarter(name: str) -> None:
    half, full = macs(empty(name, width=0.5), (3, 224, 224)), macs(empty(name), (3, 224, 224))
    assert 0.24 * full < half < 0.3 * full


def test_dropout_acts_before_the_classifier_while_training_only() -> None:
    model = create_model("mobilenetv1_025", num_classes=3, drop_rate=0.5)
    maps = torch.ones(1, 256, 2, 2)
    assert set(model.forward_head(maps, pre_logits=True).unique().tolist()) == {0.0, 2.0}
    model.eval()
    assert set(model.forward_head(maps, pre_logits=True).unique().tolist()) == {1.0}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_network_neither_fades_nor_explodes(name: str) -> None:
    model = create_model(name, num_classes=0).train()
    with torch.no_grad():
        scale = float(model(torch.randn(8, 3, 64, 64)).std())
    assert 1e-2 < scale < 1e2


def test_fresh_weights_follow_the_seed() -> None:
    torch.manual_seed(1)
    first = create_model("squeezenet1_1", num_classes=2).state_dict()
    torch.manual_seed(1)
    second = create_model("squeezenet1_1", num_classes=2).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


# names and arguments


def test_timms_and_torchvisions_names_reach_the_same_network() -> None:
    assert resolve("mobilenet_v2") == resolve("mobilenetv2_100") == "mobilenetv2_100"
    assert all(alias not in NETWORKS and own in NETWORKS for alias, own in ALIASES.items())


def test_list_models_matches_names_and_aliases() -> None:
    assert list_models() == sorted(NETWORKS)
    large, small = "mobilenetv3_large_100", "mobilenetv3_small_100"
    assert list_models("mobilenet_v*") == ["mobilenetv1_100", "mobilenetv2_100", large, small]
    assert list_models("squeeze*") == ["squeezenet1_0", "squeezenet1_1"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("mobilnet_v2", "mobilenet_v2"), ("resnet_18", "resnet18"), ("shufflenetv2_x1_0", "shufflenet_v2_x1_0")],
)
def test_a_misspelt_name_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"did you mean {right}\?"):
        create_model(wrong)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("shufflenet_v2", {"width": 0.7}, "0.5, 1, 1.5, 2"),
        ("mobilenet_v2", {"width": 0}, "above 0"),
        ("mobilenet_v2", {"width": "half"}, "above 0"),
        ("mobilenet_v2", {"num_classes": -1}, "num_classes: -1"),
        ("mobilenet_v2", {"num_classes": 2.5}, "num_classes: 2.5"),
        ("mobilenet_v2", {"in_chans": 0}, "in_chans: 0"),
        ("mobilenet_v2", {"drop_rate": 1.0}, "drop_rate: 1.0"),
        ("mobilenet_v2", {"strides": (1, 2)}, "strides of 2 rows"),
        ("mobilenet_v2", {"depth": 3}, "no argument 'depth'; allowed: width, strides"),
        ("resnet18", {"depth": 34}, "no argument 'depth'; allowed: width, repeats"),
        ("resnet18", {"drop_rate": "half"}, "drop_rate: 'half'"),
        ("mobilenet_v2", {"out_indices": (0,)}, "features_only=True"),
        ("mobilenet_v2", {"features_only": True, "out_indices": (5,)}, "0 to 4"),
        ("mobilenet_v2", {"features_only": True, "out_indices": ()}, "at least one"),
        ("shufflenet_v2", {"down_unit": "author"}, "did you mean authors?"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, UnknownNameError)) as caught:
        empty(name, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_listing_the_names_needs_no_torch() -> None:
    code = "import sys, gossamer.networks as n; n.list_models('*'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", quick_ones(FAMILIES, ["resnet18", "squeezenet1_1"]))
def test_a_network_is_traced_completely(name: str) -> None:
    """No branch depends on data: what tracing, compiling and exporting need."""
    model = create_model(name, num_classes=4, small_input=True).eval()
    x = torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(x), model(x))


# what every family takes


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "shufflenet_v2_x1_0", "densenet121"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_network_gives_the_strided_ones_values_at_every_second_place(name: str, output_stride: int) -> None:
    strided = create_model(name, features_only=True).eval().double()  # fresh DenseNets make large values
    dilated = create_model(name, features_only=True, output_stride=output_stride).eval().double()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = strided(x)[-1], dilated(x)[-1]
    step = 32 // output_stride
    assert fine.shape[-1] == 64 // output_stride
    assert dilated.feature_info.reduction()[-1] == output_stride
    torch.testing.assert_close(fine[..., ::step, ::step], coarse, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "inception_v2", "inception_v3", "inception_v4", "vgg11"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_maps_have_one_size_whatever_the_padding_of_their_layers(name: str, output_stride: int) -> None:
    model = features(name, output_stride=output_stride)
    maps = model(torch.empty(1, 3, 203, 235, device="meta"))
    kept = [m.shape[2:] for m, info in zip(maps, model.feature_info) if info.reduction == output_stride]
    assert len(kept) >= 2 and len(set(kept)) == 1


@pytest.mark.parametrize("side", [64, 67])
def test_dilated_branches_without_padding_give_the_strided_ones_values(side: int) -> None:
    """Convolutions beside a pool, then a padded pool, as in Inception; but where the coarse map had its border."""
    layers = [
        ConvNormAct(3, 4, 3, stride=2),
        GridReduction(4, ((4, 3),), ((4, 1), (4, 3), (4, 3))),
        InceptionA(12, c1x1=4, single=(4, 4), double=(4, 4, 4), pool=4, pooling=nn.MaxPool2d(3, 1, padding=1)),
    ]
    strided = nn.Sequential(*layers).eval().double()
    dilated = copy.deepcopy(strided)
    dilate(dilated, 2, 3)
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = strided(x), dilated(x)
    assert fine.shape[-1] == (side + 1) // 2
    last = coarse.shape[-1] - 2  # two 3x3 reach two positions behind their own
    torch.testing.assert_close(fine[..., ::2, ::2][..., :last, :last], coarse[..., :last, :last], atol=1e-12, rtol=0)


def test_a_wrong_output_stride_is_refused() -> None:
    with pytest.raises(SettingsError, match="output_stride: 12"):
        create_model("resnet18", output_stride=12)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenetv3_small_100", "seresnet50"])
def test_activation_and_norm_are_replaced_but_gates_are_kept(name: str) -> None:
    model = create_model(name, act="elu", norm="group", num_classes=3)
    layers = dict(model.named_modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers.values())
    assert any(isinstance(layer, nn.GroupNorm) for layer in layers.values())
    acts = [layer for path, layer in layers.items() if path.rpartition(".")[2] == "act"]
    assert acts and all(isinstance(layer, nn.ELU) for layer in acts)
    gates = [layer for path, layer in layers.items() if path.rpartition(".")[2] == "gate"]
    assert not any(isinstance(layer, nn.ELU) for layer in gates)
    assert bool(gates) == (name != "mobilenet_v2")
    assert torch.isfinite(model(torch.randn(2, 3, 64, 64))).all()


def test_an_unknown_activation_or_norm_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="relu6"):
        create_model("mobilenet_v2", act="relu7")
    with pytest.raises(UnknownNameError, match="batch"):
        create_model("mobilenet_v2", norm="bach")


def test_drop_path_grows_with_depth_and_acts_while_training_only() -> None:
    model = create_model("mobilenet_v2", drop_path_rate=0.5)
    rates = [layer.rate for layer in model.modules() if isinstance(layer, DropPath)]
    assert rates[0] == 0 and rates[-1] == 0.5 and rates == sorted(rates)
    layer = DropPath(0.5).train()
    values = layer(torch.ones(64, 2, 3, 3))
    assert set(values.unique().tolist()) == {0.0, 2.0}
    assert all(len(image.unique()) == 1 for image in values)
    assert torch.equal(layer.eval()(torch.ones(2, 1, 1, 1)), torch.ones(2, 1, 1, 1))


def test_norm_eps_is_the_argument_the_familys_or_that_of_the_weights(tmp_path: Path) -> None:
    def eps(model: nn.Module) -> set[float]:
        return {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)}

    assert eps(create_model("mobilenetv3_small_050")) == {1e-3}
    assert eps(create_model("mobilenetv3_small_050", norm_eps=0.01)) == {0.01}
    torch.save(counterpart("timm", "mobilenetv3_small_050").state_dict(), tmp_path / "counterpart.pth")
    model = create_model("mobilenetv3_small_050")
    assert load_weights(model, tmp_path / "counterpart.pth").norm_eps == 1e-5
    assert eps(model) == {1e-5}


@pytest.mark.parametrize("include", [True, False])
def test_a_dilated_average_pool_of_dilation_one_is_torchs(include: bool) -> None:
    x = torch.randn(2, 3, 11, 13)
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1)):
        ours = DilatedAvgPool2d(kernel, stride=stride, padding=padding, count_include_pad=include)
        torch.testing.assert_close(ours(x), F.avg_pool2d(x, kernel, stride, padding, count_include_pad=include))


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_weights_for_three_channels_serve_any_number(channels: int, tmp_path: Path) -> None:
    full = create_model("resnet18", num_classes=3).eval()
    torch.save(full.state_dict(), tmp_path / "full.pth")
    other = create_model("resnet18", num_classes=3, in_chans=channels).eval()
    assert load_weights(other, tmp_path / "full.pth").adapted == (3, channels)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = full(grey.expand(1, 3, 64, 64))
        torch.testing.assert_close(other(grey.expand(1, channels, 64, 64)), expected, atol=1e-4, rtol=1e-4)
