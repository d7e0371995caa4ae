"""The table of commands, and what starting one of them imports."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer
import gossamer.cli
from gossamer.bench.profile import profile
from gossamer.bench.result import Benchmark, Measurement
from gossamer.bench.saving import save_in_runs
from gossamer.cli import completion
from gossamer.cli.hints import COMMAND_HINTS, FLAG_HINTS, SPELLINGS, respelled
from gossamer.cli.main import main
from gossamer.cli.parser import command_parser, flags_of, parse, positionals_of
from gossamer.cli.table import COMMANDS, GROUPS
from gossamer.cli.train import USUAL
from gossamer.errors import InputError, SettingsError
from gossamer.run import settings_from
from gossamer.settings import choices, names

SHARED = {
    "loading",
    "__init__",
    "arguments",
    "hints",
    "main",
    "parser",
    "result",
    "table",
}  # files of the room that are no command


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
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS), (
        "each is in a group of the help"
    )


def test_help_imports_the_table_alone() -> None:
    modules = loaded("--help")
    assert {name for name in modules if name.startswith("gossamer")} <= {
        "gossamer",
        "gossamer.cli",
        "gossamer.cli.hints",
        "gossamer.cli.main",
        "gossamer.cli.parser",
        "gossamer.cli.table",
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


def test_nothing_at_all_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for words in ([], ["--help"], ["help"], ["-h"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        texts.append(capsys.readouterr())
    assert len({text.out for text in texts}) == 1 and not any(text.err for text in texts)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_it_understands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"gossamer.cli.{COMMANDS[command][0]}")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for example in module.EXAMPLES:
        assert " ".join(example.split()) in text
        line = example.removeprefix("source <(").rstrip(")").partition(" > ")[0]
        words = shlex.split(line)
        assert words[:2] == ["gossamer", command]
        command_parser(command).parse_args(words[2:])


def test_the_help_of_train_shows_ten_settings_and_all_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def flags(word: str) -> list[str]:
        with pytest.raises(SystemExit):
            main(["train", word])
        return re.findall(r"^  (--[a-z0-9-]+)", capsys.readouterr().out, re.MULTILINE)

    usual, every = flags("--help"), flags("--help-all")
    assert [flag[2:] for flag in usual[:10]] == list(USUAL) and len(usual) < 18
    assert {f"--{name.replace('_', '-')}" for name in names() if name != "data"} <= set(every)
    assert set(usual) < set(every)


def test_quantize_calibrates_with_as_many_images_as_the_function() -> None:
    of_the_function = inspect.signature(gossamer.quantize).parameters["count"].default
    assert command_parser("quantize").get_default("count") == of_the_function


def test_the_choices_of_a_setting_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    text = capsys.readouterr().out
    for name in names():
        if allowed := choices(name):
            assert "|".join(allowed) in text


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trane"], "did you mean gossamer train?"),
        (["finetune", "photos"], "did you mean gossamer train?"),
        (["validate", "x"], "did you mean gossamer eval?"),
        (["qqqqqq"], "see gossamer --help"),
        (["mode=train"], "see gossamer --help"),
        (["list", "--wieghts"], "did you mean --weights?"),
        (["list", "--weight"], "did you mean --weights?"),  # no abbreviations: they break when a flag is added
        (["train", "photos", "--imgsz", "64"], "did you mean --input?"),
        (["train", "photos", "--img-size=64"], "did you mean --input?"),
        (["train", "photos", "--batch-size", "8"], "did you mean --batch?"),
        (["train", "photos", "--batch_size", "8"], "did you mean --batch?"),
        (["train", "photos", "--bach", "8"], "did you mean --batch?"),
        (["train", "photos", "-b", "8"], "did you mean --batch?"),
        (["train", "photos", "-j", "8"], "did you mean --workers?"),
        (["train", "photos", "--model", "resnet18"], "did you mean --net?"),
        (["train", "photos", "--num-workers", "2"], "did you mean --workers?"),
        (["train", "photos", "--amp"], "did you mean --precision bf16?"),
        (["train", "photos", "--pretrained"], "did you mean --weights default?"),
        (["train", "photos", "--wd", "1"], "did you mean --weight-decay?"),
        (["train", "photos", "--label_smoothing", "1"], "did you mean --label-smoothing?"),
        (["train", "--data", "photos"], "write gossamer train DATA"),
        (["train", "photos", "epochs=3"], "did you mean --epochs 3?"),
        (["train", "data=photos"], "did you mean gossamer train photos?"),
        (["train", "photos", "imgsz=64"], "did you mean --input?"),
        (["train", "photos", "optimiser=sgd"], "did you mean --optimizer sgd?"),
        (["swap", "runs/a", "--epochs", "1"], "a setting of gossamer train; swap takes those of the run"),
        (["eval", "runs/a", "--imgsz", "64"], "a setting of gossamer train; eval takes those of the run"),
        (["bench", "a.onnx", "--lr", "1"], "it is a setting of gossamer train"),
        (["swap", "runs/a", "--halp"], "did you mean --help?"),
        (["predict", "a.onnx", "b.jpg", "--conf", "0.3"], "did you mean --threshold?"),
        (["predict", "a.onnx", "b.jpg", "conf=0.3"], "did you mean --threshold?"),
        (["predict", "--source", "b.jpg"], "write gossamer predict IMAGES"),
        (["predict", "--model", "a.onnx", "b.jpg"], "write gossamer predict MODEL"),
        (["predict", "a.onnx", "b.jpg", "--max-det", "3"], "did you mean --max-boxes?"),
        (["export", "run", "--format", "onnx", "--out", "x"], "did you mean --to?"),
        (["eval", "run", "--which", "bst"], "did you mean best?"),
        (["convert-boxes", "a", "b", "--to", "yolov8"], "did you mean yolo?"),
        (["train", "photos", "--task", "clasify"], "did you mean classify?"),
        (["completion", "fish"], "is none of bash, zsh"),
        (["predict", "a.onnx", "b.jpg", "--top", "0"], "'0' is not a number from 1"),
        (["train", "photos", "--lr", "fast"], "'fast' is not a number"),
        (["train", "photos", "--epochs", "9" * 5000], "epochs"),
        (["train", "photos", "--seed", "9" * 5000], "is not a whole number"),
        (["predict", "a.onnx", "b.jpg", "--top", "9" * 5000], "is not a number from 1"),
        (["bench", "lenet5", "--threads", "9" * 5000], "numbers from 1 to 4096"),
        (["inspect", "lenet5", "--input", "9" * 5000], "8 to 4096 pixels"),
        (["predict", "a.onnx", "b.jpg", "--threshold", "half"], "'half' is not a number from 0 to 1"),
        (["predict", "a.onnx", "b.jpg", "--threshold", "1.01"], "'1.01' is not a number from 0 to 1"),
        (["predict", "a.onnx"], "required: images"),
        (["list", "a", "b"], "see gossamer list --help"),
        (["--json"], "without a command"),
        (["--quiet", "list"], "unrecognized arguments: --quiet"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_line_with_what_to_do(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1 and error.startswith("gossamer: ")
    assert "gossamer: gossamer" not in error and len(error) < 1100


@pytest.mark.parametrize("command", ["list", "predict", "bench", "doctor"])
def test_no_parser_takes_abbreviations(command: str) -> None:
    """They break when a flag is added."""
    parser = command_parser(command)
    words = ["x"] * len(positionals_of(parser))
    assert "--offline" in flags_of(parser)
    with pytest.raises(SettingsError, match="unrecognized arguments: --offlin;"):
        parser.parse_args([*words, "--offlin"])


def test_a_path_from_the_home_folder_is_meant_where_the_shell_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In quotes, and behind --flag=; a folder called ~ would be written otherwise."""
    monkeypatch.setenv("HOME", "/home/ann")
    options = parse(["export", "~/my run", "--out=~/x/b.onnx"])
    assert (options.run, options.out) == ("/home/ann/my run", "/home/ann/x/b.onnx")
    options = parse(["export", "./~/a", "--out", "a~/b"])
    assert (options.run, options.out) == ("./~/a", "a~/b")


