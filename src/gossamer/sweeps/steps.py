"""The steps of a sweep: trials drawn in brackets, timed, trained rung by rung, and those of the front with other seeds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gossamer.charts.chart_file import write_chart
from gossamer.data.source import Data
from gossamer.errors import GossamerError, InputError, SettingsError
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.host.stepprocess import StepProcess
from gossamer.host.steprunner import Step, StepRunner, Workers
from gossamer.host.text import metric_name
from gossamer.run import Run
from gossamer.selection.choices import NetworkChoice
from gossamer.selection.counting import Builder
from gossamer.selection.result import on_front
from gossamer.selection.timing import NetworkTimes, title_of
from gossamer.selection.trainings import is_begun, seconds_of_killed, train_until
from gossamer.settings import Settings, from_dict, to_dict
from gossamer.settings.file import dump_settings
from gossamer.sweeps.folder import JOURNAL, PICTURE, PLAN, SweepFolder
from gossamer.sweeps.halving import BRACKET, Standing, fractions, going_on, work
from gossamer.sweeps.result import SweepResult, SweptTrial, chart_of, shown_values
from gossamer.sweeps.settings import SweepSettings
from gossamer.sweeps.space import MOST_TRIALS
from gossamer.sweeps.study import Study, Trial
from gossamer.tasks.registry import task_of
from gossamer.training.distributed import Processes
from gossamer.training.setup import resolve_settings

ENDING = 0.1  # of the minutes, for timing and what is between trainings
NO_TIME = "no time was left"
FREED = 30.0  # seconds within which a process that was killed has left its run folder
TABLE_HEADER = ("ms", "bytes", "rung", "fraction", "score", "front", "mean", "deviation", "reason", "lost", "run")


class _Standing:
    """A trial with where it stands."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.ms: float | None = None
        self.bytes: int | None = None
        self.run, self.rung, self.fraction, self.reason = "", 0, 0.0, ""
        self.score: float | None = None
        self.failed = self.given_up = False
        self.lost = 0
        self.scores: dict[int, float | None] = {}  # rung -> score
        self.seeds: tuple[float, ...] = ()


