"""What breaks commands from outside: places of results, contradictory flags, streams that take nothing, signals, and the files
that `shrink` and a training have left, damaged (those of `predict --out`: test_damaged_answers.py).

The files are those of tests/compat, so that nothing is trained; commands run in this process.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli.main import main
from gossamer.diagnosis import diagnose
from gossamer.errors import Interrupted, RunError, StorageError
from gossamer.host.signals import ends_as_interrupts
from gossamer.host.storage import append_text, atomic_folder, write_text
from gossamer.run import OWN, Run
from gossamer.shrink.channel_ranges import ChannelRanges
from gossamer.shrink.recipe import saved
from gossamer.shrink.recipe.candidates import Candidate, Targets, best_of, candidate_of, pareto
from gossamer.shrink.recipe.folder import RecipeFolder
from gossamer.shrink.recipe.paired import Outcome, outcome_of
from gossamer.shrink.sensitivity import LayerNoise
from tests.test_shrink import Work, shrunk, work  # noqa: F401 (a fixture)

OLD = Path(__file__).parent / "compat" / "0.1"
RUN, ONNX, IMAGE, VAL = "runs/classify", "classify.onnx", "classes/val/class0/000.png", "classes/val"
NUL, LONG = "a\0b", "x" * 300

Words = list[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of tests/compat, those of runs copied."""
    for path in OLD.iterdir():
        if path.name != "runs":
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(OLD / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path.cwd().rglob("*")) if path.is_file()}


def loop(name: str = "loop") -> str:
    Path(name).symlink_to("other")
    Path("other").symlink_to(name)
    return name


