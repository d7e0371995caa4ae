"""Which networks of the zoo keep a budget: counted first, timed with fresh weights where counting leaves it open."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gossamer.errors import GossamerError
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.selection.budget import SAFETY, Budget, Use
from gossamer.selection.choices import NetworkChoice, expected_top1
from gossamer.selection.counting import Builder, Counted, file_overhead
from gossamer.selection.timing import NetworkTimes

ESTIMATED = 4.0  # times too much by the zoo's table, with which a network is not even counted
PREDICTED = 1.5  # times the limit that a network of the same family says it takes, with which it is not timed
OUT_OF_TIME = "not tried: the time for measuring is used up"
NEAREST = 3  # networks that are timed to name the one that comes nearest to a budget


@dataclass(frozen=True)
class Fit:
    """A network that keeps the budget. uses: precision -> what it takes, of those precisions that keep it."""

    choice: NetworkChoice
    expected: float
    params: int
    macs: int
    uses: dict[str, Use]

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `fit_of` reads."""
        return asdict(self)


def fit_of(values: dict[str, Any]) -> Fit:
    """What `Fit.to_json` gave, from JSON."""
    choice = NetworkChoice(**{**values["choice"], "size": tuple(values["choice"]["size"])})
    uses = {precision: Use(**use) for precision, use in values["uses"].items()}
    return Fit(choice, values["expected"], values["params"], values["macs"], uses)


@dataclass(frozen=True)
class Dropped:
    """A network, in a precision or in all ("") of them, that is not taken, and why. use: where it was timed."""

    name: str
    precision: str
    reason: str
    use: Use | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def dropped_of(values: dict[str, Any]) -> Dropped:
    """What `Dropped.to_json` gave, from JSON."""
    return Dropped(**{**values, "use": Use(**values["use"]) if values["use"] else None})


