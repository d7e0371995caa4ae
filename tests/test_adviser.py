"""The rules of the adviser: each names its planted fault first and leaves the partner alone; published networks."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from torch import nn

import gossamer
from gossamer.adviser import hardware
from gossamer.adviser.guidelines import elementwise, fragments, grouped, unequal
from gossamer.adviser.hardware import large_gates
from gossamer.adviser.load import lanes, subject_of
from gossamer.adviser.manifold import lost
from gossamer.adviser.representation import unbalanced
from gossamer.adviser.review import Review, review
from gossamer.adviser.rule import Finding
from gossamer.adviser.table import RULES
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.networks import create_model, list_models
from tests.adviserdata import DATA_PAIRS
from tests.adviserpairs import FORMS, PAIRS, Net, conv
from tests.tiers import one_per_family

BY_NAME = {rule.name: rule for rule in RULES}


def named(result: Review) -> list[str]:
    return [finding.rule for finding in result.findings]


def finding_of(result: Review, rule: str) -> Finding:
    (found,) = [finding for finding in result.findings if finding.rule == rule]
    return found


def test_every_rule_has_a_pair_and_is_documented() -> None:
    assert set(PAIRS) | set(DATA_PAIRS) == set(BY_NAME) and len(BY_NAME) == len(RULES)
    assert set(DATA_PAIRS) == {rule.name for rule in RULES if rule.needs_data}
    for rule in RULES:
        assert all(len(text) > 5 for text in (rule.says, rule.reads, rule.figure, rule.reason, rule.cost_of)), rule.name
        assert any(digit.isdigit() for digit in rule.source) or "engine" in rule.source or "QDQ" in rule.source
        assert rule.check.__doc__, rule.name


@pytest.mark.parametrize("rule", PAIRS)
def test_a_planted_fault_is_named_first(rule: str) -> None:
    pair = PAIRS[rule]
    result = review(pair.fault(), (3, pair.side, pair.side))
    assert named(result)[:1] == [rule], [(one.rule, one.severity, one.cost) for one in result.findings]
    found = result.findings[0]
    assert BY_NAME[rule].names(found.figure) and 0 <= found.cost <= 1
    costs = [one.cost for one in BY_NAME[rule].check(result.subject)]
    assert costs and all(0 <= cost <= 1 for cost in costs), "a fraction of the network at each place"
    assert found.layers and set(found.layers) <= {each.name for each in result.subject.layers}
    assert found.change.text and found.source and found.claims == BY_NAME[rule].claims


@pytest.mark.parametrize("rule", PAIRS)
def test_the_partner_without_the_fault_is_left_alone(rule: str) -> None:
    pair = PAIRS[rule]
    assert rule not in named(review(pair.partner(), (3, pair.side, pair.side)))


@pytest.mark.parametrize(("rule", "build", "side"), FORMS)
def test_other_forms_of_a_fault_are_named(rule: str, build: Any, side: int) -> None:
    assert rule in named(review(build(), (3, side, side)))


# of 1998, its third layer 16 convolutions of one channel each, which no network after it has; Caffe's of 2014 has 20 and 50
# channels, which fill no vectors of 16, 5x5 kernels and a fully connected head
OLD = {
    "lenet_caffe": {"fully-connected-head", "large-kernel", "ragged-channels"},
    "lenet5_original": {
        "ragged-channels",
        "elementwise-operations",
        "large-kernel",
        "fragmented",
        "expensive-activation",
    },
}


@pytest.mark.parametrize("name", one_per_family(list_models()))
def test_a_published_network_draws_at_most_two_warnings(name: str) -> None:
    result = review(name)
    warned = {one.rule for one in result.warnings}
    assert len(warned) <= 2 or warned <= OLD.get(name, set()), [(one.rule, one.cost) for one in result.warnings]
    for finding in result.findings:
        if finding.change.network:  # each network that a change proposes can be built
            with torch.device("meta"):
                create_model(finding.change.network, **finding.change.arguments)
    json.dumps(result.to_json(), allow_nan=False)


# each seed network, and what its successor changed
@pytest.mark.parametrize(
    ("name", "arguments", "rule", "severity", "layer"),
    [
        ("alexnet", {}, "fully-connected-head", "warning", "head.classifier"),
        ("vgg16", {}, "fully-connected-head", "warning", "head"),  # GoogLeNet, section 5
        ("vgg16", {}, "aggregation-without-reduction", "warning", "stages"),  # ResNet-50's bottlenecks
        ("googlenet_paper", {}, "large-kernel", "note", "stages"),  # Inception v3, section 3.1
        ("googlenet_paper", {}, "unsplit-kernel", "note", "stages"),
        ("squeezenet1_0", {}, "large-first-kernel", "warning", "stem"),  # SqueezeNet 1.1
        ("mobilenet_v1", {}, "missing-shortcut", "warning", "stages"),  # MobileNetV2
        ("mobilenet_v2", {"last_act": "relu6"}, "activation-after-projection", "warning", "stages"),
        ("mobilenet_v2", {"shortcut": False}, "missing-shortcut", "warning", "stages"),
        ("shufflenet_v1", {}, "many-groups", "warning", "stages"),  # ShuffleNetV2
        ("resnet18", {}, "large-first-kernel", "note", "stem"),  # Inception v3, section 6
        ("efficientnet_b0", {}, "expensive-activation", "warning", "stages"),  # MobileNetV3, EfficientNet-Lite
        ("densenet121", {}, "unfused-norm", "note", "stages"),
        ("preresnet20", {}, "few-features", "note", "head"),
    ],
)
def test_the_seeds_are_named_for_what_their_successors_changed(
    name: str, arguments: dict[str, Any], rule: str, severity: str, layer: str
) -> None:
    found = finding_of(review(name, **arguments), rule)
    assert found.severity == severity
    assert any(one.startswith(layer) for one in found.layers), found.layers


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "inception_v3", "resnet50", "shufflenet_v2"])
def test_the_networks_that_followed_draw_no_warning(name: str) -> None:
    assert review(name).warnings == ()


def test_an_argument_that_made_the_fault_is_the_change() -> None:
    found = finding_of(review("mobilenet_v2", width=0.5, last_act="relu6"), "activation-after-projection")
    assert (found.change.network, found.change.arguments) == ("mobilenetv2_100", {"width": 0.5})
    found = finding_of(review("mobilenet_v2", shortcut=False), "missing-shortcut")
    assert found.change.arguments == {}
    found = finding_of(review("resnet18", (3, 32, 32), num_classes=10), "grid-too-small")
    assert found.change.arguments == {"num_classes": 10, "small_input": True}
    assert "grid-too-small" not in named(review("resnet18", (3, 32, 32), **found.change.arguments))
    found = finding_of(review("mobilenet_v2", act="silu"), "expensive-activation")
    assert found.change.arguments["act"] == "hard_swish"
    norm = finding_of(review("mobilenet_v2", norm="group"), "unfused-norm")
    assert norm.change.arguments == {"norm": "batch"}
    assert "unfused-norm" not in named(review("mobilenet_v2", **norm.change.arguments))


def test_the_figures_are_those_of_the_papers() -> None:
    """G1: c1 = c2 moves the fewest values; G2: g groups move the square root of g times as much; the study's measure."""
    equal = list(unequal(subject_of(Net(conv(32, 32, 1), conv(32, 192, 1), c=192), (3, 64, 64), {})))
    assert equal[0].figure == pytest.approx(1)
    assert equal[1].figure == pytest.approx((1024 * 224 + 6144) / (2 * 1024 * 6144**0.5 + 6144))
    (two,) = grouped(subject_of(Net(conv(32, 32, 1, groups=4)), (3, 64, 64), {}))
    assert two.figure == pytest.approx((1024 * 64 + 256) / (1024 * 32 + 256))
    assert lost(2) > 0.2 > lost(8) > lost(32) > lost(96) > 0.01 > lost(256)


