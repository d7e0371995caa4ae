"""The trials of a sweep in an Optuna study, kept in a journal: which there are, new ones drawn, and what became of them."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.errors import MissingPackageError, RunError
from gossamer.host.storage import storage_error
from gossamer.sweeps.space import Space

NAME = "sweep"
TRIES = 20  # draws of a trial that is there already, until the values left are looked for one by one
MOST_EVERY = 100_000  # trials that are looked through
DRAWN = "drawn"  # the attribute of a trial that is complete: without it a kill came between
STARTUP = 9  # trials at random before the sampler models them


class Trial(NamedTuple):
    """number: from 0; bracket: with which others it is compared first; values: of the settings that vary."""

    number: int
    bracket: int
    values: dict[str, Any]


class _HeldLock:
    """The folder's own lock keeps other processes away; Optuna's would outlive a killed process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def check_optuna() -> None:
    """Raises MissingPackageError."""
    _optuna()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("optuna", "sweep", "gossamer sweep") from error
    return optuna


class Study:
    """The study of a folder. path: of its journal. Raises RunError where that is damaged, StorageError."""

    def __init__(self, path: Path, space: Space, seed: int) -> None:
        self.path, self.space, self.seed = path, space, seed
        self._optuna = optuna = _optuna()
        _cut_off(path)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of a study that people did not ask for
        try:
            backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_HeldLock())
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=NAME,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
            self._known = self._trials()
            self._there = {space.identity(trial.values) for trial in self.trials}  # once: a grid has up to 1000
        except OSError as error:
            raise storage_error(path, error) from error
        except RunError:
            raise
        except Exception as error:  # what Optuna raises for a journal that is none, of any type
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise _damaged(path, what) from error
        finally:
            optuna.logging.set_verbosity(before)

    @property
    def trials(self) -> list[Trial]:
        """All of them, by number."""
        return [trial for trial, _ in self._known]

    def draw(self, combination: Mapping[str, Any], bracket: int) -> Trial | None:
        """A new trial with these values of the grid; None where every one that is left is there already."""
        there = self._there
        if not self.space.drawn:
            if self.space.identity(combination) in there:  # the grid may be in another order than at the start before
                left = [each for each in self.space.combinations() if self.space.identity(each) not in there]
                return self._ask(left[0], bracket) if left else None
            return self._ask(combination, bracket)
        for _ in range(TRIES):
            trial = self._ask(combination, bracket)
            if trial is not None:
                return trial
        size = self.space.size()
        if size is None or size > MOST_EVERY:  # the sampler comes back to the same ones; others are left
            tries = (self._ask(combination, bracket, at_random=True) for _ in range(TRIES))
            return next((trial for trial in tries if trial is not None), None)
        every = [values for values in self.space.every() if self.space.identity(values) not in there]
        random.Random(f"{self.seed} {len(there)}").shuffle(every)
        every.sort(key=lambda values: any(values[name] != value for name, value in combination.items()))
        return self._ask(every[0], bracket) if every else None

    def _ask(self, fixed: Mapping[str, Any], bracket: int, at_random: bool = False) -> Trial | None:
        """A trial with these values, the others drawn; None where it is there already. at_random: not from what is known."""
        optuna = self._optuna
        count = len(self._study.get_trials(deepcopy=False))
        startup = count + 1 if at_random else STARTUP
        sampler = optuna.samplers.TPESampler(seed=(self.seed * 1_000_003 + count) % (1 << 32), n_startup_trials=startup)
        values = {name: self._label(name, value) for name, value in fixed.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.PartialFixedSampler(values, sampler)
        try:
            asked = self._study.ask(self._distributions())
            drawn = {name: self._value(name, value) for name, value in asked.params.items()}
            identity = self.space.identity(drawn)
            if identity in self._there:
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                return None
            trial = Trial(len(self._known), bracket, drawn)
            asked.set_user_attr(DRAWN, trial._asdict())
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._known.append((trial, asked.number))
        self._there.add(identity)
        return trial

    def tell(self, trial: Trial, score: float | None, ms: float | None, left: bool, failed: str) -> None:
        """What became of a trial: its score and milliseconds at its end, left before, or why it failed; told once."""
        state = self._optuna.trial.TrialState
        number = self._known[trial.number][1]
        if self._study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        try:
            if failed or score is None or ms is None:
                self._study.tell(number, state=state.PRUNED if left and not failed else state.FAIL)
            elif left:
                self._study.tell(number, state=state.PRUNED)
            else:
                self._study.tell(number, [score, ms])
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _distributions(self) -> dict[str, Any]:
        kinds = self._optuna.distributions
        result: dict[str, Any] = {}
        for name, values in {**self.space.grid, **self.space.choices}.items():
            result[name] = kinds.CategoricalDistribution([json.dumps(value) for value in values])
        for name, each in self.space.ranges.items():
            if each.whole:
                step = 1 if each.step is None else int(each.step)
                result[name] = kinds.IntDistribution(int(each.low), int(each.end), each.log, step)
            else:
                result[name] = kinds.FloatDistribution(each.low, each.end, each.log, each.step)
        return result

    def _label(self, name: str, value: Any) -> Any:
        return value if name in self.space.ranges else json.dumps(value)

    def _value(self, name: str, value: Any) -> Any:
        return value if name in self.space.ranges else json.loads(value)

    def _trials(self) -> list[tuple[Trial, int]]:
        """The complete ones with Optuna's numbers; those that a kill cut off are failed. Raises RunError."""
        state = self._optuna.trial.TrialState
        result: list[tuple[Trial, int]] = []
        varying = (*self.space.grid, *self.space.choices, *self.space.ranges)
        for each in self._study.get_trials(deepcopy=False):
            attribute = each.user_attrs.get(DRAWN)
            if attribute is None:
                if not each.state.is_finished():
                    self._study.tell(each.number, state=state.FAIL)
                continue
            sound = isinstance(attribute, dict) and set(attribute) == set(Trial._fields)
            if not sound or not isinstance(attribute["values"], dict) or set(attribute["values"]) != set(varying):
                raise _damaged(self.path, f"trial {each.number} has other settings")
            if attribute["number"] != len(result) or type(attribute["bracket"]) is not int:
                raise _damaged(self.path, f"trial {each.number} has another number")
            values = {name: attribute["values"][name] for name in varying}  # the file may have them in another order
            result.append((Trial(attribute["number"], attribute["bracket"], values), each.number))
        return result


def _cut_off(path: Path) -> None:
    """Remove the end of a line that a kill cut off: what is appended next would be a part of it. Raises StorageError."""
    try:
        with path.open("rb+") as file:
            data = file.read()
            good = data.rfind(b"\n") + 1
            if good < len(data):
                file.truncate(good)
                os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error


def _damaged(path: Path, problem: str) -> RunError:
    return RunError(f"{path}: is damaged: {problem}", "what gossamer sweep wrote", "restore it, or give another --out")