class SweepSteps:
    """A sweep under way. workers: processes that train side by side, None for one, which `process` is."""

    def __init__(
        self,
        folder: SweepFolder,
        settings: SweepSettings,
        minutes: float | None,
        seeds: int,
        data: Data,
        workers: Workers | None,
        process: StepProcess,
        progress: Progress,
    ) -> None:
        self.process = process
        self.folder, self.settings, self.minutes, self.seeds = folder, settings, minutes, seeds
        self.data, self.workers, self.progress = data, workers, progress
        self.notes: list[str] = []
        self.runner = StepRunner(folder, math.inf if minutes is None else minutes, progress, self.notes)
        self.study = Study(folder.path / JOURNAL, settings.space, settings.seed)
        folder.check_trials(len(self.study.trials))
        self.times = NetworkTimes(settings.runtime, settings.threads)
        self.score = task_of(settings.space.fixed.get("task", "classify")).score
        self.standings: dict[int, _Standing] = {}
        self.schedule: float | None = None  # minutes of a training, where the file gives no length
        self._counted: dict[str, float] = {}  # training -> seconds of killed starts, which no step holds

    def result(self) -> SweepResult:
        """Do every step that is not done. Raises StorageError, RunError."""
        known = self.folder.result(PLAN) is not None
        if known:
            self.progress.say(f"{self.folder.path}: goes on where it stands")
        plan = self.runner.do(PLAN, "share out the time", self._plan, late=True) or {}
        self.schedule = plan.get("schedule")
        if self.schedule is not None:
            self.progress.say(f"plan: a schedule of {self.schedule:.2g} minutes for each trial that comes to its end")
        combinations = self.settings.space.combinations()
        size = BRACKET if self.settings.space.drawn else self.settings.trials
        for bracket, first in enumerate(range(0, self.settings.trials, size)):
            count = min(size, self.settings.trials - first)
            trials = self._trials(bracket, first, count, combinations)
            self._bracket(trials)
            self._tell(trials)
            if len(trials) < count:
                break
        front = self._front()
        if self.seeds > 1:
            self._spread(front)
        return self._end(front)

    def _plan(self) -> dict[str, Any]:
        space = self.settings.space
        varying = {*space.grid, *space.choices, *space.ranges}
        given = {name for name, value in space.fixed.items() if value is not None} | varying
        if self.minutes is None or given & {"epochs", "minutes"}:
            return {"schedule": None}
        count = self.workers.count if self.workers is not None else 1
        return {"schedule": max(0.002, self.minutes * (1 - ENDING) * count / work(self.settings.trials, self.seeds))}

    # trials

    def _trials(self, bracket: int, first: int, count: int, combinations: Sequence[dict[str, Any]]) -> list[_Standing]:
        """The trials of a bracket, those that are not there yet drawn where there is time."""
        trials = [trial for trial in self.study.trials if trial.bracket == bracket]
        while len(trials) < count and self.runner.left() > 0:
            trial = self.study.draw(combinations[(first + len(trials)) % len(combinations)], bracket)
            if trial is None:
                line = f"all {len(self.study.trials)} different trials of these values are there; none is run twice"
                self.notes.append(line)
                self.progress.say(line)
                break
            trials.append(trial)
        standings = [_Standing(trial) for trial in trials]
        self.standings |= {one.trial.number: one for one in standings}
        return standings

    def _training(self, trial: Trial) -> Settings:
        """The settings of a trial. Raises SettingsError where they do not go together."""
        settings = self.settings.space.settings(trial.values)
        return settings if self.schedule is None else settings.replace(minutes=self.schedule)

    def _bracket(self, standings: Sequence[_Standing]) -> None:
        """Time the networks, and train rung by rung."""
        for one in standings:
            self._time(one)
        ends = fractions(len(standings))
        left = [one for one in standings if not one.reason]
        for rung, end in enumerate(ends, 1):
            self._train(left, rung, end)
            stood = [one for one in left if not one.reason]
            if rung == len(ends):
                break
            known = [self._at(one, rung) for one in self.standings.values() if one.scores.get(rung) is not None]
            chosen = going_on([self._at(one, rung) for one in stood], known) if stood else []
            # what an earlier start has trained further stays, whatever came in since
            later = [one for one in stood if self.folder.step(self._step(one, rung + 1)).exists()]
            for one in stood:
                if one.trial.number not in chosen and one not in later:
                    one.reason = f"left after rung {rung}: {metric_name(self.score)} {one.score:.4f}"
            order = {number: place for place, number in enumerate(chosen)}
            left = sorted(
                (one for one in stood if not one.reason), key=lambda one: order.get(one.trial.number, len(order))
            )

    @staticmethod
    def _at(one: _Standing, rung: int) -> Standing:
        score = one.scores.get(rung)
        return Standing(one.trial.number, -math.inf if score is None else score, math.inf if one.ms is None else one.ms)

    def _step(self, one: _Standing, rung: int) -> str:
        return f"trial-{one.trial.number:04d}-rung-{rung}"

    # milliseconds

    def _time(self, one: _Standing) -> None:
        name = f"{one.trial.number:04d} {shown_values(one.trial.values)}"

        def measure() -> dict[str, Any]:
            settings = self._training(one.trial)
            precision = self.settings.precision
            choice, builder = choice_of(settings, self.data)
            found, reasons = self.times.measure(builder, choice, builder.count(choice), [precision])
            if precision not in found:
                raise InputError(
                    f"{settings.net} in {precision}: {reasons.get(precision, 'not timed')}",
                    "networks that the runtime computes", "leave it out",
                )  # fmt: skip
            ms, size = found[precision]
            return {"ms": ms, "bytes": size}

        known = self.runner.do(f"trial-{one.trial.number:04d}-time", f"time {name}", measure)
        if known is None:
            one.reason = NO_TIME
        elif "error" in known:
            one.reason, one.failed = known["error"], True
        else:
            one.ms, one.bytes = float(known["ms"]), int(known["bytes"])

    # training

    def _train(self, standings: Sequence[_Standing], rung: int, end: float) -> None:
        steps, going = [], []
        for one in standings:
            folder, name = self.folder.run(one.trial.number), self._step(one, rung)
            expected = self._expected(one, rung, end)
            killed = 0.0
            if self.folder.result(name) is None:
                killed = self._count_killed(folder, one)
                if expected > self.runner.left():
                    self.runner.stop(f"trial {one.trial.number} to {100 * end:.3g} % of its schedule", expected)
                    one.reason = NO_TIME
                    continue
            what = f"train {one.trial.number:04d} {shown_values(one.trial.values)} to {100 * end:.3g} % of its schedule"
            steps.append(replace(self._job(name, what, folder, self._training(one.trial), end), killed=killed))
            going.append(one)
        for one, known in zip(going, self.runner.do_each(steps, self.workers), strict=True):
            one.lost += int((known or {}).get("lost", 0))
            if known is None:
                one.reason = NO_TIME
            elif "error" in known:
                one.reason, one.failed = f"its training failed: {known['error']}", True
                one.given_up = bool(known.get("given_up"))
            else:
                one.run, one.rung, one.fraction = str(self.folder.run(one.trial.number)), rung, end
                one.score = one.scores[rung] = known["score"]
                if known["score"] is None:
                    one.reason, one.failed = "it has no score", True

    def _job(self, name: str, what: str, folder: Path, settings: Settings, end: float, split_of: str = "") -> Step:
        if self.workers is not None and not settings.threads:  # each of them would take all cores of its machine
            settings = settings.replace(threads=1)
        arguments = (str(folder), to_dict(settings), end, self.score, split_of)
        if self.workers is None:
            return Step(name, what, self.process.call, (train_step, arguments))
        return Step(name, what, train_step, arguments)

    def _expected(self, one: _Standing, rung: int, end: float) -> float:
        """Seconds that a rung of a trial will take, by its rungs before; 0 for the first."""
        before = self.runner.values.get(self._step(one, rung - 1), {})
        if not before or one.fraction <= 0:
            return 0.0
        begun = self.runner.values.get(self._step(one, rung - 2), {}).get("fraction", 0.0)
        share = one.fraction - begun
        return _seconds(before) / share * (end - one.fraction) if share > 0 else 0.0

    def _count_killed(self, folder: Path, one: _Standing) -> float:
        """Add the seconds of a training that was killed, which are in no step, to those that are used; how many these are."""
        name = folder.name
        steps = [values for key, values in self.runner.values.items() if key.startswith(f"trial-{name}-rung-")]
        known = self._counted.get(name, 0.0) + sum(map(_seconds, steps))
        try:
            more = seconds_of_killed(folder, known)
        except GossamerError:  # a damaged run folder: its training says so
            more = 0.0
        self._counted[name] = self._counted.get(name, 0.0) + more
        self.runner.before += more / (1 if self.workers is None else self.workers.count)  # others ran beside it
        return more

    def _tell(self, standings: Sequence[_Standing]) -> None:
        """Tell Optuna what became of a bracket; what only lacked time may still go on."""
        for one in standings:
            if one.reason != NO_TIME:
                self.study.tell(one.trial, one.score, one.ms, bool(one.reason), one.reason if one.failed else "")

    # the end

    def _front(self) -> list[_Standing]:
        complete = [one for one in self.standings.values() if one.fraction == 1 and one.score is not None]
        best = on_front([(one.ms or 0.0, one.score) for one in complete])
        return [one for one, front in zip(complete, best, strict=True) if front]

    def _spread(self, front: Sequence[_Standing]) -> None:
        """Train each point of the front with other seeds, on the same images."""
        steps, owners = [], []
        for one in front:
            settings = self._training(one.trial)
            for number in range(1, self.seeds):
                name = f"trial-{one.trial.number:04d}-seed-{number}"
                other = settings.replace(seed=(settings.seed + number) % (1 << 31))
                what = f"train {one.trial.number:04d} {shown_values(one.trial.values)} with seed {other.seed}"
                run = self.folder.run(one.trial.number, number)
                steps.append(self._job(name, what, run, other, 1.0, split_of=one.run))
                owners.append(one)
        scores: dict[int, list[float]] = {}
        for one, known in zip(owners, self.runner.do_each(steps, self.workers), strict=True):
            one.lost += int((known or {}).get("lost", 0))
            one.given_up |= bool((known or {}).get("given_up"))
            if known is not None and known.get("score") is not None:
                scores.setdefault(one.trial.number, []).append(float(known["score"]))
        for one in front:
            others = scores.get(one.trial.number, [])
            if others and one.score is not None:
                one.seeds = (one.score, *others)

    def _end(self, front: Sequence[_Standing]) -> SweepResult:
        self.folder.check_there()
        settings = self.settings
        files = {one.trial.number: dump_settings(self._training(one.trial)) for one in front}
        trials = [
            SweptTrial(
                one.trial.number, one.trial.values, one.ms, one.bytes, one.run, one.rung, one.fraction, one.score,
                one.reason, one in front, "", one.seeds, one.lost, one.given_up,
            )
            for one in self.standings.values()
        ]  # fmt: skip
        trials.sort(
            key=lambda one: (not one.front, (one.ms or 0.0) if one.front else 0.0, -one.fraction, -(one.score or 0.0))
        )
        chart = self.folder.path / PICTURE
        write_chart(chart, chart_of(trials, self.score))
        paths = {number: str(self.folder.path / "front" / f"{number:04d}.yaml") for number in files}
        trials = [replace(one, settings=paths.get(one.number, "")) for one in trials]
        untold = settings.trials - len(trials) if not any("none is run twice" in note for note in self.notes) else 0
        left = untold + sum(one.reason == NO_TIME for one in self.standings.values())
        result = SweepResult(
            str(self.folder.path), self.score, title_of(settings.runtime), settings.threads, settings.precision,
            machine.describe_machine(), tuple(trials), left, self.runner.spent() / 60, self.minutes,
            tuple(self.runner.done), (*dict.fromkeys(self.notes), *self.times.notes), str(chart),
        )  # fmt: skip
        varying = tuple(trials[0].values) if trials else ()
        rows = [_row(values) for values in result.to_json()["trials"]]
        self.folder.publish(result.to_json(), ("trial", *varying, *TABLE_HEADER), rows, files)
        return result


