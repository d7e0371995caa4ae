"""A pytest plugin that records which tests execute which lines of gossamer, commands in other processes included.

pytest -p tests.mutation.plugin, with the folder to write into in the environment variable COVERAGE_BY_TEST. Each process writes
a coverage file whose contexts are tests, and the tests' outcomes and seconds. What a fixture of a wider scope than a test
executes belongs to every test that uses the fixture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

FOLDER = "COVERAGE_BY_TEST"
SOURCES = "COVERAGE_BY_TEST_SOURCES"  # a pattern of the files that count
TEST = "COVERAGE_BY_TEST_CONTEXT"  # tells a process which test has started it
IMPORTS = "imports"  # the context of lines that no test but an import executes
FIXTURE = "fixture "


def start(context: str) -> coverage.Coverage:
    """Record from here on."""
    folder = Path(os.environ[FOLDER])
    recorder = coverage.Coverage(
        data_file=str(folder / "lines"), data_suffix=True, include=[os.environ[SOURCES]], config_file=False
    )
    recorder.start()
    recorder.switch_context(context)
    return recorder


class Recorder:
    """The plugin of one process of tests."""

    def __init__(self) -> None:
        self.recorder = start(IMPORTS)
        self.context = IMPORTS
        self.tests: dict[str, dict[str, Any]] = {}

    def switch(self, context: str) -> str:
        """Record for another context; returns the one before."""
        before, self.context = self.context, context
        os.environ[TEST] = context
        self.recorder.switch_context(context)
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.switch(item.nodeid)
        self.tests[item.nodeid] = {"seconds": 0.0, "passed": False, "fixtures": []}
        result = yield
        self.switch(IMPORTS)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        before = self.switch(f"{FIXTURE}{fixturedef.baseid}::{fixturedef.argname}")
        try:
            return (yield)
        finally:
            self.switch(before)

    def pytest_runtest_teardown(self, item: Any) -> None:
        definitions = item._fixtureinfo.name2fixturedefs
        self.tests[item.nodeid]["fixtures"] = [
            f"{FIXTURE}{definition.baseid}::{name}"
            for name, definitions_of_name in definitions.items()
            for definition in definitions_of_name
        ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.tests:  # not those that another process reports
            test = self.tests[report.nodeid]
            test["seconds"] = round(test["seconds"] + report.duration, 3)
            if report.when == "call" or report.failed:
                test["passed"] = report.passed

    def pytest_unconfigure(self) -> None:
        self.recorder.stop()
        self.recorder.save()
        (Path(os.environ[FOLDER]) / f"tests-{os.getpid()}.json").write_text(json.dumps(self.tests))


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER in os.environ:
        config.pluginmanager.register(Recorder())
        exec(compile(CHILD, "sitecustomize.py", "exec"), {"__name__": "sitecustomize", "PARENT": True})


# The `sitecustomize` of the processes that tests start: it records them and each of their forks; of the tests' own process
# (PARENT) the forks.
CHILD = """
import atexit, os
from multiprocessing import util


def begin():
    import coverage

    recorder = coverage.Coverage(data_file=None, include=[os.environ["COVERAGE_BY_TEST_SOURCES"]], config_file=False)
    recorder.start()

    def end():
        # tests/server.py gives a command its environment after the fork, so the test is known only now
        recorder.stop()
        data = recorder.get_data()
        with open(f"{os.environ['COVERAGE_BY_TEST']}/child-{os.getpid()}.txt", "a") as file:
            for name in data.measured_files():
                lines = " ".join(map(str, data.lines(name)))
                file.write(f"{os.environ['COVERAGE_BY_TEST_CONTEXT']}\\t{name}\\t{lines}\\n")

    atexit.register(end)
    # a process of multiprocessing ends without atexit
    kept.append(recorder)
    util.register_after_fork(recorder, lambda recorder: util.Finalize(None, end, exitpriority=0))


kept = []
if "COVERAGE_BY_TEST_CONTEXT" in os.environ or "PARENT" in globals():
    if "PARENT" not in globals():
        begin()
    os.register_at_fork(after_in_child=begin)
"""
