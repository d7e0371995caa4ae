"""A trained network with layers decomposed where that is measurably faster and the score holds after a short training."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.data.source import Data
from gossamer.errors import InputError, RunError, SettingsError, UnknownNameError
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.text import counted, format_table, metric_name, thread_count
from gossamer.networks.changes import Change
from gossamer.networks.factors import METHODS, methods_of
from gossamer.predictions.head import outputs_of
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.shrink.calibration import spread
from gossamer.shrink.candidates import FASTER, Layer, Tried, candidates, ladder, layers_to_decompose, timed
from gossamer.shrink.edits import without
from gossamer.shrink.outcome import check_new_run, lines_of_change, settings_after
from gossamer.shrink.pairs import WHOLE_SECONDS, Clock, PairTimes, as_onnx, open_clock
from gossamer.shrink.prune import metrics_of
from gossamer.shrink.trials import accept, open_trial, remove_trials, trained_trial
from gossamer.targets import target_of
from gossamer.training.evaluate import evaluate
from gossamer.training.network import changes_of
from gossamer.training.restore import LoadedRun, load_run, same_data, torch_forward

MINUTES = 10.0
LEAST_MINUTES = 0.001  # that settings allow
MAX_DROP = 0.5  # points
ENERGY = 0.9
RANKS = ("energy", "score")
SHARES = (0.6, 0.25, 0.15)  # of the minutes for each trial: fewer changes need less training
GENTLE = 0.1  # of the run's learning rate: the network is near its parent, and thin factors diverge at the full rate
COMPARED = 256  # validation images that tell what a change alone costs


@dataclass(frozen=True)
class Decomposed:
    """What was tried on a run, and the run that was made where something was accepted.

    file: its folder, "" where nothing was accepted and nothing written. scores: metric -> (before, after) on the validation
    images. ms: (before, after) of an image, medians of rounds in turn; None where nothing was accepted. clock: what it was
    timed in, the native engine or ONNX Runtime. bytes: (before, after) of the parameters in float32. tried: every
    decomposition that came into question; accepted: those that the new run has. steps: what was done, in order.
    """

    file: str
    parent: str
    score: str
    scores: dict[str, tuple[float, float]]
    ms: tuple[float, float] | None
    macs: tuple[int, int]
    bytes: tuple[int, int]
    threads: int
    clock: str
    energy: float
    max_drop: float
    tried: tuple[Tried, ...]
    accepted: tuple[Tried, ...]
    steps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def run(self) -> Run:
        """The new run folder, open. Raises RunError where nothing was accepted."""
        if not self.file:
            raise RunError(
                f"no decomposition of {one_line(self.parent)} was accepted",
                "a run that was written",
                f"use {one_line(self.parent)}",
            )
        return Run.open(self.file)

    def text(self) -> str:
        """The table of what was tried, and what became of it."""
        lines = [self.table()] if self.tried else []
        if not self.file:
            return "\n".join(
                [
                    *lines,
                    *self.steps,
                    *self.notes,
                    f"nothing accepted: no run was written, {one_line(self.parent)} stays as it is",
                ]
            )
        lines.append(
            f"{one_line(self.file)}: {one_line(self.parent)} with {counted(len(self.accepted), 'decomposed layer')}"
        )
        counts = {"macs": self.macs, "size": self.bytes}
        lines += lines_of_change(self.clock, self.threads, self.ms, counts, self.score, self.scores)
        return "\n".join([*lines, *self.steps, *self.notes])

    def table(self) -> str:
        """What was tried, a line each."""
        rows = []
        for one in self.tried:
            before, after = (
                (str(time).replace(" ms", "") for time in (one.ms.before, one.ms.after)) if one.ms else ("-", "-")
            )
            rows.append(
                (
                    one.layer,
                    one.method,
                    ", ".join(map(str, one.ranks)) or "-",
                    "-" if one.energy is None else f"{one.energy:.3f}",
                    before,
                    after,
                    "-" if one.drop is None else f"{one.drop:.2f}",
                    one.verdict,
                )
            )
        header = ("layer", "change", "ranks", "energy", "ms before", "ms after", "points alone", "verdict")
        return "\n".join(format_table(header, rows, left=(0, 1, 2, -1)))

    def to_json(self) -> dict[str, Any]:
        """Plain values; `file` is null where no run was written."""

        def pair(values: tuple[float, float] | None) -> dict[str, float] | None:
            return None if values is None else {"before": values[0], "after": values[1]}

        return {
            **dataclasses.asdict(self),
            "file": self.file or None,
            "scores": {name: pair(values) for name, values in self.scores.items()},
            "ms": pair(self.ms),
            "macs": pair(self.macs),
            "bytes": pair(self.bytes),
        }


def decompose(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    minutes: float = MINUTES,
    epochs: float | None = None,
    max_drop: float = MAX_DROP,
    energy: float = ENERGY,
    ranks: str = "energy",
    methods: Sequence[str] = METHODS,
    layers: Sequence[str] = (),
    keep: Sequence[str] = (),
    threads: int = 1,
    which: str = "best",
    progress: Progress = SILENT,
) -> Decomposed:
    """Replace layers of a run's network by smaller ones where that is measured faster and the score holds; a new run.

    Each layer is timed alone, then the network as a whole, in turn with the original, in the native engine with `threads`,
    or in ONNX Runtime where the engine is missing or cannot run the network. What is faster beyond the noise is trained
    with the run as teacher, for `minutes` in all and at a tenth of the run's learning rate; where the score then loses more
    than `max_drop` points (of 100) on the validation images, half of the changes go and the rest is trained anew.
    epochs: of the first training, of the others in proportion, in place of minutes, so that trainings are equal on every machine.
    ranks: "energy" keeps the part `energy` of the squares of each layer's weights; "score" takes the least ranks that alone
    lose at most `max_drop` points before any training. methods: some of `networks.factors.METHODS`. layers: names of those to
    decompose, default all; keep: names of those that stay. which: the checkpoint of the run.

    Where nothing is accepted no run is written, and the result has the table of what was tried. Raises InputError for what
    cannot be used, MissingPackageError, StorageError. An interrupted call leaves nothing at `out`; the same call resumes.
    """
    methods = tuple(methods)
    _check(run, out, minutes, epochs, max_drop, energy, ranks, methods, layers, keep, threads, which)
    loaded = load_run(os.fspath(run), which)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in loaded.model.state_dict().values()):
        raise RunError(f"{run}: its {which} weights are NaN or infinite", "finite weights", "train it again")
    data = same_data(loaded.run)
    loaded.task.prepare(data)
    work = _Work(loaded, data, which, max_drop, energy, ranks, methods, progress)
    fitting = work.layers(layers, keep)
    progress.say(f"{counted(len(fitting), 'layer')} can be decomposed; exporting the network")
    original = work.onnx(loaded.model)
    clock = open_clock(threads, original, progress)
    work.steps.append(f"{counted(len(fitting), 'layer')}, each timed alone in {clock.runtime}, {thread_count(threads)}")
    progress.say(work.steps[-1])
    work.tried = work.timed_layers(fitting, clock)
    chosen = work.faster_whole(clock, original)
    trained = work.trained(chosen, loaded.run, out, minutes, epochs) if chosen else None
    remove_trials(out, len(SHARES))
    return work.result(trained, clock, original, threads)


def unfinished_trials(out: str | os.PathLike[str]) -> tuple[float, float | None]:
    """What a `decompose` into `out` that was stopped has left: the seconds of its trainings by their clocks, and its minutes.

    0 and None where it trained nothing; None, too, where the minutes are not known.
    """
    seconds, minutes = 0.0, None
    for number, share in enumerate(SHARES, 1):
        run = open_trial(out, number)
        if run is None:
            continue
        took = run.clock().get("seconds")
        seconds += float(took) if isinstance(took, (int, float)) and 0 <= took < 1e12 else 0.0
        if run.settings.minutes is not None:
            minutes = run.settings.minutes / share
    return seconds, minutes


class _Work:
    """A network under decomposition, and what was tried on it."""

    def __init__(
        self,
        loaded: LoadedRun,
        data: Data,
        which: str,
        max_drop: float,
        energy: float,
        ranks: str,
        methods: tuple[str, ...],
        progress: Progress,
    ) -> None:
        self.loaded, self.data, self.which, self.max_drop = loaded, data, which, max_drop
        self.energy, self.ranks, self.methods, self.progress = energy, ranks, methods, progress
        self.steps: list[str] = []
        self.notes: list[str] = []
        self.tried: list[Tried] = []
        self.accepted: tuple[Tried, ...] = ()
        self.score: str = loaded.task.score
        self.compared = data.val.select(np.asarray(spread(len(data.val), COMPARED), np.int64))
        known = metrics_of(loaded.run, which)
        # a damaged table, or that of another task, may lack the score
        self.before = known if math.isfinite(known.get(self.score, math.nan)) else self._scores(loaded.model, data.val)
        self._alone: float | None = None
        self._timed: dict[frozenset[str], PairTimes] = {}
        if max_drop < 100 / max(1, len(data.val)):
            self.notes.append(
                f"a drop of {max_drop:g} points is finer than {len(data.val)} validation images tell: one image is "
                f"{100 / max(1, len(data.val)):.2g} points"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        preprocess = self.loaded.preprocess
        return (1, preprocess.channels, *preprocess.size)

    def layers(self, only: Sequence[str], keep: Sequence[str]) -> tuple[Layer, ...]:
        graph = trace(self.loaded.model, self.shape)
        fitting = layers_to_decompose(self.loaded.model, graph, only, keep, str(self.loaded.run.path))
        left = tuple(one for one in fitting if set(methods_of(one.module)) & set(self.methods))
        if not left:
            raise InputError(
                f"{self.loaded.run.path}: no layer that takes {' or '.join(self.methods)}",
                ", ".join(dict.fromkeys(method for one in fitting for method in methods_of(one.module))),
                "give other methods",
            )
        return left

    def onnx(self, network: nn.Module) -> bytes:
        preprocess = self.loaded.preprocess
        return as_onnx(network, preprocess.size, preprocess.channels, outputs_of(self.loaded.task.heads()))

    def timed_layers(self, fitting: Sequence[Layer], clock: Clock) -> list[Tried]:
        """Each layer with each method, in order; what was timed is kept after every layer."""
        result: list[Tried] = []
        for layer in self.progress.track(fitting, len(fitting), "timing layers"):
            measured = clock.measured
            if self.ranks == "energy":
                result += candidates(layer, self.methods, self.energy, clock)
            else:
                result += [
                    self._by_score(layer, method, clock)
                    for method in methods_of(layer.module)
                    if method in self.methods
                ]
            if clock.measured > measured:
                clock.keep()
        self.steps.append(
            f"{counted(len(result), 'decomposition')}, {sum(one.verdict == FASTER for one in result)} of them faster alone"
        )
        self.notes += clock.notes
        return result

    def _by_score(self, layer: Layer, method: str, clock: Clock) -> Tried:
        """The least ranks that alone lose at most `max_drop` points, among those that are faster."""
        best: Tried | None = None
        last: Tried | None = None
        for ranks in ladder(layer, method):
            last = timed(layer, method, ranks, clock)
            if last.verdict != FASTER:
                break
            last = replace(last, drop=self.drop(last))
            if (last.drop or 0.0) <= self.max_drop:
                best = last
                break
        if best or last:
            found = best or last
            assert found is not None, "one of them"
            worse = best is None and found.verdict == FASTER
            return replace(found, verdict=f"alone it loses more than {self.max_drop:g} points") if worse else found
        return Tried(layer.name, method, (), None, None, None, "no rank of fewer multiply-adds")

    def drop(self, one: Tried) -> float:
        """The points that a change alone costs before any training, on at most COMPARED validation images."""
        if self._alone is None:
            self._alone = self._scores(self.loaded.model, self.compared)[self.score]
        changed = without(self.loaded.model, [one.change])
        return 100 * (self._alone - self._scores(changed, self.compared)[self.score])

    def faster_whole(self, clock: Clock, original: bytes) -> list[Tried]:
        """Of each layer the change that saves the most, as many of them as make the network faster as a whole."""
        best: dict[str, Tried] = {}
        for one in self.tried:
            if one.verdict == FASTER and (one.layer not in best or one.saved > best[one.layer].saved):
                best[one.layer] = one
        for one in self.tried:
            if one.verdict == FASTER and best[one.layer] is not one:
                self._mark([one], "another one of this layer saves more")
        chosen = [replace(one, drop=self.drop(one) if one.drop is None else one.drop) for one in best.values()]
        for old, new in zip(best.values(), chosen, strict=True):
            self.tried[self.tried.index(old)] = new
        chosen.sort(key=lambda one: one.saved, reverse=True)
        while chosen:
            pair = self._whole(chosen, clock, original)
            if pair.faster:
                return chosen
            gone = chosen[len(chosen) // 2 :]
            self._mark(gone, "the network as a whole was not faster beyond the noise")
            chosen = chosen[: len(chosen) // 2]
        return []

    def _whole(self, chosen: Sequence[Tried], clock: Clock, original: bytes) -> PairTimes:
        known = frozenset(str(one.change) for one in chosen)
        if known in self._timed:
            return self._timed[known]
        self.progress.say(
            f"timing the network with {counted(len(chosen), 'layer')} decomposed, in turn with the original"
        )
        changed = without(self.loaded.model, [one.change for one in self._ordered(chosen)])
        pair = self._timed[known] = clock.pair(original, self.onnx(changed), WHOLE_SECONDS)
        clock.keep()
        self.steps.append(
            f"the network with {counted(len(chosen), 'layer')} decomposed: {pair.after}, before {pair.before}"
        )
        self.progress.say(self.steps[-1])
        return pair

    def trained(
        self, chosen: list[Tried], parent: Run, out: str | os.PathLike[str], minutes: float, epochs: float | None
    ) -> tuple[Run, list[Tried]] | None:
        """The run of the first trial whose score holds, under its final name, and its changes."""
        chosen = sorted(chosen, key=lambda one: one.saved / (max(0.0, one.drop or 0.0) + 0.1), reverse=True)
        allowed = self.before[self.score] - self.max_drop / 100
        for number, share in enumerate(SHARES, 1):
            changes: tuple[Change, ...] = (*changes_of(parent), *(one.change for one in self._ordered(chosen)))
            most = max(LEAST_MINUTES, share * minutes)
            settings, lines = _settings(self.loaded.settings, parent, out, most, self.which)
            length = counted(most, "minute")
            if epochs is not None:  # steps alone decide then, and no clock
                settings = settings.replace(epochs=epochs * share / SHARES[0], minutes=None)
                length = counted(epochs * share / SHARES[0], "epoch")
            if number == 1:
                self.notes += lines
            self.progress.say(f"trial {number}: {counted(len(chosen), 'layer')} decomposed, trained for {length}")
            try:
                run = trained_trial(settings, changes, parent, number, self.progress)
            except RunError as error:
                if not error.given.startswith("the loss is"):
                    raise
                self.steps.append(f"trial {number}, {counted(len(chosen), 'layer')}: {error.given}")
                after = -math.inf
            else:
                after = metrics_of(run, "best" if run.has("best") else "last").get(self.score, -math.inf)
                self.steps.append(
                    f"trial {number}, {counted(len(chosen), 'layer')}, {length}: {metric_name(self.score)} "
                    f"{after:.4f}, before {self.before[self.score]:.4f}, at least {allowed:.4f}"
                )
            self.progress.say(self.steps[-1])
            if after >= allowed - 1e-12:
                return accept(run, out), chosen
            gone, chosen = chosen[(len(chosen)) // 2 :], chosen[: len(chosen) // 2]
            self._mark(gone, f"the score did not hold in trial {number}")
            if not chosen:
                return None
        self._mark(chosen, "the score did not hold, and no trial was left")
        return None

    def result(
        self, trained: tuple[Run, list[Tried]] | None, clock: Clock, original: bytes, threads: int
    ) -> Decomposed:
        model = self.loaded.model
        macs = cost(trace(model, self.shape)).macs
        size = 4 * sum(parameter.numel() for parameter in model.parameters())
        common: dict[str, Any] = {
            "parent": str(self.loaded.run.path),
            "score": self.score,
            "threads": threads,
            "clock": clock.runtime,
            "energy": self.energy,
            "max_drop": self.max_drop,
        }
        if trained is None:
            return Decomposed(
                file="",
                scores={name: (value, value) for name, value in self.before.items()},
                ms=None,
                macs=(macs, macs),
                bytes=(size, size),
                tried=tuple(self.tried),
                accepted=(),
                steps=tuple(self.steps),
                notes=tuple(self.notes),
                **common,
            )
        run, chosen = trained
        ordered = self._ordered(chosen)
        changed = without(model, [one.change for one in ordered])
        pair = self._whole(ordered, clock, original)
        self._mark(chosen, "accepted")
        after = metrics_of(run, "best" if run.has("best") else "last")
        return Decomposed(
            file=str(run.path),
            scores={name: (self.before[name], after[name]) for name in self.before if name in after},
            ms=(pair.before.median, pair.after.median),
            macs=(macs, cost(trace(changed, self.shape)).macs),
            bytes=(size, 4 * sum(parameter.numel() for parameter in changed.parameters())),
            tried=tuple(self.tried),
            accepted=tuple(one for one in self.tried if one.verdict == "accepted"),
            steps=tuple(self.steps),
            notes=tuple(self.notes),
            **common,
        )

    def _ordered(self, chosen: Sequence[Tried]) -> list[Tried]:
        """In the network's order: equal choices make equal runs."""
        return sorted(chosen, key=self._place)

    def _place(self, one: Tried) -> int:
        return next(number for number, other in enumerate(self.tried) if other.change == one.change)

    def _mark(self, changes: Sequence[Tried], verdict: str) -> None:
        for one in changes:
            place = self._place(one)
            self.tried[place] = replace(self.tried[place], verdict=verdict)

    def _scores(self, model: nn.Module, source: Any) -> dict[str, float]:
        scorer = evaluate(
            torch_forward(model.eval()), source, self.loaded.preprocess, self.loaded.task.scorer(), progress=SILENT
        )
        return {name: float(value) for name, value in scorer.scores().metrics.items()}