@dataclass
class Search:
    """A search under way. enough: networks that fit, after which no further one is timed; seconds: for all of it."""

    budget: Budget
    precisions: Sequence[str]
    builder: Builder
    times: NetworkTimes
    progress: Progress
    enough: int
    seconds: float
    fits: list[Fit] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    nearest: tuple[float, str, str, Use] | None = None  # excess, name, precision
    _rates: dict[tuple[tuple[object, ...], str], float] = field(default_factory=dict)  # ms per multiply-add

    def run(self, choices: Sequence[NetworkChoice]) -> None:
        """Fill `fits`, best expectation first, and `dropped`."""
        order = sorted(choices, key=lambda one: (-expected_top1(one), one.macs(), one.name))
        begun, seen, untried = time.monotonic(), set[str](), list[NetworkChoice]()
        self.progress.say(
            f"{counted(len(order), 'network')} ({len({one.net for one in order})} of the zoo, their widths and inputs) in "
            f"{', '.join(self.precisions)}; {self.budget.text()}; best expected accuracy first"
        )
        for choice in self.progress.track(order, len(order), "counting and timing networks"):
            if len(self.fits) >= self.enough:
                reason = f"not tried: {counted(self.enough, 'network of higher expected accuracy fits', 'networks of higher expected accuracy fit')}"
            elif time.monotonic() - begun > self.seconds:
                reason = OUT_OF_TIME
                untried.append(choice)
            else:
                reason = self._look(choice, seen)
            if reason:
                self.dropped.append(Dropped(choice.name, "", reason))
        if not self.fits and untried:
            self._try_smallest(untried, seen)
        if not self.fits:
            self._find_nearest(order)

    def _look(self, choice: NetworkChoice, seen: set[str]) -> str:
        """Count and time a network; why all of it is dropped, "" where a part was judged."""
        reason = self._estimated(choice)
        if reason:
            return reason
        try:
            counted = self.builder.count(choice)
        except GossamerError as error:
            return f"cannot be built: {error}"
        if counted.signature in seen:
            return "the same network as another of these"
        seen.add(counted.signature)
        left = []
        for precision in self.precisions:
            if reason := self._by_count(choice, counted, precision):
                self.dropped.append(Dropped(choice.name, precision, reason))
            else:
                left.append(precision)
        if not left:
            return ""
        uses, reasons = self._timed(choice, counted, left)
        for precision, why in reasons.items():
            self.dropped.append(Dropped(choice.name, precision, why))
        kept = {}
        for precision, use in uses.items():
            if why := self.budget.why_not(use, SAFETY):
                self.dropped.append(Dropped(choice.name, precision, why, use))
            else:
                kept[precision] = use
        if kept:
            self.fits.append(Fit(choice, expected_top1(choice), counted.params, counted.macs, kept))
            best = min(kept.values(), key=lambda use: use.ms)
            self.progress.say(f"fits: {choice.name} in {', '.join(kept)}: {best.text()}")
        return ""

    def _estimated(self, choice: NetworkChoice) -> str:
        """Why a network is far too large already by the table of the zoo, "" where it is not."""
        if self.budget.ms is not None:
            most = max(self.times.most_macs(precision, self.budget.ms) for precision in self.precisions)
            if choice.macs() > ESTIMATED * most:
                return f"about {choice.macs() / 1e6:.0f} M MACs: {self._fastest(most)}"
        return ""

    def _fastest(self, most: float) -> str:
        return f"the fastest layers here compute {most / 1e6:.0f} M in {self.budget.ms:g} ms at most"

    def _by_count(self, choice: NetworkChoice, counted: Counted, precision: str) -> str:
        """Why a network cannot keep the budget by what was counted, "" where it may."""
        size = counted.weight_bytes(precision) + file_overhead(choice.size, choice.channels)
        if why := self.budget.why_not(Use(0.0, size, counted.memory(precision))):
            return f"counted: {why}"
        if self.budget.ms is None:
            return ""
        most = self.times.most_macs(precision, self.budget.ms)
        if counted.macs > most:
            return f"{counted.macs / 1e6:.0f} M MACs: {self._fastest(most)}"
        rate = self._rates.get((choice.family, precision))
        if rate is not None and rate * counted.macs > PREDICTED * self.budget.ms:
            return f"about {rate * counted.macs:.2f} ms by the time that others of its family take for a MAC"
        return ""

    def _timed(
        self, choice: NetworkChoice, counted: Counted, precisions: Sequence[str]
    ) -> tuple[dict[str, Use], dict[str, str]]:
        try:
            found, reasons = self.times.measure(self.builder, choice, counted, precisions)
        except GossamerError as error:
            return {}, dict.fromkeys(precisions, f"cannot be timed: {error}")
        uses = {}
        for precision, (ms, size) in found.items():
            use = Use(ms, size + file_overhead(choice.size, choice.channels), counted.memory(precision))
            uses[precision] = use
            key = (choice.family, precision)
            self._rates[key] = min(self._rates.get(key, math.inf), ms / max(1, counted.macs))
            excess = self.budget.excess(use)
            if self.nearest is None or excess < self.nearest[0]:
                self.nearest = (excess, choice.name, precision, use)
        return uses, reasons

    def _try_smallest(self, untried: Sequence[NetworkChoice], seen: set[str]) -> None:
        """Where time ran out before any network fitted: look at a few of the smallest all the same."""
        self.progress.say("the time for measuring is used up and nothing fits yet; looking at the smallest networks")
        for choice in sorted(untried, key=NetworkChoice.macs)[:NEAREST]:
            self.dropped = [one for one in self.dropped if (one.name, one.reason) != (choice.name, OUT_OF_TIME)]
            if reason := self._look(choice, seen):
                self.dropped.append(Dropped(choice.name, "", reason))

    def _find_nearest(self, choices: Sequence[NetworkChoice]) -> None:
        """Time the smallest networks, so that the one which comes nearest to the budget can be named."""
        self.progress.say("no network keeps the budget; looking for the nearest")
        smallest = [
            *sorted(choices, key=NetworkChoice.macs)[:NEAREST],
            *sorted(choices, key=NetworkChoice.params)[:NEAREST],
        ]
        for choice in dict.fromkeys(smallest):
            try:
                counted = self.builder.count(choice)
            except GossamerError:
                continue  # why it cannot be built stands among those dropped
            self._timed(choice, counted, self.precisions)
