"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gossamer.adviser.subject import LayerFacts, Subject
from gossamer.host.text import percent

Severity = Literal["warning", "note"]


class Candidate(NamedTuple):
    """What a rule measured somewhere. layers: their places in `Subject.layers`, the most expensive first. figure: in the unit
    of the rule. cost: the fraction of the network that is concerned, of what `Rule.cost_of` names. detail: in words."""

    layers: tuple[int, ...]
    figure: float
    cost: float
    detail: str = ""


@dataclass(frozen=True)
class Change:
    """What a rule proposes. text: in words. network, arguments: of `create_model` for the changed network, where the
    change is an argument of the network or another network of the family; "" where it is not."""

    text: str
    network: str = ""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    says: what is wrong where the figure lies beyond the threshold. source: paper and section. reads: what of the graph.
    figure: what the number is, with its unit. threshold: named where the figure is above it (below: under it), and why.
    cost_of: what the cost is a fraction of. warns_from: the cost from which a finding is a warning and no note, None for
    a rule that only notes. check: all places that the rule knows, with their figures. change: what it proposes. claims: what the change is for.
    """

    name: str
    says: str
    source: str
    reads: str
    figure: str
    threshold: float
    reason: str
    cost_of: str
    warns_from: float | None
    check: Callable[[Subject], Iterable[Candidate]] = field(repr=False)
    change: Callable[[Subject], Change] = field(repr=False)
    below: bool = False
    needs_weights: bool = False
    needs_data: bool = False
    claims: str = "speed"

    def names(self, figure: float) -> bool:
        """Whether the figure lies beyond the threshold."""
        return figure < self.threshold if self.below else figure > self.threshold

    def review(self, subject: Subject) -> Finding | None:
        """What this rule finds in a network; None where no place lies beyond its threshold."""
        named = [candidate for candidate in self.check(subject) if self.names(candidate.figure)]
        if not named:
            return None
        named.sort(key=lambda candidate: -candidate.cost)
        cost = min(1.0, sum(candidate.cost for candidate in named))
        worst = (min if self.below else max)(named, key=lambda candidate: candidate.figure)
        layers = tuple(dict.fromkeys(subject.layers[index].name for one in named for index in one.layers))
        return Finding(
            rule=self.name,
            severity="warning" if self.warns_from is not None and cost >= self.warns_from else "note",
            layers=layers,
            figure=worst.figure,
            figure_is=self.figure,
            threshold=self.threshold,
            below=self.below,
            reason=self.reason,
            text=f"{self.says}" + (f": {worst.detail}" if worst.detail else ""),
            source=self.source,
            change=self.change(subject),
            claims=self.claims,
            cost=cost,
            cost_of=self.cost_of,
            places=tuple(dict.fromkeys(index for one in named for index in one.layers)),
        )


@dataclass(frozen=True)
class Gain:
    """What a change was worth here: median milliseconds of one image, tenth and ninetieth percentile, before and after.

    bytes: of the ONNX file. macs: multiply-adds. memory_bytes: peak of the activations. runtime: what ran both.
    """

    runtime: str
    threads: int
    ms: tuple[float, float]
    spread: tuple[tuple[float, float], tuple[float, float]]
    bytes: tuple[int, int]
    macs: tuple[int, int]
    memory_bytes: tuple[int, int]

    @property
    def slower(self) -> bool:
        """Whether the changed network took longer here."""
        return self.ms[1] > self.ms[0]

    @property
    def clear(self) -> bool:
        """Whether the two spreads lie apart."""
        (low, high), (other_low, other_high) = self.spread
        return other_high < low or other_low > high

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "slower": self.slower, "clear": self.clear}


@dataclass(frozen=True)
class Finding:
    """What a rule found: see `Rule`. layers: names, the most expensive first; places: their numbers in the network.

    gain: what the change was worth, None where it was not measured; not_measured: why, where it could not be.
    """

    rule: str
    severity: Severity
    layers: tuple[str, ...]
    figure: float
    figure_is: str
    threshold: float
    below: bool
    reason: str
    text: str
    source: str
    change: Change
    claims: str
    cost: float
    cost_of: str
    places: tuple[int, ...]
    gain: Gain | None = None
    not_measured: str = ""

    @property
    def layer(self) -> str:
        """The most expensive of the layers, "" where the finding is of the whole network."""
        return self.layers[0] if self.layers else ""

    @property
    def where(self) -> str:
        """The layers in words: "stem", "stem and 3 more"."""
        if not self.layers:
            return "the network"
        more = len(self.layers) - 1
        return f"{self.layer} and {more} more" if more else self.layer

    @property
    def cost_text(self) -> str:
        """Such as "31.2 % of the multiply-adds"."""
        return f"{percent(self.cost)} of the {self.cost_of}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {
            name: value for name, value in vars(self).items() if name not in ("places", "change", "gain", "layers")
        }
        return {
            **values,
            "layer": self.layer,
            "layers": list(self.layers),
            "change": dict(vars(self.change)),
            "gain": self.gain.to_json() if self.gain else None,
        }


def one(each: LayerFacts, figure: float, cost: float, detail: str = "") -> Candidate:
    """A candidate of one layer."""
    return Candidate((each.index,), figure, cost, detail)


def by_cost(layers: Iterable[LayerFacts]) -> tuple[int, ...]:
    """Places of layers, the most expensive first: by multiply-adds, then by bytes."""
    return tuple(each.index for each in sorted(layers, key=lambda each: (-each.macs, -each.moved, each.index)))