def _settings(
    settings: Settings, run: Run, out: str | os.PathLike[str], minutes: float, which: str
) -> tuple[Settings, list[str]]:
    """The settings of a trial, and lines on what is dropped."""
    after, notes = settings_after(settings, run, out, minutes, which, "decomposed")
    return after.replace(lr=None if settings.lr is None else GENTLE * settings.lr), notes


def _check(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    minutes: float,
    epochs: float | None,
    max_drop: float,
    energy: float,
    ranks: str,
    methods: Sequence[str],
    layers: Sequence[str],
    keep: Sequence[str],
    threads: int,
    which: str,
) -> None:
    """Raises InputError."""
    target_of(run, ("run",))
    if which not in ("best", "last"):
        raise SettingsError(f"weights {which!r}", "best or last", "choose one of them")
    _check_number("minutes", minutes, LEAST_MINUTES, 1e6)
    if epochs is not None:
        _check_number("epochs", epochs, 0.01, 1e6)
    _check_number("max-drop", max_drop, 0, 100)
    _check_number("energy", energy, 0.01, 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 4096:
        raise SettingsError(f"threads {threads}", "1 to 4096", "give such a number")
    if ranks not in RANKS:
        raise UnknownNameError("way to choose ranks", str(ranks), RANKS)
    for names, what in ((methods, "methods"), (layers, "layers"), (keep, "keep")):
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise SettingsError(f"{what} {names!r}", "a list of names", "give a list")
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("decomposition", method, METHODS)
    if not methods:
        raise SettingsError("no methods", ", ".join(METHODS), "give one or more")
    both = sorted(set(layers) & set(keep))
    if both:
        raise SettingsError(f"{both[0]}: both to decompose and to keep", "one of the two", "check --layers and --keep")
    check_new_run(out, "decomposed")
    path = Path(out)
    if path.is_symlink() or (path.is_dir() and any(path.iterdir())):
        raise RunError(f"{path}: is a folder with other files, or a link", "a new folder", "give another --out")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (right and math.isfinite(value) and low <= value <= high):
        raise SettingsError(f"{name} {value}", f"{low:g} to {high:g}", "give such a number")