# command -> a word of its message; all are refused before any work
REFUSED: dict[str, tuple[Callable[[], Words] | Words, str]] = {
    # a result in the place of what a run has
    **{
        f"export over {name}": (["export", RUN, "--to", "onnx", "--out", f"{RUN}/{name}"], "is a file of the run")
        for name in ("settings.yaml", "best.safetensors", "changes.json", "metrics.jsonl")
    },
    "quantize over the classes": (["quantize", RUN, "--out", f"{RUN}/classes.json"], "is a file of the run"),
    "review over the settings": (["review", RUN, "--html", f"{RUN}/settings.yaml"], "is a file of the run"),
    "inspect over the log": (["inspect", "lenet5", "--html", f"{RUN}/log.txt"], "is a file of the run"),
    "report over the split": (["report", RUN, "--out", f"{RUN}/split.csv"], "is a file of the run"),
    "index over the state": (["index", "embed.onnx", VAL, "--out", f"{RUN}/last.safetensors"], "is a file of the run"),
    "compare over the data": (["compare", RUN, "--html", f"{RUN}/data.json"], "is a file of the run"),
    "compile over the clock": (["compile", ONNX, "--out", f"{RUN}/clock.json"], "is a file of the run"),
    "compare into a model": (["compare", ONNX, "--html", ONNX], "would replace"),
    # a name that says another format
    "ONNX called LiteRT": (["export", RUN, "--to", "onnx", "--out", "new.tflite"], "FILE.onnx"),
    "LiteRT called ONNX": (["export", ONNX, "--to", "litert", "--out", "new.onnx"], "FILE.tflite"),
    "LiteRT called compiled": (["export", ONNX, "--to", "litert", "--out", "new.GOSS"], "FILE.tflite"),
    "compiled called ONNX": (["compile", ONNX, "--out", "new.onnx"], "FILE.goss"),
    "int8 called LiteRT": (["quantize", ONNX, "--images", "classes", "--out", "new.tflite"], "FILE.onnx"),
    "int8 called compiled": (["quantize", RUN, "--out", "new.goss"], "FILE.onnx"),
    # a folder where a file is written
    "export to new/": (["export", ONNX, "--to", "litert", "--out", "new/"], "is a folder"),
    "export to new.tflite/": (["export", ONNX, "--out", "new.tflite/"], "is a folder"),
    "quantize to new/": (["quantize", RUN, "--out", "new/"], "is a folder"),
    "review to new/": (["review", RUN, "--html", "new/"], "is a folder"),
    # paths that no folder has
    "predict into a null": (["predict", ONNX, VAL, "--out", NUL], "no path of a folder"),
    "draw into a null": (["predict", ONNX, IMAGE, "--draw", NUL], "no path of a file"),
    "search into a null": (
        ["search", "embed.index", IMAGE, "--model", "embed.onnx", "--gallery", VAL, "--draw", NUL],
        "",
    ),
    "status of a null": (["predict", "--status", NUL], "no path of a file"),
    "prune into a null": (["prune", RUN, "--macs", "0.5", "--out", NUL], "null"),
    "decompose into a null": (["decompose", RUN, "--out", NUL], "null"),
    "prune into a loop": (lambda: ["prune", RUN, "--macs", "0.5", "--out", loop()], "a link to nothing"),
    "decompose into a loop": (lambda: ["decompose", RUN, "--out", loop()], "a link to nothing"),
    "shrink into a loop": (lambda: ["shrink", RUN, "--max-mb", "0.01", "--out", loop()], "a link to nothing"),
    "predict into a loop": (lambda: ["predict", ONNX, VAL, "--out", loop()], "a link to nothing"),
    "predict into a file's folder": (["predict", ONNX, VAL, "--out", f"{ONNX}/new"], "is a file"),
    "predict into the images": (["predict", ONNX, VAL, "--out", VAL], "no batch.json"),
    # values of an unset variable
    "an empty --out": (["predict", ONNX, VAL, "--out", ""], "--out with an empty value"),
    "an empty --out=": (["predict", ONNX, VAL, "--out="], "--out with an empty value"),
    "an empty --draw": (["predict", ONNX, VAL, "--draw", ""], "--draw with an empty value"),
    "an empty --status": (["predict", "--status", ""], "--status with an empty value"),
    "an empty --format": (["predict", ONNX, VAL, "--out", "new", "--format", ""], "--format with an empty value"),
    "an empty --to": (["export", RUN, "--to", "", "--out", "new.onnx"], "--to with an empty value"),
    "an empty --html": (["review", RUN, "--html", ""], "--html with an empty value"),
    "an empty --data": (["doctor", "--data", ""], "--data with an empty value"),
    "an empty --plot": (["bench", ONNX, "--plot="], "--plot with an empty value"),
    # flags that would be of no use
    "status with workers": (["predict", "--status", "new", "--workers", "2"], "--workers with --status"),
    "status with a threshold": (["predict", "--status", "new", "--threshold", "0.5"], "--threshold with --status"),
    "status with --top": (["predict", "--status", "new", "--top", "2"], "--top with --status"),
    "a profile with a plot": (["bench", "classify.goss", "--profile", "--plot", "x.svg"], "--plot with --profile"),
    "a profile with runtimes": (
        ["bench", "classify.goss", "--profile", "--runtimes", "native"],
        "--runtimes with --profile",
    ),
    "review with threads alone": (["review", RUN, "--threads", "2"], "--threads without --measure"),
    "inspect with threads alone": (["inspect", "lenet5", "--threads", "2"], "--threads without --measure"),
    "review with 5000 threads": (["review", RUN, "--measure", "--threads", "5000"], "from 1 to 4096"),
    "eval a run in a runtime": (["eval", RUN, "--runtime", "native"], "gossamer export"),
    "eval a run ignoring": (["eval", RUN, "--ignore-index", "3"], "the run has its own"),
    "eval the last of a file": (["eval", ONNX, "classes", "--which", "last"], "a run folder"),
    "quantize the last of a file": (
        ["quantize", ONNX, "--images", "classes", "--which", "last", "--out", "new.onnx"],
        "a run folder",
    ),
    "a step of no training": (["quantize", RUN, "--out", "new.onnx", "--qat-lr", "0.1"], "--qat-lr without"),
    "the likeliest of boxes": (["predict", "segment.onnx", "masks", "--top", "3"], "top for a model of kind segment"),
    "the likeliest of vectors, in rows": (
        ["predict", "embed.onnx", VAL, "--top", "3", "--out", "new"],
        "top for a model of kind embed",
    ),
    # what the metadata cannot hold, before the network is converted
    **{
        f"a licence {text!r}": (["export", RUN, "--out", "new.onnx", "--licence", text], "a line of text")
        for text in ("", "a\nb", "\udcff", "a\0")
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_one_line(kind: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[kind]
    words = make() if callable(make) else make
    before = files()
    code = main(words)
    out, error = capsys.readouterr()
    assert code == 2 and not out, (code, out, error)
    assert message in error.splitlines()[-1] and "Traceback" not in error, error
    assert files() == before and not Path("new").exists()


def test_the_same_in_json_is_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", ONNX, VAL, "--out", "", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_every_file_of_a_run_is_its_own() -> None:
    written = {path.name for path in (OLD / RUN).iterdir()}
    assert written <= set(OWN), "the report and what people export stay allowed"
    assert "report.html" not in OWN


# flags that belong together, given together


def test_what_is_meant_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", ONNX, "--to", "litert", "--out", "model.bin"]) == 0 if litert() else True
    assert main(["predict", "multi.onnx", IMAGE, "--top", "2"]) == 0, "one of its heads names classes"
    assert main(["predict", ONNX, IMAGE, "--top", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert len(values["predictions"][0]["classes"]) == 3
    assert main(["report", RUN, "--out", f"{RUN}/report.html", "--model", "nothing"]) == 2, "but not for its place"
    assert "nothing" in capsys.readouterr().err


def litert() -> bool:
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError:
        return False
    return True


# standard streams that take nothing


class Full(io.StringIO):
    """A stream on a full disk. real: the file that it stands for."""

    def __init__(self, real: Any = None, at_flush: bool = False) -> None:
        super().__init__()
        self.real, self.at_flush = real, at_flush

    def write(self, text: str) -> int:
        if not self.at_flush:
            raise OSError(28, "No space left on device")
        return len(text)

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        if self.real is None:
            raise io.UnsupportedOperation
        return int(self.real.fileno())


@pytest.mark.parametrize("at_flush", [False, True])
@pytest.mark.parametrize("words", [["list", "lenet5", "--json"], ["list", "lenet5"], ["--help"], ["--version"]])
def test_a_full_disk_behind_standard_output_is_told(
    words: Words, at_flush: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = io.StringIO()
    with (tmp_path / "out").open("w") as real:
        monkeypatch.setattr(sys, "stdout", Full(real, at_flush))
        monkeypatch.setattr(sys, "stderr", error)
        assert main(words) == 2
        os.write(real.fileno(), b"later")  # what a stream still holds goes nowhere: Python would fail at its end
    assert error.getvalue() == "gossamer: No space left on device\n"
    assert not (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_error_keeps_its_code_where_nothing_can_be_said(
    more: Words, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    if more:
        monkeypatch.setattr(sys, "stdout", Full())
    assert main(["verify", str(tmp_path / "nothing"), *more]) == 2


def test_a_reader_that_leaves_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream, io.StringIO() as error:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", error)
        assert main(["list", "lenet5"]) == 0
        assert error.getvalue() == ""


# signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_and_its_files(
    number: signal.Signals, code: int, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gossamer.predictions.gallery import Gallery

    def killed(self: Gallery, path: str) -> None:
        with atomic_folder(Path(path)) as part:
            (part / "half").write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    monkeypatch.setattr(Gallery, "save", killed)
    before = signal.getsignal(number)
    files_before = files()
    assert main(["index", "embed.onnx", VAL, "--out", "new"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == "gossamer: interrupted"
    assert files() == files_before and not list(home.glob(".new*")), "nothing is half-written"
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_so_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_as_interrupts():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(Interrupted) as raised:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            assert raised.value.signal == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)
    seen: list[object] = []

    def other() -> None:
        with ends_as_interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


# the folder of a recipe


def edited(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(Path(path).read_text())
    change(values)
    Path(path).write_text(json.dumps(values))


def emptied(values: dict[str, Any]) -> None:
    values.clear()


STEP_DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "emptied": emptied,
    "no seconds": lambda v: v.pop("seconds"),
    "seconds of text": lambda v: v.update(seconds="x"),
    "seconds that are null": lambda v: v.update(seconds=None),
    "seconds that are NaN": lambda v: v.update(seconds=math.nan),
    "seconds below 0": lambda v: v.update(seconds=-1),
    "an error that is a number": lambda v: v.update(error=5),
    "a candidate of a list": lambda v: v.update(candidate=[1]),
    "an empty candidate": lambda v: v.update(candidate={}),
    "milliseconds of text": lambda v: v["candidate"].update(ms="x"),
    "milliseconds of 0": lambda v: v["candidate"].update(ms=0),
    "bytes that are null": lambda v: v["candidate"].update(bytes=None),
    "a file elsewhere": lambda v: v["candidate"].update(name="../../classify", file="../../classify.onnx"),
    "a file of another name": lambda v: v["candidate"].update(file="/etc/hostname"),
    "an unknown runtime": lambda v: v["candidate"].update(runtime="bogus"),
    "notes of a number": lambda v: v["candidate"].update(notes=5),
    "no outcome": lambda v: v.pop("outcome"),
    "an outcome of another score": lambda v: v["outcome"].update(score="map"),
    "an outcome of fewer classes": lambda v: v["outcome"].update(predicted=[1]),
    "an outcome with more in it": lambda v: v["outcome"].update(more=1),
}


def test_a_damaged_step_is_told(work: Work) -> None:  # noqa: F811
    shrunk()
    folder = RecipeFolder("out")
    for step in ("float", "int8"):
        path = Path(f"out/steps/{step}.json")
        whole = path.read_bytes()
        for damage in STEP_DAMAGES.values():
            edited(str(path), damage)
            with pytest.raises(RunError, match=rf"{step}\.json: is damaged.*remove it"):
                folder.result(step)
            path.write_bytes(whole)
        assert folder.result(step)
    edited("out/steps/float.json", lambda values: [values.clear(), values.update(error="x", seconds=1)])
    with pytest.raises(RunError, match="is damaged"):  # it is kept only where it succeeded
        folder.result("float")


def test_what_was_found_stays_where_a_later_step_is_damaged(work: Work) -> None:  # noqa: F811
    shrunk()
    edited("out/steps/int8.json", STEP_DAMAGES["no seconds"])
    names = ("best.onnx", "pareto.json", "pareto.csv")
    before = [Path("out", name).read_bytes() for name in names]
    work.done.clear()
    with pytest.raises(RunError, match="is damaged"):
        shrunk()
    assert work.done == [] and before == [Path("out", name).read_bytes() for name in names]


OTHER_DAMAGES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "times of a list": ("steps/measure.json", lambda v: v.update(ms=[1])),
    "times of text": ("steps/measure.json", lambda v: v.update(ms={"int8": "x"})),
    "a step that is no text": ("steps/measure.json", lambda v: v.update(what=None)),
    "no edits": ("steps/narrow-1-choose.json", lambda v: v.pop("changes")),
    "widths of text": ("steps/narrow-1-choose.json", lambda v: v.update(widths=["x"])),
    "a training of nothing": ("steps/narrow-1-train.json", lambda v: v.update(run=5)),
    "environments of numbers": ("shrink.json", lambda v: v.update(environments=[5])),
    "a run that is a number": ("shrink.json", lambda v: v["settings"].update(run=5)),
    "a run with a null": ("shrink.json", lambda v: v["settings"].update(run="a\0")),
    "a drop of a list": ("shrink.json", lambda v: v["settings"].update(max_drop=[1])),
}


def test_a_damaged_file_of_a_recipe_is_told(work: Work) -> None:  # noqa: F811
    shrunk()
    for name, change in OTHER_DAMAGES.values():
        path = Path("out", name)
        whole = path.read_bytes()
        edited(str(path), change)
        with pytest.raises(RunError, match=path.name):
            RecipeFolder("out").result(path.stem) if path.parent.name == "steps" else shrunk()
        path.write_bytes(whole)


def test_a_candidate_that_was_replaced_is_told(work: Work) -> None:  # noqa: F811
    shrunk()
    best = Path("out/best.onnx").read_bytes()
    for name in ("float", "narrow-1-int8"):
        path = Path(f"out/candidates/{name}.onnx")
        content = path.read_bytes()
        path.write_bytes(b"another file")
        with pytest.raises(RunError, match=rf"{name}\.onnx: is damaged: not the file that was measured"):
            shrunk()
        path.write_bytes(content)
    edited("out/steps/int8.json", lambda v: v.pop("sha256"))  # as earlier versions wrote it
    assert shrunk().best == "narrow-1-int8" and Path("out/best.onnx").read_bytes() == best


def test_a_score_that_nothing_defines_keeps_no_limit() -> None:
    good = Candidate("a", "a.onnx", "s", "int8", "native", 1.0, 100, 0.5, 0.0, None, None)
    lost = dataclasses.replace(good, name="b", score=math.nan, drop=math.nan, bytes=50)
    targets = Targets(2.0, 1.0, 1.0)
    (miss,) = targets.misses(lost)
    assert miss.name == "drop" and "unknown" in miss.text() and math.isinf(miss.excess)
    assert best_of([lost, good], targets) is good and good in pareto([lost, good])
    back = candidate_of({**dataclasses.asdict(lost), "score": None, "drop": None})
    assert math.isnan(back.score) and math.isnan(back.drop)
    kept = Outcome("miou", 3, {"miou": 0.5, "auc": math.nan}, replicates=(0.5, math.nan)).to_json()
    again = outcome_of(json.loads(json.dumps(kept).replace("NaN", "null")))
    assert math.isnan(again.metrics["auc"]) and math.isnan(again.replicates[1]) and again.value == 0.5


def test_the_checks_name_all_fields() -> None:
    for kind, checks in (
        (Candidate, saved.CANDIDATE),
        (Outcome, saved.OUTCOME),
        (LayerNoise, saved.LAYER),
        (ChannelRanges, saved.RANGES),
    ):
        assert {field.name for field in dataclasses.fields(kind)} == set(checks), kind  # type: ignore[arg-type]


# writing to what no path can have


@pytest.mark.parametrize("write", [write_text, append_text, lambda path, text: atomic_folder(path).__enter__()])
@pytest.mark.parametrize("path", [NUL, f"folder/{NUL}", f"file/{LONG}"])
def test_a_place_that_cannot_be_is_a_storage_error(
    write: Callable[[str, str], object], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        write(path, "text")


# the metrics of a run

METRICS: dict[str, tuple[str, int, str]] = {
    "a torn last line": ('{"epoch": 1}\n{"epoch": 2, "lo', 1, "line 2 of 2 is damaged: it is left out"),
    "a damaged line between": ('{"epoch": 1}\nx\n{"epoch": 3}\n', 1, "it and the 1 behind it are left out"),
    "a number that no float can be": (f'{{"epoch": 1, "loss": {"9" * 400}}}\n', 0, "line 1 of 1"),
    "digits that Python refuses": (f'{{"epoch": 1, "loss": {"9" * 5000}}}\n', 0, "line 1 of 1"),
    "texts": ('{"epoch": "1"}\n', 0, "line 1 of 1"),
    "null": ("null\n", 0, "line 1 of 1"),
    "bytes": ("\x00\x01\n", 0, "line 1"),
    "ends of lines of Windows": ('{"epoch": 1}\r\n{"epoch": 2}\r\n', 2, ""),
    "infinity": ('{"epoch": 1, "loss": 1e400}\n', 1, ""),
    "nothing": ("", 0, ""),
}


@pytest.mark.parametrize("kind", METRICS)
def test_what_is_left_out_of_metrics_is_said(kind: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, count, problem = METRICS[kind]
    Path(RUN, "metrics.jsonl").write_text(content, newline="")
    run = Run.open(RUN)
    assert (
        len(run.metrics()) == count
        and problem in run.metrics_problem()
        and bool(problem) == bool(run.metrics_problem())
    )
    notes = diagnose(RUN, with_data=False).notes
    assert any(problem in note for note in notes) if problem else not any("damaged" in note for note in notes)
    if not count and not problem:
        assert "its metrics are gone, so there are no scores" in notes, "it was evaluated: its state says so"
    assert main(["diagnose", RUN, "--no-data"]) == 0
    assert "not been evaluated" not in capsys.readouterr().out


def test_a_result_of_text_has_its_name_on_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not litert():
        pytest.skip("ai-edge-litert is not installed")
    assert main(["export", ONNX, "--out", "a\nb.tflite"]) == 0
    assert capsys.readouterr().out.startswith("a\\nb.tflite: ")
