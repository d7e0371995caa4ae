"""The worker processes of one start: units handed out, answers committed, the units of killed workers given to others."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gossamer
from gossamer.batch.folder import AnswerFolder, Record
from gossamer.batch.losses import Queue
from gossamer.batch.plan import Unit
from gossamer.errors import GossamerError, StorageError

COMMAND = [sys.executable, "-P", "-m", "gossamer.batch.worker"]  # -P: no module is imported from the current folder
AHEAD = 2  # units of a worker, so that it never waits for the next one
PATIENCE = 1.0  # seconds between two calls of `tell` where nothing happens


class Worker:
    """A process with the units that were handed to it, the one that it works at first."""

    def __init__(
        self, config: dict[str, Any], messages: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]
    ) -> None:
        # numpy's and the runtimes' libraries read these as they are loaded
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        home = str(Path(gossamer.__file__).parents[1])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self.units: list[Unit] = []
        self.ready = False  # it has loaded the model
        self.words = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            env={**os.environ, **dict.fromkeys(names, str(config["threads"])), "PYTHONPATH": path},
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent, which ends them
        )
        self._reader = threading.Thread(target=self._pass_on, args=(messages,), daemon=True)
        self._reader.start()
        self.send(config)

    def send(self, message: dict[str, Any]) -> None:
        """A line to the process; that it has ended comes as a message."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End the process, at once."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.words.close()

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        self.words.seek(0)
        lines = self.words.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else "it said nothing"

    def _pass_on(self, messages: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with contextlib.suppress(ValueError):  # the last line of a killed process
                    messages.put((self, json.loads(line)))
        messages.put((self, None))


def answer_units(
    folder: AnswerFolder,
    units: Sequence[Unit],
    config: dict[str, Any],
    count: int,
    committed: Callable[[Record], None],
    tell: Callable[[int, str], None],
) -> None:
    """Let `count` processes answer the units; each is in the log when this returns, or among the failed ones of the folder.

    config: see `gossamer.batch.worker.answering`. committed: called with each new line of the log. tell: called with the
    images that were answered since the last call, at least once a second, and a line where a worker was killed. A worker
    holds two units at most. Raises what the workers raise, GossamerError where they are lost again and again, see `Queue`.
    """
    waiting = Queue(folder, units, count, AHEAD)
    messages: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]] = queue.SimpleQueue()
    workers: list[Worker] = []

    def give(worker: Worker) -> None:
        waiting.give(worker.units, lambda unit: worker.send({"unit": unit.number}))

    def start() -> None:
        workers.append(Worker(config, messages))
        give(workers[-1])

    try:
        for _ in range(min(count, len(units))):
            start()
        while waiting.left:
            try:
                arrived = [messages.get(timeout=PATIENCE)]
            except queue.Empty:
                tell(0, "")
                continue
            with contextlib.suppress(queue.Empty):
                for _ in range(messages.qsize()):  # of now: what arrives meanwhile waits its turn
                    arrived.append(messages.get_nowait())
            records = [message["done"] for _, message in arrived if message and "done" in message]
            if records:
                folder.commit(records)  # one sync for all that arrived together
            for worker, message in arrived:
                if message is None:
                    code = worker.process.wait()
                    if code < 0:
                        why = f"ended by {signal.Signals(-code).name}"
                    else:
                        why = f"ended with exit code {code}: {worker.last_words()}"
                        if not worker.ready:
                            raise RuntimeError(f"a worker {why}")
                    workers.remove(worker)
                    worker.close()
                    if not worker.ready:  # no unit is the reason
                        waiting.back(worker.units)
                    tell(0, waiting.lost(worker.units if worker.ready else [], why))
                    if waiting:
                        start()
                elif "ready" in message:
                    worker.ready = True
                elif "error" in message:
                    error = StorageError if message.get("kind") == "storage" else GossamerError
                    raised = error(message["error"])
                    raised.exit_code = message["exit_code"]
                    raise raised
                else:
                    tell(message["images"], "")
                    if "done" in message:
                        record = message["done"]
                        worker.units = [unit for unit in worker.units if unit.number != record["unit"]]
                        folder.forget(record["unit"])
                        committed(record)
                        waiting.answered()
                        give(worker)
    finally:
        for worker in workers:
            worker.close()
