"""ShuffleNetV2 (1807.11164), section 2: what multiply-adds do not tell of the time, guidelines G1 to G4."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gossamer.adviser.rule import Candidate, Change, by_cost, one
from gossamer.adviser.subject import Subject
from gossamer.host.text import counted


def unequal(subject: Subject) -> Iterator[Candidate]:
    """G1. 1x1 convolutions: the values they move over the fewest that any of their multiply-adds could (equation 2)."""
    last = max((each.index for each in subject.layers if each.kind in ("conv", "linear")), default=-1)
    for each in subject.layers:
        if not each.pointwise or each.index == last:
            continue
        positions, product = each.grid_in[0] * each.grid_in[1], each.c_in * each.c_out
        moved = positions * (each.c_in + each.c_out) + product
        fewest = 2 * positions * math.sqrt(product) + product
        yield one(each, moved / fewest, each.macs / subject.macs, f"1x1 of {each.c_in} to {each.c_out} channels")


def grouped(subject: Subject) -> Iterator[Candidate]:
    """G2. Grouped convolutions but depthwise ones: the values they move over those of a dense one of equal multiply-adds."""
    for each in subject.layers:
        if each.kind != "conv" or each.groups == 1 or each.depthwise or each.grid_out in ((), (1, 1)):
            continue
        positions = each.grid_out[0] * each.grid_out[1]
        window = each.kernel[0] * each.kernel[1]
        weights = window * each.c_in * each.c_out / each.groups
        moved = positions * (each.c_in + each.c_out) + weights
        dense = positions * (each.c_in + each.c_out) / math.sqrt(each.groups) + weights
        yield one(each, moved / dense, each.macs / subject.macs, f"{each.groups} groups of {each.c_in} channels in all")


def fragments(subject: Subject) -> Iterator[Candidate]:
    """G3. Concatenations and additions: how many branches with a convolution run side by side before them."""
    ancestors: list[int] = []  # of each layer, itself among them, as bits
    for each in subject.layers:
        bits = 1 << each.index
        for source in each.layer.inputs:
            if source >= 0:
                bits |= ancestors[source]
        ancestors.append(bits)
    inner = {
        source
        for each in subject.layers
        if each.kind in ("concat", "add")
        for source in each.layer.inputs
        if source >= 0 and subject.layers[source].kind == "concat" and len(subject.consumers[source]) == 1
    }
    for each in subject.layers:
        if each.kind not in ("concat", "add") or each.index in inner:
            continue
        ends: list[int] = []
        waiting = [source for source in each.layer.inputs if source >= 0]
        while waiting:
            source = waiting.pop()
            if source in inner:
                waiting += [one for one in subject.layers[source].layer.inputs if one >= 0]
            else:
                ends.append(source)
        side_by_side = [end for end in ends if not any(ancestors[other] >> end & 1 for other in ends if other != end)]
        common = ~0
        for end in side_by_side:
            common &= ancestors[end]
        own = 0
        for end in side_by_side:
            own |= ancestors[end] & ~common
        members = [layer for layer in subject.layers[: each.index] if own >> layer.index & 1]
        count = sum(
            any(ancestors[end] & ~common & 1 << layer.index and layer.macs for layer in members) for end in side_by_side
        )
        macs = sum(layer.macs for layer in members)
        yield Candidate((each.index,), count, macs / subject.macs, f"{count} branches side by side")


def elementwise(subject: Subject) -> Iterator[Candidate]:
    """G4. Operations that compute value by value in a pass of their own, and copies: their fraction of the bytes moved."""
    kinds = ("add", "mul", "activation", "norm", "concat", "other")
    layers = [each for each in subject.layers if each.kind in kinds and not each.macs]
    part = sum(each.moved for each in layers) / subject.moved
    if layers:
        yield Candidate(
            by_cost(layers),
            part,
            part,
            f"{counted(len(layers), 'such operation moves', 'such operations move')} {100 * part:.0f} % of the bytes",
        )


def equal_channels(subject: Subject) -> Change:
    return Change("bring the two sides of the 1x1 closer together, at equal multiply-adds")


def fewer_groups(subject: Subject) -> Change:
    name = subject.network
    arguments = {key: value for key, value in subject.arguments.items() if key != "width"}
    if name.startswith("shufflenet_v1"):
        width = {"0_25": "0_5", "0_5": "0_5", "1_0": "1_0", "1_5": "1_5", "2_0": "2_0"}[name.rpartition("_x")[2]]
        other = f"shufflenet_v2_x{width}"
        return Change(f"its successor without groups: the network {other}", other, arguments)
    others = {"resnext50_32x4d": "resnet50", "resnext101_32x8d": "resnet101", "sqnxt23g_w1": "sqnxt23_w1"}
    if name in others:
        return Change(f"the same without groups: the network {others[name]}", others[name], dict(subject.arguments))
    return Change("groups=1 with fewer channels, at equal multiply-adds")


def merge_branches(subject: Subject) -> Change:
    return Change("merge branches of equal windows into one wider convolution, or leave the cheapest out")


def fuse(subject: Subject) -> Change:
    if subject.network.startswith("preresnet"):
        return Change("norm and activation behind the convolution, where they are fused: blocks.residual.BasicBlock")
    return Change("norms and activations right behind a convolution, fewer additions, concatenations and shuffles")
