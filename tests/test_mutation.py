"""The mutants that `make mutate` makes, and which tests run on them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.__main__ import draw, merge, table
from tests.mutation.choose import Chooser
from tests.mutation.mutants import mutants
from tests.mutation.probes import runs_of, with_probes
from tests.mutation.record import moved_lines

CHANGES = {
    "a < b": {"a <= b", "a >= b"},
    "a == b": {"a != b"},
    "a is not None": {"a is None"},
    "a in b": {"a not in b"},
    "a + b": {"a - b"},
    "a * b": {"a // b"},
    "a // b": {"a * b"},
    "a and b and c": {"a or b or c"},
    "not a": {"a"},
    "x = 3": {"x = 4", "x = 2"},
    "x = True": {"x = False"},
    "x += y": {"x -= y"},
    "f(a, b, c)": {"f(b, a, c)"},
    "x if a else y": {"x if not a else y"},
    "[x for x in y if x]": {"[x for x in y if not x]"},
    "def f():\n    return a": {"def f():\n    return None"},
    "'é' in a": {"'é' not in a"},  # offsets are of bytes
}
LEFT_ALONE = (
    "'text' + a",
    "f'{a + b:>8}'",
    "raise ValueError(f(a, b), a < b)",
    "assert a < b",
    "x: Literal[1, 2]",
    "def f(x: tuple[1, 2]) -> a[3]: ...",
    "progress.say(a + b)",
    "SettingsError(a, b)",
    "add(help=a + b)",
    "def text(self):\n    return a + b",
    "if TYPE_CHECKING:\n    x = 1",
    "def f():\n    return None",
    "f(a, a)",
)


@pytest.mark.parametrize("source", CHANGES)
def test_every_kind_of_mutant_is_drawn(source: str) -> None:
    changed = {ast.unparse(ast.parse(m.apply(source.encode()))) for m in mutants("x.py", source)}
    assert changed == {ast.unparse(ast.parse(text)) for text in CHANGES[source]}


@pytest.mark.parametrize("source", LEFT_ALONE)
def test_text_and_types_are_left_alone(source: str) -> None:
    assert mutants("x.py", source) == []


def test_a_mutant_is_where_it_says_and_changes_nothing_else() -> None:
    source = "def f(a,\n      b):\n    if (a\n        < b): return a\n    return b\n"
    for mutant in mutants("x.py", source):
        changed = mutant.apply(source.encode()).decode()
        assert changed.startswith(source[: mutant.start]) and changed.endswith(source[mutant.end :])
        assert mutant.before in source and mutant.function == "f"
        assert source[: mutant.start].count("\n") + 1 == mutant.line
    with pytest.raises(AssertionError, match="not the source"):
        mutants("x.py", source)[0].apply(b"def g(a,\n      b):\n    pass or not, but long enough\n" * 2)


def test_mutants_are_drawn_by_seed_and_spread_by_lines() -> None:
    sources = {f"src/gossamer/{room}/a.py": "x = 1\n" * lines for room, lines in (("one", 30), ("two", 10))}
    drawn = draw(sources, ["all"], 8, 1)
    assert [m.file.split("/")[2] for m in drawn] == ["one"] * 6 + ["two"] * 2
    assert len({(m.file, m.line) for m in drawn}) == 8
    assert drawn == draw(sources, ["all"], 8, 1) != draw(sources, ["all"], 8, 2)
    assert draw(sources, ["two"], 8, 1, of_all=True) == drawn[6:]
    assert {m.file.split("/")[2] for m in draw(sources, ["two"], 8, 1)} == {"two"}


def test_a_record_follows_lines_that_move() -> None:
    old, new = "a\nb\nc\nd\n", "zero\na\nB\nc\n"
    assert moved_lines(old, new) == {1: 2, 2: 3, 3: 4}
    assert moved_lines(old, old) == {line: line for line in range(1, 6)}


PROBED = '''def f(a):
    """Text."""
    b = [
        a]
    if (a
            > 1):
        return 1
    try:
        c = b[1]
    except IndexError:
        c = 2
    for d in b:
        def g():
            return 5
        c += d
    return c
'''


def test_probes_say_which_lines_were_executed() -> None:
    runs = runs_of(PROBED)
    assert runs == {3: [3, 4, 5, 6], 7: [7], 8: [8], 9: [9], 11: [11], 12: [12], 13: [13, 14, 15], 14: [14], 16: [16]}
    executed: set[tuple[str, int]] = set()
    space: dict[str, Any] = {"__executed__": executed.add}
    exec(compile(with_probes(ast.parse(PROBED), "a.py"), "a.py", "exec"), space)
    assert space["f"].__doc__ == "Text." and space["f"](2) == 1
    assert executed == {("a.py", 3), ("a.py", 7)}
    assert space["f"](0) == 2
    assert {line for _, line in executed} == {3, 7, 8, 9, 11, 12, 13, 16}


SOURCE = """TABLE = (1, 2)
OTHER = TABLE[0]


