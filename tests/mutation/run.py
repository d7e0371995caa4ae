"""Running the tests of a mutant in a fork of a process that has imported what they need, but nothing of gossamer."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant
from tests.mutation.record import copy_checkout

START = 30.0  # seconds to import and collect the tests of a mutant
TIMES = 4.0  # how much longer than usual its tests may take
WAITING = 4.0  # seconds that they may wait, for each of the processor
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Outcome:
    """A pytest plugin: runs the tests named, in that order, and lists those that fail."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.order = {test: index for index, test in enumerate(tests)}
        self.failed: list[str] = []
        self.passed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call":
            self.passed.append(report.nodeid)


class Runner:
    """A copy of the checkout in a new folder, which is this process's current one from here on."""

    def __init__(self, folder: Path) -> None:
        self.tree = copy_checkout(folder / "tree")
        os.chdir(self.tree)
        os.environ["PYTHONPATH"] = f"{self.tree}/src:{self.tree}"
        # what is compiled may be kept: that of the sources is valid by their hashes, see `copy_checkout`
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
        # the tests and gossamer come from the copy, from here on
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "gossamer")]:
            if name.split(".")[:2] != ["tests", "mutation"] and name != "tests":
                del sys.modules[name]
        sys.path[:0] = [f"{self.tree}/src", str(self.tree)]
        sys.modules["tests"].__path__ = [str(self.tree / "tests")]
        self.server: Any = None
        import onnx
        import onnxruntime
        import onnxscript
        import torch.onnx
        import yaml  # noqa: F401

        assert onnx and onnxruntime and onnxscript and torch
        assert not any(name.split(".")[0] == "gossamer" for name in sys.modules)

    def judge(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> str:
        """ "killed by TEST", "killed by time", "survived", or "no coverage" where there are no tests."""
        if not tests:
            return "no coverage"
        path = self.tree / mutant.file
        source = path.read_bytes()
        path.write_bytes(mutant.apply(source))
        try:
            failed = self.failing(tests, START + TIMES * seconds)
        finally:
            path.write_bytes(source)
        if failed is None:
            return "killed by time"
        return f"killed by {failed[0]}" if failed else "survived"

    def failing(self, tests: Sequence[str], seconds: float, stop: bool = True) -> list[str] | None:
        """The tests that fail, with `stop` the first alone; None if together they take more than `seconds` of a processor."""
        if self.server is None or self.server.process.poll() is not None:
            from tests.runs import Commands

            self.server = Commands()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            # of the processor, as a busy machine is no reason
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
            try:
                os.write(write, json.dumps(self._pytest(tests, stop)[:20]).encode() + b"\n")
            finally:
                os._exit(0)
        os.close(write)
        text, end, status = b"", time.monotonic() + WAITING * seconds, None
        while not text.endswith(b"\n") and status is None and time.monotonic() < end:
            status = os.waitpid(child, os.WNOHANG)[1] if os.waitid(os.P_PID, child, ENDED) else None
            while select.select([read], [], [], 0 if status is not None else 0.2)[0] and (part := os.read(read, 65536)):
                text += part
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
        os.close(read)
        if text.endswith(b"\n"):
            return list(json.loads(text))
        self.server.close()  # it may be in the middle of a command
        late = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL))
        return None if late else ["(the process of the tests died)"]

    def _pytest(self, tests: Sequence[str], stop: bool) -> list[str]:
        """In the fork: run the tests, and list the failing ones."""
        os.setsid()
        import pytest

        from tests import runs

        runs.commands = lambda: self.server
        outcome = Outcome(tests)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", *(["-x"] if stop else [])]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = pytest.main([*options, *files], plugins=[outcome])
        if code not in (0, 1) and not outcome.failed:
            outcome.failed.append(f"(pytest ended with {int(code)})")
        return outcome.failed