def train_step(
    folder: str, settings: dict[str, Any], end: float, score: str, split_of: str, progress: Progress = SILENT
) -> dict[str, Any]:
    """One rung of a training; what `train_until` gives, and the fraction at its end. Done by another process, or elsewhere."""
    split = Run.open(split_of) if split_of else None
    limit = time.monotonic() + FREED
    while is_begun(Path(folder)) and Run.open(folder).is_locked() and time.monotonic() < limit:
        time.sleep(0.1)  # a worker that counts as lost, or one of a start that was killed, may take a moment to end
    known = train_until(Path(folder), from_dict(settings), end, score, progress, split)
    return {**known, "fraction": end}


def choice_of(settings: Settings, data: Data) -> tuple[NetworkChoice, Builder]:
    """What is timed for a training: its network at its input. Raises InputError."""
    resolved = resolve_settings(settings, data, Processes())[0]
    size = resolved.input_size()
    assert size is not None, "settings are resolved"
    choice = NetworkChoice(settings.net, settings.width, size, settings.in_chans)
    return choice, Builder(lambda _: settings, data)


def check_buildable(settings: SweepSettings, data: Data) -> None:
    """Raises SettingsError where nothing can be built: no combination of the grid, nor the first with another choice."""
    space = settings.space
    problem: GossamerError | None = None
    combinations = space.combinations()
    others = ({**combinations[0], name: value} for name, values in space.choices.items() for value in values[1:])
    for values in itertools.islice(itertools.chain(combinations, others), MOST_TRIALS):
        try:
            choice, builder = choice_of(space.typical(values), data)
            builder.count(choice)
            return
        except GossamerError as error:
            problem = problem or error
    raise SettingsError(
        f"no {'combination of the grid' if space.grid else 'trial'} can be trained; the first: {problem}",
        "networks at inputs that they take", "check net, width and input",
    )  # fmt: skip


def _seconds(values: dict[str, Any]) -> float:
    """What a training took in a step, starts that were killed in it included."""
    return float(values["seconds"]) + float(values.get("killed", 0.0))


def _row(values: dict[str, Any]) -> list[Any]:
    cells = [values["number"], *values["values"].values()]
    for name in TABLE_HEADER:
        value = values[name]
        cells.append(("yes" if value else "") if name == "front" else "" if value is None else value)
    return [str(cell) if isinstance(cell, (list, bool)) else cell for cell in cells]
