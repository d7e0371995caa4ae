"""`gossamer.shrink`: measure a run, quantise it, prune or distil it until it keeps limits, and keep what was found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gossamer.data.source import Source
from gossamer.errors import DataError, RunError, SettingsError
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.host.steprunner import StepRunner
from gossamer.host.text import counted
from gossamer.networks.fetch import sha256
from gossamer.run import Run
from gossamer.shrink.calibration import spread
from gossamer.shrink.decompose import unfinished_trials
from gossamer.shrink.limits import Limit
from gossamer.shrink.recipe import aims, steps
from gossamer.shrink.recipe.candidates import Candidate, best_of, candidate_of
from gossamer.shrink.recipe.folder import BEST, CANDIDATES, PAGE, PARETO, RecipeFolder, check_out
from gossamer.shrink.recipe.found import publish, shrunk
from gossamer.shrink.recipe.latency import NATIVE, runtime_here
from gossamer.shrink.recipe.paired import smallest_step
from gossamer.shrink.recipe.result import Shrunk
from gossamer.shrink.recipe.saved import check_file
from gossamer.shrink.recipe.settings import MINUTES, ShrinkSettings, check_settings
from gossamer.shrink.solve import check_solver
from gossamer.training.restore import load_run, same_data

SCORED = 5000  # validation images that decide, at most
DECOMPOSING = 0.15  # of the minutes, at most, and of what is left: trainings of decomposed networks
TRAINING = 0.7  # of the minutes, at most: the rest is for choosing widths, quantising and measuring
SHORTEST = 5.0  # seconds of a training that is worth beginning


def shrink(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_drop: float = 1.0,
    minutes: float = MINUTES,
    epochs: float | None = None,
    importance: str = "taylor",
    threads: int = 1,
    which: str = "best",
    decompose: bool = True,
    report: bool = False,
    progress: Progress = SILENT,
) -> Shrunk:
    """Make a run's network keep limits of time and size, and keep the best file and all others in the folder `out`.

    max_ms: milliseconds of an image with `threads`, in the native engine, in ONNX Runtime where that is not built; max_mb:
    size of the file in millions of bytes; one at least. max_drop: points of 100 that the score may be below the run's, on the
    same validation images. minutes: for all of it; epochs: of each training, in place of its share of the minutes, so
    that trainings are equal on every machine; none begins when the minutes are used up. importance, which: as of `prune`. decompose: try smaller layers in place of those
    of each narrower network, kept where that is measured faster and the score holds. report: write report.html.
    A folder that was begun goes on where it stands. Only training images calibrate and weigh channels, only validation
    images decide; test images are opened once, at the end. A limit that cannot be kept is no error: the result has it in
    `misses`, and the nearest that was reached.
    Raises InputError for what cannot be used and for limits that the run keeps as it is, MissingPackageError without SciPy,
    StorageError where a result cannot be written; KeyboardInterrupt goes through, with everything found so far written.
    """
    check_settings(run, max_ms, max_mb, max_drop, minutes, epochs, importance, threads, which)
    check_out(out)
    check_solver()
    if report:
        from gossamer.charts.page import environment

        environment(Path(__file__).parent.parent, "the page of a recipe")
    loaded = load_run(os.fspath(run), which)
    data = same_data(loaded.run)
    if not len(data.val):
        raise DataError(f"{run}: no validation images", "some that decide what is kept", "train the run with --val")
    loaded.task.prepare(data)
    images = data.val.select(_positions(data.val))
    least = smallest_step(len(images))
    if loaded.task.score == "accuracy" and 0 < max_drop < least:
        raise SettingsError(
            f"a drop of at most {max_drop:g} points, finer than {len(images)} validation images tell",
            f"0, or {least:.3g} points (one image) and more",
            "give more, or more validation images",
        )
    settings = ShrinkSettings(
        os.fspath(run), which, sha256(loaded.run.weights(which)), loaded.settings.seed, max_ms, max_mb, float(max_drop),
        float(minutes), epochs, importance, threads, decompose,
    )  # fmt: skip
    place = steps.Workplace(settings, loaded, data, images, NATIVE, progress)
    with RecipeFolder(out) as folder:
        recipe = _Recipe(folder, place, progress)
        try:
            return recipe.result(report)
        except KeyboardInterrupt:
            if recipe.runner.fresh:
                recipe.publish()
                progress.say(f"interrupted; found so far: {folder.path / BEST} and {folder.path / PARETO}")
            progress.say("the same command goes on")
            raise


def _positions(source: Source) -> Any:
    import numpy as np

    return np.asarray(spread(len(source), SCORED))


class _Recipe:
    """A recipe under way: which steps are finished, and the candidates so far."""

    def __init__(self, folder: RecipeFolder, place: steps.Workplace, progress: Progress) -> None:
        self.folder, self.place, self.progress = folder, place, progress
        self.settings, self.targets = place.settings, place.settings.targets
        self.candidates: list[Candidate] = []
        self.notes: list[str] = []
        self.runner = StepRunner(folder, self.settings.minutes, progress, self.notes)
        self.done, self.values = self.runner.done, self.runner.values

    def result(self, report: bool) -> Shrunk:
        """Do every step that is not done."""
        first = self._first()
        self._say_plan()
        int8 = self._candidate("int8", "quantise the run", self._int8(None))
        if int8 and not self.targets.misses(int8):
            self.notes.append("int8 alone keeps every limit: nothing was pruned")
        elif int8 and not self.targets.cost_misses(int8.ms, int8.mb):
            self._fallback("int8", str(self.settings.run), self.settings.which, first.score, int8)
        else:
            self._narrower_networks(first, int8)
        self._end()
        found = shrunk(self.folder, self.place, self.candidates, self.done, self.values, self.notes)
        self.publish()
        if report:
            self._examine()
            from gossamer.shrink.recipe.page import write_page

            path = self.folder.path / PAGE
            self.progress.say(f"writing {path}")
            write_page(path, found, self.values, self.place)
            found = replace(found, report=str(path))
        return found

    # steps

    def _first(self) -> Candidate:
        """The run as it is, measured before anything is kept. Raises SettingsError where it keeps the limits already."""
        self.folder.begin(self.settings, {**machine.describe_machine(), "seed": self.settings.seed})
        known = self.folder.result("float")
        path = self.folder.candidate("float")
        if known is None:
            self.progress.say("measuring the run")
            begun = time.monotonic()
            file = steps.float_file(self.settings.run, self.settings.which, path, self.progress)
            self.place.runtime, why = runtime_here(file)
            values = steps.measured(self.place, path, "float", "the run", "float32", None, str(self.settings.run))
            one = candidate_of(values["candidate"])
            if not self.targets.cost_misses(one.ms, one.mb):
                raise SettingsError(
                    f"{self.targets.text()}: the run keeps that as it is ({one.ms or 0:.3f} ms, {one.mb:.3f} MB)",
                    "less than it takes",
                    "give lower limits",
                )
            known = {**values, "runtime": self.place.runtime, "note": why, "seconds": time.monotonic() - begun}
            known["sha256"] = sha256(path)
            self.folder.commit("float", known)
            self.runner.fresh = True
        else:
            self._check_file(candidate_of(known["candidate"]), known, "float")
            self.runner.before += float(known["seconds"])
            self.progress.say(f"{self.folder.path}: goes on where it stands")
        self.place.runtime = known["runtime"]
        if known["note"]:
            self.notes.append(known["note"])
        self.runner.record("float", "measure the run", known, known["seconds"])
        self.place.before = steps.known_outcome(known)
        self.candidates.append(candidate_of(known["candidate"]))
        if self.runner.fresh:
            self.publish()
        return self.candidates[0]

    def _int8(self, max_drop: float | None) -> Callable[[], dict[str, Any]]:
        name = "int8" if max_drop is None else "int8-fallback"
        what = "int8 of the run" if max_drop is None else "int8 of the run, some layers float"
        return lambda: steps.quantised(
            self.place, str(self.settings.run), self.settings.which, self.folder.candidate(name), name, what, max_drop,
            self.folder.candidate("float"),
        )  # fmt: skip

    def _fallback(self, name: str, run: str, which: str, before: float, int8: Candidate) -> None:
        """Where only quantising costs too much, keep layers in float until the limit holds. before: score of the float file."""
        allowed = self.targets.max_drop - 100 * (self.candidates[0].score - before)
        if allowed < 0 or int8.drop <= self.targets.max_drop:
            return
        step = f"{name}-fallback"
        path = self.folder.candidate(step)
        made_by = f"{int8.step}, some layers float"
        self._candidate(
            step,
            f"keep layers of {int8.file} in float32, at most {allowed:.2f} points below its own float file",
            lambda: steps.quantised(
                self.place, run, which, path, step, made_by, allowed, self.folder.candidate("float")
            ),
        )

    def _narrower_networks(self, first: Candidate, int8: Candidate | None) -> None:
        """Prune, train and quantise, as often as the minutes allow; each time by what came out last."""
        if int8 is None:
            self.notes.append("the run was not quantised: what pruning needs is taken from its float file")
        parameters = 4 * sum(one.numel() for one in self.place.loaded.model.parameters())
        fractions = aims.needed(first, int8 or first, self.targets, parameters if int8 else 4 * parameters)
        scale, count = 1.0, aims.count_of(self.settings.minutes)
        for number in range(1, count + 1):
            limits = aims.limits_of(fractions, scale, self.place.runtime == NATIVE)
            last = self._one_network(number, count, limits)
            if last is None and self.runner.out_of_time:
                break
            if last is None:
                scale /= aims.HARDER
                continue
            following = aims.next_scale(scale, fractions, last, self.targets)
            if min(fractions.values()) * following >= aims.MOST:
                break
            scale = following

    def _one_network(self, number: int, count: int, limits: Sequence[Limit]) -> Candidate | None:
        """One narrower network, to its int8 file; None where it does not come to that."""
        name, place, words = f"narrow-{number}", self.place, aims.in_words(limits)
        choice = self._step(f"{name}-choose", f"prune to {words}", lambda: steps.narrowed(place, limits))
        how = f"pruned to {words}"
        if choice is not None and "error" in choice:
            choice = self._step(
                f"{name}-width",
                f"a narrower network of the family, {words}",
                lambda: steps.narrower_network(place, limits),
            )
            how = "narrower network, distilled"
        if choice is None or "error" in choice:
            return None
        folder = self.folder.run(name)
        clock = _trained_for(folder, 0.0) if (folder / "settings.yaml").exists() else 0.0
        self.runner.before += clock if self.folder.result(f"{name}-train") is None else 0.0
        minutes = min(TRAINING * self.settings.minutes / count, (self.runner.left() - self._reserve()) / 60)
        if self.folder.result(f"{name}-train") is None and not clock and minutes * 60 < SHORTEST:
            self.runner.stop(f"train {name}")
            return None
        done = self._step(
            f"{name}-train",
            f"train it with the run as teacher, {minutes:.2g} minutes at most",
            lambda: steps.trained(place, choice, folder, minutes),
            late=bool(clock),
        )
        if done is None or "error" in done:
            return None
        wide, int8 = self._files(name, done["run"], how)
        smaller = self._decomposed(name, count, wide) if wide else None
        return best_of([one for one in (int8, smaller) if one], self.targets) if int8 or smaller else None

    def _decomposed(self, name: str, count: int, parent: Candidate) -> Candidate | None:
        """The network `name` with layers decomposed, to its int8 file; None where nothing is accepted. parent: its float file."""
        if not self.settings.decompose:
            return None
        step, place = f"{name}-decompose", self.place
        folder = self.folder.run(f"{name}-decomposed")
        known = self.folder.result(step)
        begun, minutes = unfinished_trials(folder) if known is None else (0.0, None)
        self.runner.before += begun
        if minutes is None:
            minutes = min(DECOMPOSING * self.settings.minutes / count, (self.runner.left() - self._reserve()) / 60)
        if known is None and not begun and minutes * 60 < SHORTEST:
            self.notes.append(f"no time is left to decompose layers of {name}")
            return None
        allowed = aims.decompose_drop(self.targets, parent)
        done = self._step(
            step,
            f"decompose layers of {name} where that is faster, at most {allowed:.2f} points below it",
            lambda: steps.decomposed(place, parent.run, "best", folder, minutes, allowed),
            late=bool(begun),
        )
        if done is None or "error" in done:
            return None
        if done["run"] is None:
            self.notes.append(f"{name}: of {counted(len(done['tried']), 'decomposition')} none was accepted")
            return None
        how = f"{parent.step}, {counted(done['accepted'], 'layer')} decomposed"
        return self._files(f"{name}-decomposed", done["run"], how)[1]

    def _files(self, name: str, run: str, how: str) -> tuple[Candidate | None, Candidate | None]:
        """The float file and the int8 file of a trained run; None for one that failed. how: the run was made."""
        place, beside, path = self.place, self.folder.candidate("float"), self.folder.candidate(name)

        def exported() -> dict[str, Any]:
            steps.float_file(run, "best", path, self.progress)
            return steps.measured(place, path, name, how, "float32", beside, run)

        wide = self._candidate(f"{name}-float", f"measure {name}", exported, late=True)
        small = self.folder.candidate(f"{name}-int8")
        int8 = self._candidate(
            f"{name}-int8",
            f"quantise {name}",
            lambda: steps.quantised(place, run, "best", small, f"{name}-int8", how, None, beside),
            late=True,
        )
        if int8 and wide and not self.targets.cost_misses(int8.ms, int8.mb):
            self._fallback(f"{name}-int8", run, "best", wide.score, int8)
        return wide, int8

    def _end(self) -> None:
        """Time all files in turn, then score the best one on the test images."""
        again = self._step(
            "measure",
            "time all files in turn",
            lambda: steps.timed_again(self.place, self.candidates, self.folder.path / CANDIDATES),
            late=True,
        )
        if again and "ms" in again:
            self.candidates = [replace(one, ms=again["ms"].get(one.name, one.ms)) for one in self.candidates]
        self.publish()
        test = self.place.data.test
        if test is not None and len(test):
            best = best_of(self.candidates, self.targets)
            paths = self.folder.candidate("float"), self.folder.path / CANDIDATES / best.file
            self._step(
                "test",
                f"score {best.file} on the test images, once",
                lambda: steps.tested(self.place, test, paths[0], best, paths[1]),
                late=True,
            )

    def _examine(self) -> None:
        """Each layer of the best int8 file, for the page."""
        best = best_of(self.candidates, self.targets)
        name = f"{best.name}-layers"
        source = self.values.get(best.name, {}).get("quantised")
        if source is None or not best.run:
            return
        which = self.settings.which if best.run == str(self.settings.run) else "best"
        path = self.folder.candidate(name)

        def looked() -> dict[str, Any]:
            from gossamer.shrink.quantise import quantize

            try:
                result = quantize(
                    best.run, path, which=which, keep=source["float_layers"], layers=True, progress=self.progress
                )
            finally:
                path.unlink(missing_ok=True)
            return {"quantised": steps.quantisation(result)}

        values = self._step(name, f"measure each layer of {best.file}", looked, late=True)
        if values and "quantised" in values:
            self.values[best.name] = {**self.values[best.name], "quantised": values["quantised"]}

    # one step

    def _candidate(
        self, name: str, what: str, action: Callable[[], dict[str, Any]], late: bool = False
    ) -> Candidate | None:
        """A step that makes a file."""
        values = self._step(name, what, action, late)
        if values is None or "candidate" not in values:
            return None
        one = candidate_of(values["candidate"])
        self._check_file(one, values, name)
        self.candidates.append(one)
        if self.runner.fresh:
            self.publish()
        return one

    def _check_file(self, one: Candidate, values: dict[str, Any], step: str) -> None:
        """Raises RunError where the file of a candidate is gone or another one than that which was measured."""
        path = self.folder.candidate(one.name)
        if not path.is_file():
            raise RunError(f"{path}: is gone", "the files of finished steps", "restore it, or give another --out")
        check_file(values, sha256(path), path, self.folder.step(step))

    def _step(
        self, name: str, what: str, action: Callable[[], dict[str, Any]], late: bool = False
    ) -> dict[str, Any] | None:
        """As `StepRunner.do`; a training counts by its own clock, and the file of a candidate is known by its digest."""

        def with_digest() -> dict[str, Any]:
            values = action()
            if "candidate" in values:
                values = {**values, "sha256": sha256(self.folder.path / CANDIDATES / values["candidate"]["file"])}
            return values

        def took(known: dict[str, Any]) -> float:
            if name.endswith("-decompose"):
                return float(known["seconds"]) + float(known.get("before", 0.0))
            if not name.endswith("-train"):
                return float(known["seconds"])
            return _trained_for(known["run"], known["seconds"]) if "run" in known else 0.0

        return self.runner.do(name, what, with_digest, late, took)

    def _reserve(self) -> float:
        """Seconds that what follows a training takes: an export, a quantisation, and all files timed in turn."""
        int8 = self.values.get("int8", {}).get("seconds", 0.0)
        return float(self.values["float"]["seconds"] + 1.2 * int8 + 2.5 * (len(self.candidates) + 2))

    def publish(self) -> None:
        """Write what was found so far."""
        publish(self.folder, self.place, self.candidates, self.done, self.notes)

    def _say_plan(self) -> None:
        count, minutes = aims.count_of(self.settings.minutes), self.settings.minutes
        epochs = self.settings.epochs
        share = f"{TRAINING * minutes / count:.2g} minutes at most" if epochs is None else counted(epochs, "epoch")
        self.progress.say(
            f"plan: {minutes:g} minutes; quantise the run; where that is not enough, up to {count} narrower "
            f"{'network' if count == 1 else 'networks'}, each trained for {share}"
            f"{', and layers of it decomposed where that is faster' if self.settings.decompose else ''}; {(1 - TRAINING) * minutes:.2g} minutes "
            f"for choosing, quantising and measuring; limits: {self.targets.text()}"
        )


def _trained_for(folder: str | Path, otherwise: float) -> float:
    """The seconds that a training has taken by its clock; `otherwise` where that does not say. Raises RunError."""
    seconds = Run.open(folder).clock().get("seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < 1e12:
        return float(seconds)
    return otherwise
