"""MobileNetV2 (1801.04381): linear bottlenecks, expansion and shortcuts around depthwise convolutions."""

from __future__ import annotations

from collections.abc import Iterator

from gossamer.adviser.manifold import lost
from gossamer.adviser.rule import Candidate, Change, by_cost, one
from gossamer.adviser.subject import RECTIFIERS, LayerFacts, Subject
from gossamer.networks.registry import NETWORKS

NARROW = 4  # times narrower than what it reads: a 1x1 that no k x k follows is then a bottleneck, too


def _projections(subject: Subject) -> Iterator[tuple[LayerFacts, LayerFacts]]:
    """Depthwise convolutions with the 1x1 behind them that narrows their channels; attention may stand between."""
    for each in subject.layers:
        if not each.pointwise or each.c_out >= each.c_in:
            continue
        source = subject.source(each)
        if source is not None and source.kind == "mul" and source.layer.inputs:
            source = subject.layers[min(index for index in source.layer.inputs if index >= 0)]
        if source is not None and source.depthwise:
            yield source, each


def rectified(subject: Subject) -> Iterator[Candidate]:
    """1x1 projections behind depthwise convolutions, with ReLU or ReLU6: the variance that it destroys at their width."""
    for _, each in _projections(subject):
        if each.act in RECTIFIERS:
            figure = lost(each.c_out)
            yield one(
                each,
                figure,
                each.macs / subject.macs,
                f"{100 * figure:.1f} % of a spiral's variance at {each.c_out} channels",
            )


def expansion(subject: Subject) -> Iterator[Candidate]:
    """Blocks of expansion, depthwise convolution and projection: the channels in the middle over those of the input."""
    for depthwise, project in _projections(subject):
        before = subject.source(depthwise)
        if before is not None and before.pointwise and before.c_out >= before.c_in:
            layers = (before, depthwise, project)
            yield Candidate(
                by_cost(layers),
                before.c_out / before.c_in,
                sum(each.macs for each in layers) / subject.macs,
                f"{before.c_in} to {before.c_out} channels",
            )


def unshortened(subject: Subject) -> Iterator[Candidate]:
    """Blocks around a depthwise convolution whose input and output have one shape: 1 without a shortcut, else 0."""
    for each in subject.layers:
        if not each.depthwise or each.stride > 1:
            continue
        behind = subject.reader(each)
        while behind is not None and not behind.pointwise and behind.kind in ("activation", "norm"):
            behind = subject.reader(behind)
        before = subject.source(each)
        if behind is None or not behind.pointwise:
            continue
        if before is not None and before.pointwise and before.c_out > before.c_in and behind.c_out < behind.c_in:
            layers = [before, each, behind]
        else:
            layers = [each, behind]
        entry = layers[0]
        if (entry.c_in, entry.grid_in) != (behind.c_out, behind.grid_out) or -1 in entry.layer.inputs:
            continue
        added = any(subject.layers[reader].kind in ("add", "concat") for reader in subject.consumers[behind.index])
        passed = not (entry.cut and behind.cut)  # another path leads past the block
        yield Candidate(
            by_cost(layers),
            0.0 if added or passed else 1.0,
            sum(layer.macs for layer in layers) / subject.macs,
            f"{behind.c_out} channels at {behind.grid_out[0]}x{behind.grid_out[1]} before and behind",
        )


def strided_shortcut(subject: Subject) -> Iterator[Candidate]:
    """Additions behind a strided depthwise convolution: the stride of the 1x1 or pool on the other path."""
    for each in subject.layers:
        if each.kind != "add" or len(each.layer.inputs) != 2 or min(each.layer.inputs) < 0:
            continue
        ends = [subject.layers[index] for index in each.layer.inputs]
        for main, other in (ends, ends[::-1]):
            depthwise = subject.source(main)
            if main.pointwise and depthwise is not None and depthwise.depthwise and depthwise.stride > 1:
                strided = other.stride if other.kind in ("conv", "pool") else 1
                yield one(other, strided, other.macs / subject.macs, f"stride {strided} on the shortcut")


def linear(subject: Subject) -> Change:
    if _family(subject) == "mobilenetv2" and subject.arguments.get("last_act"):
        arguments = {key: value for key, value in subject.arguments.items() if key != "last_act"}
        return Change("last_act=None, which leaves the projections linear", subject.network, arguments)
    return Change("no activation behind the projection: blocks.residual.InvertedResidual leaves it linear")


def expand_more(subject: Subject) -> Change:
    return Change("expand 4 to 6 times before the depthwise convolution (c_mid of blocks.residual.InvertedResidual)")


def add_shortcut(subject: Subject) -> Change:
    family = _family(subject)
    if family == "mobilenetv2" and subject.arguments.get("shortcut") is False:
        arguments = {key: value for key, value in subject.arguments.items() if key != "shortcut"}
        return Change("shortcut=True", subject.network, arguments)
    if family == "mobilenetv1":
        width = subject.network.removeprefix("mobilenetv1_")
        name = {"025": "mobilenetv2_035", "125": "mobilenetv2_130"}.get(width, f"mobilenetv2_{width}")
        arguments = {key: value for key, value in subject.arguments.items() if key != "width"}
        return Change(f"its successor with shortcuts and linear bottlenecks: the network {name}", name, arguments)
    return Change("add the input to the output: shortcut=True of blocks.residual.InvertedResidual")


def no_shortcut(subject: Subject) -> Change:
    return Change("no shortcut around a strided block, or an average pool of stride 2 on it")


def _family(subject: Subject) -> str:
    return NETWORKS[subject.network].module if subject.network in NETWORKS else ""
