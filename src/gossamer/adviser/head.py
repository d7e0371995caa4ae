"""Heads: fully connected layers, and classifiers beside the features that they read."""

from __future__ import annotations

from collections.abc import Iterator

from gossamer.adviser.rule import Candidate, Change, one
from gossamer.adviser.subject import LayerFacts, Subject
from gossamer.analysis.cost import FREE


def _positions(subject: Subject, each: LayerFacts) -> int:
    """Positions of the map that a linear layer reads as one vector; 1 for a pooled one."""
    for index in each.layer.nodes[0].inputs:
        value = subject.graph.values[index]
        while value.kind == "activation":
            if len(value.shape) == 4:
                return value.shape[2] * value.shape[3]
            node = subject.graph.nodes[value.node] if value.node >= 0 else None
            # through views, and through a linear layer's own followers no further
            if node is None or node.op not in FREE or not node.inputs:
                break
            value = subject.graph.values[node.inputs[0]]
    return 1


def fully_connected(subject: Subject) -> Iterator[Candidate]:
    """Linear layers that read all positions of a map, and those right behind: their fraction of the parameters."""
    layers: list[LayerFacts] = []
    for each in subject.layers:
        if each.kind != "linear":
            continue
        source = subject.source(each)
        if _positions(subject, each) > 1 or (layers and source is layers[-1]):
            layers.append(each)
    part = sum(each.layer.params for each in layers) / subject.params
    if layers:
        ordered = tuple(each.index for each in sorted(layers, key=lambda each: -each.layer.params))
        positions = max(_positions(subject, each) for each in layers)
        yield Candidate(ordered, part, part, f"{100 * part:.0f} % of the parameters, over {positions} positions")


def _classifier(subject: Subject) -> LayerFacts | None:
    """The last layer, where it is linear or a 1x1, and the only output of the network."""
    weighty = [each for each in subject.layers if each.kind in ("conv", "linear")]
    last = weighty[-1] if weighty else None
    if last is None or len(subject.graph.outputs) > 1 or not last.cut:
        return None
    return last if last.kind == "linear" or last.kernel == (1, 1) else None


def heavy(subject: Subject) -> Iterator[Candidate]:
    """What follows the global pool: its parameters over those of the network."""
    pools = [each.index for each in subject.layers if each.kind == "global pool" and each.cut]
    last = _classifier(subject)
    if last is None or not pools:
        return
    layers = [each for each in subject.layers[pools[-1] :] if each.layer.params] or [last]
    if last not in layers:
        return
    part = sum(each.layer.params for each in layers) / subject.params
    ordered = tuple(each.index for each in sorted(layers, key=lambda each: -each.layer.params))
    yield Candidate(
        ordered, part, part, f"{sum(each.layer.params for each in layers):,} of {subject.params:,} parameters"
    )


def few_features(subject: Subject) -> Iterator[Candidate]:
    """The classifier: classes for each feature that it reads."""
    last = _classifier(subject)
    if last is not None and last.c_in:
        part = last.layer.params / subject.params
        yield one(last, last.c_out / last.c_in, part, f"{last.c_out} classes from {last.c_in} features")


def pool_first(subject: Subject) -> Change:
    return Change("a global average pool before one linear layer: blocks.head.ClassifierHead")


def lighter(subject: Subject) -> Change:
    return Change("fewer channels in the last 1x1, or fewer classes")


def more_features(subject: Subject) -> Change:
    return Change("more channels in the last layer before the pool")
