"""A worker process that serves requests, or reports why it cannot."""

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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import gossamer

COMMAND = [sys.executable, "-P", "-m", "gossamer.bench.worker"]  # -P: no module is imported from the current folder


class Failed(Exception):
    """A candidate gave no reply; the message says why, in one line."""


class Process:
    """A worker process that serves requests, one at a time."""

    def __init__(self, threads: int, command: Sequence[str] | None = None) -> None:
        """`command`: of a worker other than the usual one."""
        # numpy's and torch's libraries read these before main() could set anything
        count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        home = str(Path(gossamer.__file__).parents[1])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self.words = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self.process = subprocess.Popen(
            command or COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            env={**os.environ, **count, "PYTHONPATH": path},
            text=True,
            encoding="utf-8",
            start_new_session=True,  # torch.compile starts processes of its own; they end together
        )
        self.replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests = self.process.stdin
        self.reader = threading.Thread(target=_pass_on, args=(self.process.stdout, self.replies), daemon=True)
        self.reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
        """The reply within `patience` seconds. Raises Failed."""
        with contextlib.suppress(BrokenPipeError):  # it has ended; the empty reply tells
            self.requests.write(json.dumps(request) + "\n")
            self.requests.flush()
        try:
            line = self.replies.get(timeout=patience)
        except queue.Empty as error:
            raise Failed(f"no reply within {patience:g} seconds") from error
        if not line:
            raise Failed(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def close(self) -> None:
        """End the process, at once."""
        if self.words.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended already
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        self.reader.join()
        with contextlib.suppress(BrokenPipeError):  # what was not yet sent
            self.requests.close()
        self.words.close()

    def _last_words(self) -> str:
        code = self.process.wait()
        how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.words.seek(0)
        words = self.words.read().decode(errors="replace").strip().splitlines()
        return f"its process {how}" + (f": {words[-1].strip()[:200]}" if words else "")


def _pass_on(stream: IO[str], replies: queue.SimpleQueue[str]) -> None:
    """Lines of a pipe into a queue, which can be waited on with a limit; "" at the end."""
    with stream:
        for line in stream:
            replies.put(line)
    replies.put("")