def use(n=3):
    return OTHER + n


def unused():
    return 5
"""


def test_what_is_executed_at_import_has_the_tests_of_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.mutation import choose

    file = "src/gossamer/room.py"
    (tmp_path / "src/gossamer").mkdir(parents=True)
    (tmp_path / file).write_text(SOURCE)
    monkeypatch.setattr(choose, "ROOT", tmp_path)
    lines = {"6": ["t.py::slow", "t.py::quick"]}
    tests = Chooser(
        {"sources": {file: SOURCE}, "seconds": {"t.py::slow": 9.0, "t.py::quick": 0.1}, "lines": {file: lines}}
    )
    for mutant in mutants(file, SOURCE):
        assert tests.of(mutant) == ([] if mutant.function == "unused" else ["t.py::quick", "t.py::slow"]), mutant


def test_a_survivor_meets_more_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.mutation import __main__, choose

    file = "src/gossamer/room.py"
    (tmp_path / "src/gossamer").mkdir(parents=True)
    (tmp_path / file).write_text(SOURCE)
    monkeypatch.setattr(choose, "ROOT", tmp_path)
    names = [f"t{number}.py::test" for number in range(9)]
    tests = Chooser({"sources": {file: SOURCE}, "seconds": dict.fromkeys(names, 1.5), "lines": {file: {"6": names}}})
    mutant = next(mutant for mutant in mutants(file, SOURCE) if mutant.line == 6)
    assert tests.of(mutant) == names[:6] and tests.of(mutant, 2) == names

    class Last:
        """Stands for the runner: only the last test notices."""

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def judge(self, mutant: Any, tests: Any, seconds: float) -> str:
            self.asked.append((list(tests), seconds))
            return f"killed by {names[8]}" if names[8] in tests else "survived"

    last: Any = Last()
    assert __main__._verdict(last, mutant, tests, set()) == "killed by t8.py::test"
    assert last.asked == [(names[:6], 9.0), (names[6:], 4.5)]
    assert __main__._verdict(last, mutant, tests, {names[8]}) == "survived"


def test_results_keep_the_first_verdict_and_name_the_survivors() -> None:
    drawn = mutants("src/gossamer/room/a.py", "x = 1\n")
    results = merge([], drawn, {drawn[0].name: "survived", drawn[1].name: "killed by t.py::a"})
    assert "room               2      1  50.0%" in table(results)
    assert table(results).endswith(f"src/gossamer/room/a.py:1 constant: 1 -> {drawn[0].after}: survived")
    results = merge(json.loads(json.dumps(results)), drawn, {drawn[0].name: "killed by t.py::b"})
    assert [result["first"] for result in results] == ["survived", "killed by t.py::a"]
    assert "100.0%" in table(results)


@pytest.mark.full
def test_a_run_records_judges_and_leaves_the_checkout_alone(tmp_path: Path) -> None:
    """In a checkout of its own with one room and two test files: one mutant lives, whose line is executed but not checked."""
    root = tmp_path / "checkout"
    (root / "src/gossamer").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['full: slow']\n")
    code = "def more(a):\n    return a + 1\n\n\ndef forever(n):\n    while n < 2:\n        n += 1\n    return n\n"
    (root / "src/gossamer/__init__.py").write_text("")
    (root / "src/gossamer/room.py").write_text(code)
    for name in ("__init__.py", "runs.py"):
        (root / "tests" / name).write_text((Path(__file__).parent / name).read_text())
    (root / "tests/server.py").write_text((Path(__file__).parent / "server.py").read_text())
    (root / "tests/test_room.py").write_text(
        "from gossamer import room\n\ndef test_more():\n    assert room.more(1)\n\ndef test_forever():\n    assert room.forever(0) == 2\n"
    )
    (root / "tests/mutation").mkdir()
    for path in (Path(__file__).parent / "mutation").glob("*.py"):
        text = path.read_text().replace("START = 30.0", "START = 5.0")
        (root / "tests/mutation" / path.name).write_text(text)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    line = [sys.executable, "-m", "tests.mutation", "--rooms", "room", "--count", "30", "--seed", "3"]
    environment = {**os.environ, "PYTHONPATH": f"{root}/src:{root}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    results = json.loads((root / ".mutation/results.json").read_text())
    verdicts = {result["line"]: result["verdict"].split(" ")[0] for result in results}
    assert verdicts[8] == "killed" and "survivors:" in done.stdout
    assert {
        path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".mutation" not in path.parts
    } == before
