"""What the tests run commands with: a command that is forked is the command that a user starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gossamer.cli.loading import LOADING
from tests.conftest import SLOW
from tests.runs import RECIPE, commands, gossamer, gossamer_alone


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["list", "mobilenet*", "--json"], 0),
        pytest.param(["list", "--help"], 0, marks=pytest.mark.full),
        pytest.param(["inspect", "lenet5"], 0, marks=pytest.mark.full),
        (["inspect", "no_such_network"], 2),
        (["verify", "none.onnx", "--debug"], 1),
        pytest.param(["no-such-command"], 2, marks=pytest.mark.full),
        pytest.param([], 0, marks=pytest.mark.full),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_forked_command_is_one_of_an_interpreter_of_its_own(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # sets are printed by a few
    runs = [run(*words, cwd=tmp_path, code=code) for run in (gossamer, gossamer_alone)]
    # frames differ; a fork has torch already, and does not say that it is loaded
    said = [[line for line in done.stderr.splitlines() if line != LOADING] for done in runs]
    texts = [(done.stdout, "Traceback" in done.stderr, lines[-1:]) for done, lines in zip(runs, said, strict=True)]
    assert texts[0] == texts[1]


@pytest.mark.full
def test_its_folder_its_environment_and_its_state_are_its_own(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").symlink_to(image_folder)
    gossamer("train", "photos", *RECIPE, "--epochs", "1", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "last.safetensors").is_file() and Path.cwd() != tmp_path
    wide = gossamer("list", "--help").stdout
    monkeypatch.setenv("COLUMNS", "40")
    at_40_columns = gossamer("list", "--help").stdout
    assert max(map(len, at_40_columns.splitlines())) <= 40 < max(map(len, wide.splitlines()))
    monkeypatch.undo()
    assert gossamer("list", "--help").stdout == wide


@pytest.mark.full
def test_a_command_that_takes_too_long_is_killed_and_the_next_one_runs(image_folder: Path, tmp_path: Path) -> None:
    before = commands().process.pid
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        gossamer("train", image_folder, *RECIPE, "--epochs", "100000", "--out", tmp_path / "run", timeout=8)
    assert time.monotonic() - started < 60
    assert gossamer("--help").stdout == gossamer_alone("--help").stdout
    assert commands().process.pid == before
    assert not [pid for pid in children(before) if pid]


def test_a_command_is_killed_at_its_first_moment_and_the_next_one_runs() -> None:
    for _ in range(3):
        started = commands().start(["list", "--json"])
        started.kill()
        assert not started.runs() and started.wait().returncode == -signal.SIGKILL
    started.kill()  # ended: nothing
    assert gossamer("--version").stdout.startswith("gossamer")


def children(parent: int) -> list[int]:
    """The processes of a parent that still run."""
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


@pytest.mark.parametrize(("option", "code"), [([], 0), (["--complete"], 1)], ids=["may skip", "complete"])
def test_a_skip_for_want_of_a_compiler_fails_where_all_must_be_there(
    option: list[str], code: int, tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n\ndef test_one() -> None:\n    pytest.skip('no C++ compiler')\n"
        "\ndef test_two() -> None:\n    pytest.skip('this machine has no avx2')\n\ndef test_three() -> None: pass\n"
    )
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        *option,
        str(tmp_path),
    ]
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("1 failed, 1 passed, 1 skipped" if code else "1 passed, 2 skipped") in done.stdout
    (tmp_path / "test_some.py").write_text(
        "import pytest\npytest.importorskip('no_such_package_here')\n\ndef test_one(): pass\n"
    )
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, "1 error" in done.stdout) == ((2, True) if code else (5, False)), done.stdout


def test_the_tests_that_are_called_slow_exist() -> None:
    for line in SLOW:
        file, _, name = line.partition("::")
        assert f"def {name.partition('[')[0]}(" in Path(file).read_text(encoding="utf-8"), line
