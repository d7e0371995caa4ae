"""Units of work answered by actors of a Ray cluster: one task a unit, a few in flight, answers committed here.

An actor loads the model file once and repeats the checks that it carries. The folder of answers and the images lie on disks
that all machines of the cluster share, under the same paths.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gossamer.batch.answering import Answering
from gossamer.batch.folder import AnswerFolder, Record, claim
from gossamer.batch.losses import Queue
from gossamer.batch.plan import Unit
from gossamer.batch.worker import answering
from gossamer.batch.workers import AHEAD, PATIENCE
from gossamer.errors import GossamerError, InputError
from gossamer.host.cluster import lost
from gossamer.host.steprunner import called, result_of
from gossamer.runtime.verification import verify_model

START_LIMIT = 600.0  # seconds until the first actor is there


class UnitActor:
    """What an actor does; each call gives what `called` gives."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._answering: Answering | None = None

    def prepare(self) -> dict[str, Any]:
        """Load the model file, and check that it computes here what was trained."""
        return called(self._load, ())

    def answer(self, number: int) -> dict[str, Any]:
        """Answer a unit that was handed out; the line of the log."""
        return called(self._answer, (number,))

    def _load(self) -> dict[str, Any]:
        folder = self._config["folder"]
        try:
            os.chdir(folder)
        except OSError as error:
            raise InputError(
                f"{folder}: {error.strerror} on a machine of the cluster", "a folder that all of them share",
                "start it in such a folder",
            ) from error  # fmt: skip
        self._answering = answering(self._config)
        verify_model(self._answering.model).raise_if_failed()
        return {}

    def _answer(self, number: int) -> dict[str, Any]:
        assert self._answering is not None, "prepared"
        waiting = [claim(Path(self._config["out"]), number)]
        done: list[dict[str, Any]] = []

        def report(message: dict[str, Any]) -> None:
            if "done" in message:
                done.append(message["done"])

        self._answering.serve(lambda wait: waiting.pop() if waiting else None, report)
        return done[0]


class _Actor:
    """An actor with the units in its queue. begun: whether it is prepared."""

    def __init__(self, ray: Any, config: dict[str, Any]) -> None:
        options = {"num_cpus": config["threads"], "max_restarts": 0}
        self.handle = ray.remote(UnitActor).options(**options).remote(config)
        self.units: list[Unit] = []
        self.begun = False


def answer_on_ray(
    ray: Any,
    folder: AnswerFolder,
    units: Sequence[Unit],
    config: dict[str, Any],
    count: int,
    committed: Callable[[Record], None],
    tell: Callable[[int, str], None],
) -> None:
    """As `workers.answer_units`, by `count` actors of the cluster that `ray` is joined to."""
    waiting = Queue(folder, units, count, AHEAD)
    running: dict[Any, tuple[_Actor, Unit | None]] = {}
    actors: list[_Actor] = []
    started = time.monotonic()  # the last actor was: those that take the place of others have their time, too

    def start() -> None:
        nonlocal started
        started = time.monotonic()
        actor = _Actor(ray, config)
        actors.append(actor)
        running[actor.handle.prepare.remote()] = actor, None

    def give(actor: _Actor) -> None:
        def send(unit: Unit) -> None:
            running[actor.handle.answer.remote(unit.number)] = actor, unit

        waiting.give(actor.units, send)

    def replace(actor: _Actor, why: str) -> None:
        actors.remove(actor)
        ray.kill(actor.handle)
        for reference in [each for each, (owner, _) in running.items() if owner is actor]:
            del running[reference]
        tell(0, waiting.lost(actor.units, f"lost ({why})"))
        if waiting:
            start()

    try:
        for _ in range(min(count, len(units))):
            start()
        while waiting.left:
            ended, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
            tell(0, "")
            if not ended:
                if not any(actor.begun for actor in actors) and time.monotonic() - started > START_LIMIT:
                    raise GossamerError(
                        f"no worker of the cluster has begun within {START_LIMIT:g} seconds: look at `ray status`"
                    )
                continue
            more, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            records = []
            # in the order in which they were begun: the first unit of an actor that is lost is the one that it was at
            for reference in [each for each in running if each in {*ended, *more}]:
                if reference not in running:  # of an actor that was just replaced
                    continue
                actor, unit = running[reference]
                try:
                    values = ray.get(reference)
                except ray.exceptions.RayError as error:
                    replace(actor, lost(error))
                    continue
                del running[reference]
                value = result_of(values)
                if unit is None:
                    actor.begun = True
                else:
                    actor.units.remove(unit)
                    records.append(value)
                give(actor)
            if records:
                folder.commit(records)  # one sync for all that arrived together
            for record in records:
                folder.forget(record["unit"])
                committed(record)
                tell(record["images"], "")
                waiting.answered()
    finally:
        for actor in actors:
            ray.kill(actor.handle)