class Gated(nn.Module):
    """Squeeze-and-excitation on the whole map."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


def test_a_gate_costs_its_product_and_its_pool() -> None:
    subject = subject_of(Net(Gated(32)), (3, 64, 64), {})
    (found,) = hardware.large_gates(subject)
    whole, gate = 32 * 32 * 32, 32
    assert found.cost * subject.moved == pytest.approx(4 * ((2 * whole + gate) + (whole + gate)))


class Branches(nn.Module):
    """Two convolutions and a pool side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.pool = conv(32, 32), conv(32, 32), nn.MaxPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.two(x), self.pool(x)], 1)


def test_a_branch_that_multiplies_nothing_is_no_fragment() -> None:
    (found,) = fragments(subject_of(Net(Branches(), c=96), (3, 64, 64), {}))
    assert found.figure == 2


def test_what_the_reasons_say_of_published_networks_is_so() -> None:
    def figures(network: str, check: Any) -> list[float]:
        return [candidate.figure for candidate in check(subject_of(network, None, {}))]

    def said(rule: str, pattern: str) -> float:
        return float(re.search(pattern, BY_NAME[rule].reason)[1])  # type: ignore[index]

    (mine,) = figures("resnet50", elementwise)
    assert said("elementwise-operations", r"ResNet-50 has (0\.\d+)") == round(mine, 2)
    assert said("unbalanced-stages", r"has (0\.\d+)$") == round(max(figures("resnet152", unbalanced)), 2)
    gates = {size: figures(f"mobilenetv3_{size}_100", large_gates) for size in ("large", "small")}
    assert max(gates["large"]) == 28 and sorted(gates["small"])[-2:] == [14, 56]
    assert "an eighth" in BY_NAME["aggregation-without-reduction"].reason
    assert 1 / 9 < (1 / 4 + 9 / 16 + 1 / 4) / 9 < 1 / 8, "1x1, 3x3 and 1x1 over a quarter of the channels"


