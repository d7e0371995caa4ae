"""The table of commands, and what starting one of them imports."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer.cli
from gossamer.bench.profile import profile
from gossamer.bench.result import Benchmark, Measurement
from gossamer.bench.saving import save_in_runs
from gossamer.cli.main import COMMANDS, main
from gossamer.errors import InputError
from gossamer.run import settings_from

SHARED = {"__init__", "arguments", "main", "result"}  # files of the room that are no command


def loaded(*arguments: str) -> set[str]:
    """The modules that are loaded after `gossamer ARGUMENTS`, which ends with 0."""
    code = (
        "import contextlib, io, sys\nfrom gossamer.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    assert main({list(arguments)!r}) == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_command_is_a_file_and_every_file_a_command() -> None:
    folder = Path(gossamer.cli.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - SHARED == {module for module, _ in COMMANDS.values()}
    for module, help in COMMANDS.values():
        command = importlib.import_module(f"gossamer.cli.{module}")
        command.arguments(argparse.ArgumentParser())
        assert callable(command.run) and help and not help.endswith(".")


def test_help_imports_the_table_alone() -> None:
    modules = loaded("--help")
    assert {name for name in modules if name.startswith("gossamer")} <= {
        "gossamer",
        "gossamer.cli",
        "gossamer.cli.main",
        "gossamer.errors",
    }
    assert not modules & {"numpy", "torch", "yaml", "dataclasses"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    modules = loaded(command, "--help")
    assert not modules & {"numpy", "PIL", "torch", "onnxruntime", "openvino", "matplotlib", "rich", "sklearn"}
    commands = {f"gossamer.cli.{module}" for module, _ in COMMANDS.values()} & modules
    # a swap prints what a training prints
    assert commands <= {f"gossamer.cli.{COMMANDS[command][0]}", *(["gossamer.cli.train"] if command == "swap" else [])}


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert all(f"{name} {help}" in text for name, (_, help) in COMMANDS.items())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trane"], "invalid choice: 'trane'"),
        (["list", "--wieghts"], "unrecognized arguments: --wieghts"),
        (["list", "--weight"], "unrecognized arguments: --weight"),  # no abbreviations: they break when a flag is added
        (["--json", "list"], "unrecognized arguments: --json"),
        (["predict", "a.onnx", "b.jpg", "--top", "0"], "'0' is not a number from 1"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1 and error.rstrip().endswith("check the arguments")


def test_python_m_gossamer_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "gossamer", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gossamer {gossamer.__version__}\n"


def test_the_settings_of_another_run_go_to_a_new_folder_beside_it(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(f"data: photos\nnet: lenet5\nout: {tmp_path / 'first'}\nlr: 0.1\n")
    (tmp_path / "first-1").mkdir()
    settings = settings_from(config, {"lr": 0.3})
    assert (settings.net, settings.lr, settings.out) == ("lenet5", 0.3, str(tmp_path / "first-2"))
    assert settings_from(config, {"out": "elsewhere"}).out == "elsewhere"


def test_a_benchmark_is_saved_in_the_runs_among_its_targets(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "a.onnx"
    run.mkdir()
    (run / "settings.yaml").write_text("net: lenet5\n")
    file.write_bytes(b"\x08\x08")
    result = Benchmark((Measurement(str(run), "torch", 1, 1, error="none"),), {"cpu": "x"}, 1, 1.0, None)
    save_in_runs(result, [str(run), str(file), "lenet5"])
    assert json.loads((run / "bench.json").read_text()) == json.loads(json.dumps(result.to_json()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "run"]


def test_only_compiled_files_are_profiled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lenet5 with --profile; allowed: a compiled network"):
        profile(["lenet5"])
