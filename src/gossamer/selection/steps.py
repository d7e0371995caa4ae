"""The steps of a pick with data: which networks keep the budget, rungs of trainings, the files of the best, the test images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gossamer.charts.chart_file import write_chart
from gossamer.data.source import Data
from gossamer.errors import RunError, VerificationError
from gossamer.host.progress import Progress
from gossamer.host.steprunner import StepRunner
from gossamer.host.text import counted, metric_name
from gossamer.networks.fetch import sha256
from gossamer.selection.budget import PRECISIONS, SAFETY
from gossamer.selection.choices import NetworkChoice, all_choices, input_sizes, network_names
from gossamer.selection.counting import Builder
from gossamer.selection.finalists import (
    SUFFIXES,
    FinalFile,
    best_of,
    deciding,
    final_of,
    finals,
    opened,
    scored,
)
from gossamer.selection.folder import CANDIDATES, FIRST, PICTURE, PickFolder
from gossamer.selection.halving import Rungs, plan
from gossamer.selection.result import (
    Picked,
    TrainedNetwork,
    chart_of,
    on_front,
)
from gossamer.selection.search import OUT_OF_TIME, Dropped, Fit, Search, dropped_of, fit_of
from gossamer.selection.settings import PickSettings
from gossamer.selection.timing import NetworkTimes, title_of
from gossamer.selection.trainings import seconds_of_killed, train_until
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from gossamer.training.distributed import Processes
from gossamer.training.restore import load_run
from gossamer.training.setup import resolve_settings

MEASURING = 0.25  # of the minutes, at most, for counting and timing
ENDING = 0.15  # of what is left then, for exporting, quantising and scoring
SPARE = 2  # times the networks of the first rung that are looked for
OF_A_FAMILY = 2  # networks of one family in the first rung, where there are others
EXPORTED = 4  # trained networks whose files are made until one keeps the budget
TABLE_HEADER = (
    "network", "precision", "ms", "mb", "memory_mb", "rung", "fraction", "score", "pareto", "dropped",
)  # fmt: skip


def size_text(size: Sequence[int]) -> str:
    """HxW."""
    return f"{size[0]}x{size[1]}"


def nothing_fits(settings: PickSettings, search: Search) -> VerificationError:
    """No network keeps the budget: the one that comes nearest."""
    line = f"no network keeps {settings.budget.text()} in {', '.join(settings.precisions)}"
    if search.nearest is None:
        reasons = [one.reason for one in search.dropped]
        return VerificationError(f"{line}, and none could be measured{': ' + reasons[0] if reasons else ''}")
    _, name, precision, use = search.nearest
    near = (
        ""
        if settings.budget.why_not(use)
        else f", which is within {100 * (1 - SAFETY):.0f} % of it, and times scatter so much"
    )
    late = sum(one.reason == OUT_OF_TIME for one in search.dropped)
    if late:
        near += f"; {counted(late, 'network was', 'networks were')} not tried, as the time for measuring was used up"
    return VerificationError(
        f"{line}: the nearest that exists is {name} in {precision} with {use.text()}{near}; raise the budget, or give a "
        "smaller --input"
    )


@dataclass
class _Entrant:
    """A network in training, with where it stands."""

    fit: Fit
    run: str = ""
    rung: int = 0
    fraction: float = 0.0
    score: float | None = None
    reason: str = ""

    @property
    def reached(self) -> float:
        """The score; below all others where there is none."""
        return float("-inf") if self.score is None else self.score

    @property
    def precision(self) -> str:
        """The most exact that keeps the budget."""
        return next(name for name in PRECISIONS if name in self.fit.uses)


class PickSteps:
    """A pick under way."""

    def __init__(
        self, folder: PickFolder, settings: PickSettings, first: Settings, data: Data, progress: Progress
    ) -> None:
        self.folder, self.settings, self.first, self.data, self.progress = folder, settings, first, data, progress
        self.notes: list[str] = []
        self.runner = StepRunner(folder, settings.minutes, progress, self.notes)
        self.score = task_of(settings.task).score
        self.dropped: list[Dropped] = []
        self.files: list[FinalFile] = []
        self._counted: dict[str, float] = {}  # training -> seconds of killed starts, which no step holds

    def result(self) -> Picked:
        """Do every step that is not done. Raises VerificationError where nothing keeps the budget."""
        fits = self._networks()
        entrants, rungs = self._entrants(fits)
        self._halve(entrants, rungs)
        chosen = self._choose(entrants)
        return self._end(entrants, chosen)

    # which networks keep the budget

    def _networks(self) -> list[Fit]:
        known = self.folder.result(FIRST)
        if known is None:
            begun = time.monotonic()
            known = {**self._search(), "seconds": time.monotonic() - begun}
            self.folder.commit(FIRST, known)
        else:
            self.progress.say(f"{self.folder.path}: goes on where it stands")
            self.runner.before += float(known["seconds"])
        self.runner.record(FIRST, "find the networks that keep the budget", known, known["seconds"])
        self.notes += known["notes"]
        self.dropped = [dropped_of(one) for one in known["dropped"]]
        return [fit_of(one) for one in known["fits"]]

    def _search(self) -> dict[str, Any]:
        settings = self.settings
        size = resolve_settings(self.first, self.data, Processes())[0].input_size()
        assert size is not None, "settings are resolved"
        sizes = [size] if settings.shape is not None else input_sizes(size)
        choices = all_choices(network_names(settings.nets), sizes, self.first.in_chans)
        times = NetworkTimes(settings.runtime, settings.threads)
        search = Search(
            settings.budget, settings.precisions, Builder(self._training, self.data), times, self.progress,
            SPARE * settings.trained, 60 * MEASURING * settings.minutes,
        )  # fmt: skip
        search.run(choices)
        if not search.fits:
            raise nothing_fits(settings, search)
        return {
            "fits": [one.to_json() for one in search.fits],
            "dropped": [one.to_json() for one in search.dropped],
            "notes": times.notes,
        }

    def _training(self, choice: NetworkChoice) -> Settings:
        """The settings of a training of a network, but for its length."""
        return self.first.replace(net=choice.net, width=choice.width, input=size_text(choice.size))

    # training

    def _entrants(self, fits: Sequence[Fit]) -> tuple[list[_Entrant], Rungs]:
        """The networks of the first rung, and how long each rung is: decided once."""

        def decide() -> dict[str, Any]:
            seconds = self.runner.left() * (1 - ENDING) if self.settings.epochs is None else 1e9
            rungs = plan(len(fits), self.settings.trained, max(1.0, seconds))
            return {"counts": rungs.counts, "fractions": rungs.fractions, "schedule": rungs.seconds}

        known = self.runner.do("rungs", "share out the time", decide, late=True)
        if known is None or "error" in known:
            raise VerificationError(f"{self.folder.path}: {(known or {}).get('error', 'no plan')}")
        rungs = Rungs(tuple(known["counts"]), tuple(known["fractions"]), known["schedule"])
        taken = first_rung(fits, rungs.counts[0])
        for fit in fits:
            if fit not in taken:
                reason = f"not trained: {counted(len(taken), 'network')} of higher expected accuracy, or of another family, took its place"
                self.dropped.append(Dropped(fit.choice.name, "", reason))
        length = (
            f"{rungs.seconds / 60:.2g} minutes"
            if self.settings.epochs is None
            else counted(self.settings.epochs, "epoch")
        )
        shares = ", ".join(
            f"{count} to {100 * end:.3g} %" for count, end in zip(rungs.counts, rungs.fractions, strict=True)
        )
        self.progress.say(f"plan: a schedule of {length} each; networks trained: {shares}")
        return [_Entrant(fit) for fit in taken], rungs

    def _halve(self, entrants: Sequence[_Entrant], rungs: Rungs) -> None:
        """Train rung by rung; those that are dropped get their reason."""
        left = list(entrants)
        for number, (count, fraction) in enumerate(zip(rungs.counts, rungs.fractions, strict=True), 1):
            going = left[:count]
            for one in left[count:]:
                score = "no score" if one.score is None else f"{metric_name(self.score)} {one.score:.4f}"
                one.reason = f"{score} after rung {number - 1}, where {count} went on"
            for one in going:
                self._train(one, number, fraction, rungs.seconds / 60)
            # of equal ones the better expected stands first, as before
            left = sorted((one for one in going if not one.reason), key=lambda one: -one.reached)
            if not left:
                break

    def _train(self, one: _Entrant, rung: int, fraction: float, minutes: float) -> None:
        name = one.fit.choice.name
        folder = self.folder.run(name)
        step = f"rung-{rung}-{name}"
        if self.folder.result(step) is None:
            earlier_steps = (self.runner.values.get(f"rung-{earlier}-{name}", {}) for earlier in range(1, rung))
            known_seconds = self._counted.get(name, 0.0) + sum(each.get("seconds", 0.0) for each in earlier_steps)
            more = seconds_of_killed(folder, known_seconds)
            self._counted[name] = self._counted.get(name, 0.0) + more
            self.runner.before += more

        def go() -> dict[str, Any]:
            length: dict[str, Any] = {"minutes": minutes}
            if self.settings.epochs is not None:  # by steps alone, and by no choice of the clock
                exact = {"precision": "float32", "memory_format": "channels_last"}
                length = {"epochs": self.settings.epochs, **exact}
            settings = self._training(one.fit.choice).replace(**length)
            return train_until(folder, settings, fraction, self.score, self.progress)

        known = self.runner.do(step, f"train {name} to {100 * fraction:.3g} % of its schedule", go, late=rung == 1)
        if known is None:
            one.reason = "no time was left to train it further"
        elif "error" in known:
            one.reason = f"its training failed: {known['error']}"
        else:
            one.run, one.rung, one.fraction, one.score = str(folder), rung, fraction, known["score"]

    # the files

    def _choose(self, entrants: Sequence[_Entrant]) -> FinalFile:
        """The best file of the network that came furthest; where it keeps no budget when timed again, of the next one."""
        order = sorted((one for one in entrants if one.run), key=lambda one: (-one.rung, -one.reached))
        for one in order[:EXPORTED]:
            name = one.fit.choice.name
            known = self.runner.do(f"files-{name}", f"write and score {name}", partial(self._write, one), late=True)
            if known is None or "error" in known:
                one.reason = f"no file: {(known or {}).get('error', '')}"
                continue
            for each in known["files"]:
                self._check_file(each, self.folder.step(f"files-{name}"))
            files = [final_of(each) for each in known["files"]]
            self.files += files
            self.dropped += [Dropped(name, precision, why) for precision, why in known["reasons"].items()]
            best = best_of(files)
            if best is not None:
                one.reason = ""
                return best
            why = "; ".join(f"{each.precision}: {each.over or 'no score'}" for each in files) or "; ".join(
                known["reasons"].values()
            )
            one.reason = f"measured again: {why}"
        reasons = "; ".join(f"{one.fit.choice.name}: {one.reason}" for one in entrants if one.reason)
        raise VerificationError(
            f"{self.folder.path}: no trained network keeps {self.settings.budget.text()}: {reasons}"
        )

    def _write(self, one: _Entrant) -> dict[str, Any]:
        name, uses = one.fit.choice.name, one.fit.uses
        paths = {precision: self.folder.candidate(f"{name}-{precision}", SUFFIXES[precision]) for precision in uses}
        files, reasons = finals(
            name, load_run(one.run), paths, {key: use.memory for key, use in uses.items()}, self.settings.budget,
            self.settings.runtime, self.settings.threads, deciding(self.data.val), self.progress,
        )  # fmt: skip
        digests = [sha256(self.folder.path / CANDIDATES / each.file) for each in files]
        values = [{**each.to_json(), "sha256": digest} for each, digest in zip(files, digests, strict=True)]
        return {"files": values, "reasons": reasons}

    def _check_file(self, values: dict[str, Any], step: Path) -> None:
        """Raises RunError where a file is gone or another one than that which was measured. step: the file of its step."""
        path = self.folder.path / CANDIDATES / values["file"]
        if not path.is_file():
            raise RunError(f"{path}: is gone", "the files of finished steps", f"restore it, or remove {step}")
        if sha256(path) != values["sha256"]:
            raise RunError(f"{path}: is not the file that was measured", "that file", f"restore it, or remove {step}")

    def _end(self, entrants: Sequence[_Entrant], chosen: FinalFile) -> Picked:
        path = self.folder.path / CANDIDATES / chosen.file
        file = self.folder.choose(path)
        test, images = {}, 0
        if self.data.test is not None and len(self.data.test):
            source = self.data.test

            def look() -> dict[str, Any]:
                loaded = load_run(self.folder.run(chosen.network))
                model = opened(path, self.settings.runtime, self.settings.threads)
                found = scored(loaded, model, source, self.progress, "scoring the test images")
                return {"metrics": found.metrics, "images": found.images}

            # of this very file: where its step was removed and done again, the figures of the one before are not its own
            step = f"test-{sha256(path)[:16]}"
            known = self.runner.do(step, f"score {chosen.file} on the test images, once", look, late=True)
            if known and "metrics" in known:
                test = {key: math.nan if value is None else value for key, value in known["metrics"].items()}
                images = known["images"]
        trained = self._trained(entrants, chosen)
        chart = self.folder.path / PICTURE
        write_chart(chart, chart_of(trained, self.score, self.settings.budget))
        result = Picked(
            str(file), chosen, self.score, test, images, self.settings.budget, title_of(self.settings.runtime),
            self.settings.threads, trained, tuple(self.files), tuple(self.dropped), tuple(self.runner.done),
            tuple(self.notes), str(chart),
        )  # fmt: skip
        self.folder.publish(result.to_json(), TABLE_HEADER, _rows(result))
        return result

    def _trained(self, entrants: Sequence[_Entrant], chosen: FinalFile) -> tuple[TrainedNetwork, ...]:
        rows = []
        for one in entrants:
            precision, use, score, name = one.precision, one.fit.uses[one.precision], one.score, one.fit.choice.name
            if name == chosen.network:  # what was measured again counts
                precision, use, score = chosen.precision, chosen.use, chosen.score
            reason = "" if name == chosen.network else one.reason or "another one is better"
            rows.append(TrainedNetwork(name, one.run, precision, use, one.rung, one.fraction, score, reason))
        rows.sort(key=lambda one: (one.name != chosen.network, -one.rung, -(one.score or 0.0)))
        front = on_front([(one.use.ms, one.score) for one in rows])
        return tuple(replace(one, front=best) for one, best in zip(rows, front, strict=True))


def first_rung(fits: Sequence[Fit], count: int) -> list[Fit]:
    """So many of the networks that fit, the best expected first: OF_A_FAMILY of each at first, then any."""
    taken: list[Fit] = []
    for most in (OF_A_FAMILY, len(fits)):
        for fit in fits:
            of_family = sum(other.choice.family == fit.choice.family for other in taken)
            if fit not in taken and len(taken) < count and of_family < most:
                taken.append(fit)
    return taken


def _rows(result: Picked) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for one in result.trained:
        use = one.use
        rows.append(
            [
                one.name, one.precision, use.ms, use.bytes / 1e6, use.memory / 1e6, one.rung, one.fraction,
                "" if one.score is None else one.score, "yes" if one.front else "", one.reason,
            ]
        )  # fmt: skip
    for other in result.dropped:
        cost = ["", "", ""] if other.use is None else [other.use.ms, other.use.bytes / 1e6, other.use.memory / 1e6]
        rows.append([other.name, other.precision, *cost, "", "", "", "", other.reason])
    return rows