def test_channels_are_judged_by_the_registers_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Net(conv(32, 24), c=24)
    waste = {}
    for count in (4, 8, 16):
        monkeypatch.setattr("gossamer.adviser.load.lanes", lambda count=count: count)
        waste[count] = [one.figure for one in hardware.ragged(subject_of(network, (3, 64, 64), {}))][-1]
    assert waste == {4: 0, 8: 0, 16: pytest.approx(1 / 3)}
    monkeypatch.undo()
    assert lanes() in (4, 8, 16)


def test_trained_rules_wait_for_weights() -> None:
    result = review("mobilenet_v2", (3, 64, 64))
    waiting = {rule.name for rule in RULES if rule.needs_weights}
    assert set(result.not_applied) == waiting and not waiting & set(result.rules)
    assert set(review(Net(conv(32, 32)), (3, 64, 64)).rules) == set(PAIRS)


def test_a_tied_and_a_broken_weight_are_no_defect() -> None:
    network = Net(conv(32, 64), c=64)
    with torch.no_grad():
        next(network.body.parameters()).fill_(float("nan"))
    assert not {"dead-channels", "low-rank", "uneven-ranges"} & set(named(review(network, (3, 64, 64))))
    shared = conv(32, 32)
    assert isinstance(review(Net(shared, shared), (3, 64, 64)), Review)


def test_the_public_function_is_typed_and_prints_itself() -> None:
    result = gossamer.review("mobilenet_v1")
    assert isinstance(result, Review) and len(result.findings) == len(result.warnings) + len(result.notes)
    assert str(result).splitlines()[0].startswith("mobilenet_v1 at 1x3x224x224: 4.23M parameters")
    assert "warning: missing-shortcut" in str(result) and len(repr(result)) < 3000
    first = result.findings[0]
    assert first.layer == first.layers[0] and first.where == f"{first.layer} and {len(first.layers) - 1} more"


@pytest.mark.parametrize(
    ("target", "shape", "arguments", "error"),
    [
        (nn.ReLU(), (3, 8, 8), {}, InputError),
        (nn.Sequential(), (3, 8, 8), {}, InputError),
        (Net(conv(32, 32)), (1, 64, 64), {}, InputError),
        ("resnet19", None, {}, UnknownNameError),
        ("resnet18", None, {"widht": 0.5}, SettingsError),
        ("resnet18", None, {"width": -1}, SettingsError),
        ("resnet18", (1, 64, 64), {}, InputError),
    ],
)
def test_what_cannot_be_reviewed_is_refused(target: Any, shape: Any, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        review(target, shape, **arguments)


def test_a_detector_like_network_of_several_outputs_is_reviewed() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = conv(3, 32, stride=2), conv(32, 16, 1), conv(32, 64, stride=2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.stem(x)
            return self.a(x), self.b(x)

    result = review(Two(), (3, 64, 64))
    assert not {"heavy-head", "few-features"} & set(named(result))
    assert [each.cut for each in result.subject.layers] == [True, False, False]
