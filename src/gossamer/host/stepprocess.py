"""A process of its own for the functions of steps: one that needs more memory than there is ends it, and not the whole.

It reads a request a line from standard input, and answers with lines; it ends with its parent, whose end closes its standard
input. Started as `python -P -m gossamer.host.stepprocess` at the first call.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import gossamer
from gossamer.host.progress import SILENT, PlainLines, Progress
from gossamer.host.signals import ends_as_interrupts, goes_first
from gossamer.host.steprunner import WorkerLost, called, result_of

COMMAND = [sys.executable, "-P", "-m", "gossamer.host.stepprocess"]  # -P: no module is imported from the current folder
TRIES = 2  # of a step whose process is killed
ENDING = 60.0  # seconds in which a training that is interrupted saves its state


class StepProcess:
    """The process of this one, started at the first call; inside `with`, at whose end it is ended."""

    def __init__(self, progress: Progress = SILENT) -> None:
        self.progress = progress
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
        """What a function of a module returns for plain arguments and `progress`; with "lost" where its process was killed before.

        One that cannot be found by its name is called here. Raises what the function does, as a GossamerError; WorkerLost
        where its process is killed TRIES times.
        """
        if not _is_found(function):
            return function(*arguments, self.progress)
        for lost in range(1, TRIES + 1):
            values = self._ask({"module": function.__module__, "name": function.__qualname__, "arguments": arguments})
            if values is not None:
                known = result_of(values)
                return {**known, "lost": lost - 1} if lost > 1 else known
            why = self._end()
            if lost < TRIES:
                self.progress.say(f"the process of this step {why}: another one goes on with it")
        raise WorkerLost(f"its process {why}, {TRIES} times; where the memory is not enough, try a smaller one", TRIES)

    def close(self) -> None:
        """End the process; a training in it saves its state first, unless this is interrupted again."""
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING)
        finally:
            self._end()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request, what is said before it passed on; None where the process ends without one."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = _started()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            try:
                values = json.loads(line)
            except ValueError:  # the last line of a killed process
                continue
            if "say" not in values:
                return dict(values)
            self.progress.say(values["say"])
        return None

    def _end(self) -> str:
        """End the process at once; how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "has ended"
        process.kill()
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _is_found(function: Callable[..., Any]) -> bool:
    """Whether another process finds a function by its name."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    name = getattr(function, "__qualname__", "")
    return (
        bool(name) and module is not None and module.__name__ != "__main__" and getattr(module, name, None) is function
    )


def _started() -> subprocess.Popen[str]:
    home = str(Path(gossamer.__file__).parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the parent, which ends it
    )


class _Replies(PlainLines):
    """What is said, as replies."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.send = send

    def say(self, line: str) -> None:
        self.send({"say": line})


def main() -> None:
    """Serve one parent."""
    goes_first()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    # not sys.stdin: a thread that reads it holds its lock, for which a process that is forked, as one that decodes images is,
    # would wait for ever as it closes its own
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(asked, requests), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        with ends_as_interrupts():
            while True:
                request = requests.get()
                function = getattr(importlib.import_module(request["module"]), request["name"])
                send(called(function, (*request["arguments"], _Replies(send))))
    except KeyboardInterrupt:  # the parent's, after the state was saved
        os._exit(0)
    except BrokenPipeError:  # the parent is gone
        os._exit(1)


def _read(stream: IO[str], requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in stream:
        requests.put(json.loads(line))
    os._exit(0)  # the parent has ended


if __name__ == "__main__":
    main()
