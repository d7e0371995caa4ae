"""Which tests execute which lines of gossamer: recorded once, and kept in .mutation/."""

from __future__ import annotations

import difflib
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.mutation.plugin import CHILD, FOLDER, SOURCES
from tests.mutation.probes import runs_of

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".mutation"
PACKAGE = "src/gossamer"
LEFT_OUT = (".git", ".venv", ".mutation", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
PER_LINE = 200  # tests that are kept of a line


def copy_checkout(to: Path) -> Path:
    """A copy of the checkout, with the folder of shared data beside it."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (to.parent / "shared").symlink_to(shared)
    # compiled once; valid by the hash of a source, as a changed one may have the same size and time
    line = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src", "tests"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(line, cwd=to, env=environment, check=True)
    return to


def record(files: Sequence[str], jobs: int, full: bool = False) -> dict[str, Any]:
    """Run the tests of `files` (none: all), but for those marked `full`, and add them to the record of .mutation/.

    full: those marked `full` too.
    """
    with tempfile.TemporaryDirectory() as name:
        tree = copy_checkout(Path(name) / "tree")
        out, child = Path(name) / "out", Path(name) / "child"
        out.mkdir()
        child.mkdir()
        (child / "sitecustomize.py").write_text(CHILD)
        shutil.copy(Path(__file__).with_name("probes.py"), child)
        environment = {
            **os.environ,
            FOLDER: str(out),
            SOURCES: f"{tree}/{PACKAGE}/",
            "PYTHONPATH": f"{child}:{tree}/src:{tree}",
            "OMP_NUM_THREADS": "1",
        }
        line = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *([] if full else ["-m", "not full"]),
            "-p",
            "tests.mutation.plugin",
        ]
        line += ["-p", "no:cacheprovider", *(["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []), *files]
        subprocess.run(line, cwd=tree, env=environment, check=False)
        tests: dict[str, dict[str, Any]] = {}
        executed: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for path in out.glob("tests-*.json"):
            of_process = json.loads(path.read_text())
            tests.update(of_process["tests"])
            for context, runs in of_process["lines"].items():
                executed[context].update((name, line) for name, line in runs)
        for path in out.glob("child-*.txt"):
            for row in path.read_text().splitlines():
                context, name, line = row.split("\t")
                executed[context].add((name, int(line)))
        sources = {str(path.relative_to(tree)): path.read_text() for path in (tree / PACKAGE).rglob("*.py")}
        lines = _lines(executed, sources, tree)
    result = {"sources": sources, "seconds": {}, "lines": {}}
    if files and (STORE / "record.json.gz").exists():
        result = _without(load_record(), files, sources)
    _add(result, tests, lines)
    STORE.mkdir(exist_ok=True)
    with gzip.open(STORE / "record.json.gz", "wt") as file:
        json.dump(result, file)
    return result


def _lines(
    executed: dict[str, set[tuple[str, int]]], sources: dict[str, str], tree: Path
) -> dict[str, dict[str, set[int]]]:
    """Context -> file -> lines, from the first lines of the runs of statements that were executed."""
    runs = {file: runs_of(source) for file, source in sources.items()}
    lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for context, firsts in executed.items():
        for name, first in firsts:
            file = os.path.relpath(name, tree)
            lines[context][file].update(runs[file][first])
    return lines


def load_record() -> dict[str, Any]:
    """The record: `sources` by file, `seconds` by test, and `lines`: file -> line -> tests."""
    with gzip.open(STORE / "record.json.gz", "rt") as file:
        return dict(json.load(file))


def _without(old: dict[str, Any], files: Sequence[str], sources: dict[str, str]) -> dict[str, Any]:
    """A record brought to newer sources, without the tests of some files."""
    seconds = {test: value for test, value in old["seconds"].items() if test.split("::")[0] not in files}
    lines: dict[str, dict[str, list[str]]] = {}
    for file, source in sources.items():
        moved = moved_lines(old["sources"].get(file, ""), source)
        lines[file] = {
            str(moved[int(line)]): [test for test in tests if test in seconds]
            for line, tests in old["lines"].get(file, {}).items()
            if int(line) in moved
        }
    return {"sources": sources, "seconds": seconds, "lines": lines}


def moved_lines(old: str, new: str) -> dict[int, int]:
    """Line of an old source -> line of the new one; a changed block's lines go to those in its place."""
    if old == new:
        return {line: line for line in range(1, old.count("\n") + 2)}
    result = {}
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    for tag, start, end, other, other_end in matcher.get_opcodes():
        if tag != "delete":
            for line in range(start, end):
                result[line + 1] = min(other + line - start, max(other_end - 1, other)) + 1
    return result


def _add(result: dict[str, Any], tests: dict[str, dict[str, Any]], lines: dict[str, dict[str, set[int]]]) -> None:
    """Put the tests that passed into a record, with what their fixtures execute."""
    everywhere: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file, by_line in result["lines"].items():
        for line, names in by_line.items():
            everywhere[file][int(line)].update(names)
    for test, facts in tests.items():
        if not facts["passed"]:
            continue
        result["seconds"][test] = facts["seconds"]
        for context in (test, *facts["fixtures"]):
            for file, numbers in lines.get(context, {}).items():
                for line in numbers:
                    everywhere[file][line].add(test)
    result["lines"] = {
        file: {
            str(line): sorted(names, key=lambda name: (result["seconds"][name], name))[:PER_LINE]
            for line, names in by_line.items()
        }
        for file, by_line in everywhere.items()
    }