def test_flags_of_every_command_may_stand_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--offline", "list", "lenet5"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "lenet5"


def test_both_spellings_of_a_flag_are_taken() -> None:
    for other, own in SPELLINGS.items():
        assert respelled([other, f"{other}=x", "--", other]) == [own, f"{own}=x", "--", other]
    with_flags = {flag for command in COMMANDS for flag in flags_of(command_parser(command))}
    assert set(SPELLINGS.values()) <= with_flags and not set(SPELLINGS) & with_flags


def test_hints_name_flags_that_there_are() -> None:
    flags = {flag for command in COMMANDS for flag in flags_of(command_parser(command))}
    positionals = {name.upper() for command in COMMANDS for name in positionals_of(command_parser(command))}
    for name, hints in FLAG_HINTS.items():
        assert any(hint.split()[0] in flags | positionals for hint in hints), name
    assert set(COMMAND_HINTS.values()) <= set(COMMANDS) and not set(COMMAND_HINTS) & set(COMMANDS)


def test_a_file_called_like_a_setting_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("epochs=3").write_text("no model")
    assert main(["predict", "epochs=3", "top=1"]) == 2
    assert "did you mean --top 1?" in capsys.readouterr().err
    assert main(["predict", "epochs=3", "a.jpg"]) == 2
    assert "flags" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 2, "a smaller --batch or --input"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), 2, "--batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "--batch"),
        (OSError(28, "No space left on device", "x.onnx"), 2, "x.onnx: No space left on device"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, 'pip install "gossamer[train]"'),
        (ModuleNotFoundError("No module named 'rich'", name="rich.console"), 2, "pip install rich"),
        (ValueError("something else"), 70, "a defect of gossamer: ValueError: something else"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_command_is_one_line(
    error: Exception, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: argparse.Namespace, progress: object) -> None:
        raise error

    monkeypatch.setattr("gossamer.cli.list.run", run)
    for more in ([], ["--json"]):
        assert main(["list", *more]) == code
        out, printed = capsys.readouterr()
        assert message in printed and printed.count("\n") == 1 and printed.startswith("gossamer: ")
        assert not more or json.loads(out)["exit_code"] == code


# shell completion


def completed(words: str) -> list[str]:
    """What bash offers for the last of the words."""
    ask = f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _gossamer; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{completion._bash()}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("gossamer ver", {"verify"}),
        ('gossamer ""', set(COMMANDS)),
        ("gossamer predict --max", {"--max-boxes"}),
        ("gossamer train photos --task seg", {"segment"}),
        (
            "gossamer train photos --net mobilenet_v",
            {"mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"},
        ),
        ("gossamer --json list --wei", {"--weights"}),
        ("gossamer predict mod", set()),  # files: bash's own
    ],
)
def test_bash_completes(words: str, offered: set[str]) -> None:
    assert set(completed(words)) == offered


def test_the_script_of_zsh_has_every_command_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef gossamer\n")
    for command in COMMANDS:
        assert all(flag in script for flag in flags_of(command_parser(command)))
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


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
