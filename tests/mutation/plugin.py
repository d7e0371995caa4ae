"""A pytest plugin that records which tests execute which lines of gossamer, commands in other processes included.

pytest -p tests.mutation.plugin, with the folder to write into in the environment variable LINES_BY_TEST. Each process writes
what each test executes, and the tests' outcomes and seconds. What a fixture of a wider scope than a test executes belongs to
every test that uses the fixture.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = "LINES_BY_TEST"
SOURCES = "LINES_BY_TEST_SOURCES"  # the folder of the sources that count
TEST = "LINES_BY_TEST_CONTEXT"  # tells a process which test has started it
OTHER = "no test"  # the context of what imports and the session itself execute
FIXTURE = "fixture "


class Recorder:
    """The plugin of one process of tests."""

    def __init__(self) -> None:
        self.context = OTHER
        self.tests: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)

    def switch(self, context: str) -> str:
        """Record for another context; returns the one before."""
        from probes import executed  # the module that sitecustomize has loaded by this name

        self.lines[self.context] |= executed
        executed.clear()
        before, self.context = self.context, context
        os.environ[TEST] = context
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.switch(item.nodeid)
        self.tests[item.nodeid] = {"seconds": 0.0, "passed": False, "fixtures": []}
        result = yield
        self.switch(OTHER)
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
        self.switch(OTHER)
        lines = {context: sorted(executed) for context, executed in self.lines.items() if context != OTHER}
        result = json.dumps({"tests": self.tests, "lines": lines})
        (Path(os.environ[FOLDER]) / f"tests-{os.getpid()}.json").write_text(result)


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER in os.environ:
        config.pluginmanager.register(Recorder())


# The `sitecustomize` of all processes: those of the tests, those that tests start, and the forks of both.
CHILD = """
import atexit, os
from multiprocessing import util

import probes


def begin():
    probes.executed.clear()
    atexit.register(end)
    # a process of multiprocessing ends without atexit
    util.register_after_fork(probes.executed, lambda _: util.Finalize(None, end, exitpriority=0))


def end():
    # tests/server.py gives a command its environment after the fork, so the test is known only now
    context = os.environ.get("LINES_BY_TEST_CONTEXT", "")
    if context and os.getpid() != tests:
        with open(f"{os.environ['LINES_BY_TEST']}/child-{os.getpid()}.txt", "a") as file:
            file.writelines(f"{context}\\t{path}\\t{line}\\n" for path, line in sorted(probes.executed))
        probes.executed.clear()


tests = 0 if "LINES_BY_TEST_CONTEXT" in os.environ else os.getpid()
if "LINES_BY_TEST" in os.environ:
    probes.install(os.environ["LINES_BY_TEST_SOURCES"])
    begin()
    os.register_at_fork(after_in_child=begin)
"""
