"""`gossamer pick`: what is trained, kept and chosen, with trainings and files that are made up; what is refused in one line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.errors import (
    GossamerError,
    InputError,
    RunError,
    SettingsError,
    UnknownNameError,
)
from gossamer.host.stepfolder import StepFolder
from gossamer.selection import pick as picks
from gossamer.selection import steps, trainings
from gossamer.selection.budget import Use
from gossamer.selection.counting import file_overhead
from gossamer.selection.finalists import FinalFile
from gossamer.selection.result import Picked
from tests.pickcases import MadeUpTimes

# a whole pick whose trainings and files are made up

SCORES = {"mobilenetv1_025": 0.6, "mobilenetv1_050": 0.7, "mobilenetv1_075": 0.8, "mobilenetv1_100": 0.75}


class Work:
    """What was done, in order. fail: name of a training or of files -> what it raises; over: networks too slow at the end."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail: dict[str, BaseException] = {}
        self.over: set[str] = set()

    def do(self, name: str) -> None:
        self.done.append(name)
        if name in self.fail:
            raise self.fail[name]


class MadeUpRun:
    def __init__(self, path: Path) -> None:
        self.path = path

    def best(self, key: str) -> dict[str, Any]:
        return {key: SCORES[self.path.name.split("-")[0]]}

    def metrics(self) -> list[dict[str, Any]]:
        return [{"epoch": 1.0}]


@pytest.fixture
def work(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(image_folder)
    made = Work()
    monkeypatch.setattr(steps, "NetworkTimes", MadeUpTimes)

    def train(settings: Any, until: float, progress: Any, split_of: Any) -> MadeUpRun:
        made.do(f"{settings.net} to {until:g}")
        assert settings.epochs == 4 and settings.input == "32x32" and settings.data == "photos"
        Path(settings.out).mkdir(parents=True)
        (Path(settings.out) / "settings.yaml").write_text("net: x\n")
        return MadeUpRun(Path(settings.out))

    def resume(folder: Path, until: float, progress: Any) -> MadeUpRun:
        made.do(f"{folder.name.split('-')[0]} to {until:g}")
        return MadeUpRun(folder)

    class Opened:
        @staticmethod
        def open(folder: Path) -> Any:
            class Clock:
                def clock(self) -> dict[str, float]:
                    return {"seconds": 0.0}

            return Clock()

    def finals(name: str, loaded: Any, files: dict[str, Path], *_: Any) -> Any:
        net = name.split("-")[0]
        made.do(f"files of {net}")
        result = []
        for precision, path in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode())
            over = "9.000 ms, over 8 ms" if net in made.over else ""
            score = None if over else SCORES[net]
            use = Use(9.0 if over else 1.0, len(name), 1)
            result.append(FinalFile(name, precision, path.name, f"out/runs/{name}", use, over, score, {}, 36))
        return result, {}

    monkeypatch.setattr(trainings, "train", train)
    monkeypatch.setattr(trainings, "resume", resume)
    monkeypatch.setattr(trainings, "Run", Opened)
    monkeypatch.setattr(steps, "finals", finals)
    monkeypatch.setattr(steps, "load_run", lambda run: run)
    return made


def picked(**options: Any) -> Picked:
    usual: dict[str, Any] = {
        "latency": "8ms", "nets": "mobilenetv1_0*,mobilenetv1_100", "precision": "int8", "input": "32", "candidates": 4,
        "epochs": 4,
    }  # fmt: skip
    result = gossamer.pick("photos", "out", **{**usual, **options})
    assert isinstance(result, Picked)
    return result


FIRST = [f"mobilenetv1_{width} to 0.25" for width in ("100", "075", "050", "025")]


def test_the_best_of_the_first_rung_is_trained_to_the_end(work: Work) -> None:
    result = picked()
    assert work.done == [*FIRST, "mobilenetv1_075 to 1", "files of mobilenetv1_075"]
    assert (
        result.chosen.network == "mobilenetv1_075-32x32" and Path(result.file).read_bytes() == b"mobilenetv1_075-32x32"
    )
    assert result.file == "out/best.onnx" and result.chosen.score == 0.8
    reasons = {one.name: one.reason for one in result.trained}
    assert (
        reasons["mobilenetv1_075-32x32"] == ""
        and "0.7500 after rung 1, where 1 went on" in reasons["mobilenetv1_100-32x32"]
    )
    text = result.text()
    assert "Pareto" not in text and text.count("dropped: ") >= 3 and "0.8000" in text
    found = json.loads(Path("out/pareto.json").read_text())
    assert found == json.loads(json.dumps(result.to_json())) and found["chosen"]["precision"] == "int8"
    lines = Path("out/pareto.csv").read_text().splitlines()
    assert lines[0].startswith("network,precision,ms") and len(lines) == 1 + len(result.trained) + len(result.dropped)
    assert Path("out/pareto.svg").read_text().startswith("<svg")
    state = json.loads(Path("out/pick.json").read_text())
    assert state["settings"]["seed"] == 0 and state["environments"][0]["versions"]["numpy"]
    assert {path.name for path in Path("out/steps").iterdir()} >= {"networks.json", "rungs.json"}


def test_what_is_done_is_not_done_again(work: Work) -> None:
    first = picked()
    work.done.clear()
    again = picked()
    assert work.done == [] and again.chosen == first.chosen and again.trained == first.trained
    assert len(json.loads(Path("out/pick.json").read_text())["environments"]) == 2


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.full) for one in (FIRST[0], FIRST[3], "files of mobilenetv1_075")]
    + ["mobilenetv1_075 to 1"],
)
def test_an_interruption_loses_nothing(work: Work, name: str) -> None:
    work.fail[name] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        picked()
    before = work.done[:-1]
    work.fail.clear()
    work.done.clear()
    assert picked().chosen.network == "mobilenetv1_075-32x32"
    assert work.done[0] == name and not set(before) & set(work.done)


def test_a_training_that_fails_is_dropped_and_told(work: Work) -> None:
    work.fail[FIRST[1]] = RunError("the loss is nan", "a finite loss", "lower --lr")
    result = picked()
    assert result.chosen.network == "mobilenetv1_100-32x32"
    assert next(one for one in result.trained if "075" in one.name).reason.startswith(
        "its training failed: the loss is nan"
    )
    assert "failed: train mobilenetv1_075" in result.text()


def test_where_the_best_is_over_the_budget_when_timed_again_the_next_one_is_taken(work: Work) -> None:
    work.over = {"mobilenetv1_075"}
    result = picked()
    assert work.done[-2:] == ["files of mobilenetv1_075", "files of mobilenetv1_100"]
    assert result.chosen.network == "mobilenetv1_100-32x32" and result.chosen.over == ""
    assert (
        "measured again: int8: 9.000 ms, over 8 ms" in next(one for one in result.trained if "075" in one.name).reason
    )


def test_where_none_keeps_the_budget_at_the_end_it_is_exit_1(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    work.over = set(SCORES)
    words = ["pick", "photos", "--out", "out", "--latency", "8ms", "--nets", "mobilenetv1_0*", "--epochs", "4"]
    assert main([*words, "--input", "32", "--precision", "int8", "--candidates", "4"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no trained network keeps at most 8 ms" in error and not Path("out/best.onnx").exists()


def test_an_impossible_budget_names_the_nearest_and_leaves_nothing(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pick", "photos", "--out", "out", "--latency", "1us", "--nets", "mobilenetv1*", "--input", "32"]
    assert main([*words, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == 1 and "the nearest that exists is mobilenetv1_025-32x32 in int8" in printed["error"]
    assert not Path("out").exists() and work.done == []


def test_without_data_networks_are_listed_with_their_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(picks, "NetworkTimes", MadeUpTimes)
    words = ["pick", "--latency", "20ms", "--nets", "mobilenetv1*,lenet5", "--precision", "fp32,int8"]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = printed["networks"]
    assert [row["top1"] for row in rows if row["top1"]] == sorted(
        (row["top1"] for row in rows if row["top1"]), reverse=True
    )
    best = rows[0]
    assert (best["network"], best["precision"], best["top1"]) == ("mobilenetv1_100", "int8", 70.6) and best["front"]
    assert best["source"].startswith("arXiv 1704.04861") and best["input"] == [224, 224]
    assert rows[-1]["network"] == "lenet5" and rows[-1]["source"] == "" and printed["budget"]["ms"] == 20
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "arXiv 1704.04861" in text and "the accuracy is published" in text


# what was left is checked

BROKEN: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a first step that failed": ("networks", lambda values: [values.clear(), values.update(error="x", seconds=1)]),
    "an unknown network": ("networks", lambda values: values["fits"][0]["choice"].update(net="resnet")),
    "a width of nothing": ("networks", lambda values: values["fits"][0]["choice"].update(width=0)),
    "channels that are text": ("networks", lambda values: values["fits"][0]["choice"].update(channels="3")),
    "no seconds": ("networks", lambda values: values.pop("seconds")),
    "seconds that are text": ("networks", lambda values: values.update(seconds="1")),
    "no network": ("networks", lambda values: values.update(fits=[])),
    "a use without milliseconds": ("networks", lambda values: values["fits"][0]["uses"]["int8"].pop("ms")),
    "milliseconds that are text": ("networks", lambda values: values["fits"][0]["uses"]["int8"].update(ms="1")),
    "an unknown precision": ("networks", lambda values: values["fits"][0].update(uses={"int4": {}})),
    "an input of one side": ("networks", lambda values: values["fits"][0]["choice"].update(size=[32])),
    "a reason that is a number": ("networks", lambda values: values.update(dropped=[{"name": "a", "use": None}])),
    "rungs that do not end with one": ("rungs", lambda values: values.update(counts=[4, 2])),
    "fractions that fall": ("rungs", lambda values: values.update(fractions=[1, 0.25])),
    "a schedule of no time": ("rungs", lambda values: values.update(schedule=0)),
    "a score that is text": ("rung-1-mobilenetv1_100-32x32", lambda values: values.update(score="0.9")),
    "an error that is a list": ("rung-1-mobilenetv1_100-32x32", lambda values: values.update(error=[])),
    "no files": ("files-mobilenetv1_075-32x32", lambda values: values.pop("files")),
    "a file elsewhere": ("files-mobilenetv1_075-32x32", lambda values: values["files"][0].update(file="../pick.json")),
    "a file without a digest": ("files-mobilenetv1_075-32x32", lambda values: values["files"][0].pop("sha256")),
}


@pytest.fixture
def finished(work: Work) -> Path:
    picked()
    work.done.clear()
    return Path("out")


def test_damaged_steps_are_told_in_one_line(work: Work, finished: Path) -> None:
    for kind, (step, spoil) in BROKEN.items():
        path = finished / "steps" / f"{step}.json"
        before = path.read_text()
        values = json.loads(before)
        spoil(values)
        path.write_text(json.dumps(values))
        with pytest.raises(RunError) as caught:
            picked()
        text = str(caught.value)
        assert "is damaged" in text and "\n" not in text and "remove it: its step is done again" in text, kind
        path.write_text(before)
    assert work.done == []
    assert picked().chosen.score == 0.8


def test_a_file_that_is_gone_or_another_one_is_told(work: Work, finished: Path) -> None:
    path = finished / "candidates" / "mobilenetv1_075-32x32-int8.onnx"
    before = path.read_bytes()
    path.write_bytes(b"another")
    with pytest.raises(RunError, match="is not the file that was measured"):
        picked()
    path.unlink()
    with pytest.raises(RunError, match="is gone"):
        picked()
    (finished / "steps" / "files-mobilenetv1_075-32x32.json").unlink()
    assert picked().chosen.score == 0.8 and path.read_bytes() == before
    assert work.done == ["files of mobilenetv1_075"]


# what is refused

Files = Callable[[], None]


def other_pick() -> None:
    picked()


BAD: dict[str, tuple[dict[str, Any], type[GossamerError], str]] = {
    "no budget": ({"latency": None}, SettingsError, "no budget"),
    "0 ms": ({"latency": "0ms"}, SettingsError, "latency 0ms"),
    "no unit": ({"latency": "2"}, SettingsError, "latency 2: no unit"),
    "a number": ({"latency": 2}, SettingsError, "latency 2: no unit"),
    "an unknown unit": ({"size": "3 stones"}, SettingsError, "the unit stones"),
    "below 0": ({"memory": "-8MB"}, SettingsError, "memory '-8MB'"),
    "an unknown runtime": ({"runtime": "nativ"}, UnknownNameError, "did you mean native"),
    "a runtime that is too slow": ({"runtime": "reference"}, UnknownNameError, "runtime to pick for"),
    "an unknown precision": ({"precision": "int9"}, UnknownNameError, "did you mean int8"),
    "bf16 elsewhere": ({"precision": "bf16", "runtime": "onnxruntime"}, SettingsError, "bf16 with the runtime"),
    "no threads": ({"threads": 0}, SettingsError, "threads 0"),
    "an input of two channels": ({"input": "2x32x32"}, SettingsError, "2 channels"),
    "an input that is none": ({"input": "big"}, SettingsError, "input"),
    "an unknown task": ({"task": "clasify"}, UnknownNameError, "did you mean classify"),
    "unknown networks": ({"nets": "mobilnet_v2"}, UnknownNameError, "did you mean mobilenet_v2"),
    "networks of timm": ({"nets": "timm:resnet18"}, SettingsError, "networks of gossamer's own"),
    "no minutes": ({"minutes": 0}, SettingsError, "minutes 0"),
    "minutes that are no number": ({"minutes": math.nan}, SettingsError, "minutes nan"),
    "too few minutes": ({"minutes": 0.2, "epochs": None}, SettingsError, "0.2 minutes, too few"),
    "no epochs": ({"epochs": 0}, SettingsError, "trainings of 0 epochs"),
    "no candidates": ({"candidates": 0}, SettingsError, "candidates 0"),
    "a seed below 0": ({"seed": -1}, SettingsError, "seed -1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_refused_before_anything_is_written(work: Work, kind: str) -> None:
    options, error, said = BAD[kind]
    with pytest.raises(error) as caught:
        picked(**options)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("out").exists() and work.done == []


@pytest.mark.parametrize("kind", ["no images", "no such data", "a file", "a null", "an empty name"])
def test_data_that_hold_no_images_are_refused(work: Work, kind: str) -> None:
    Path("empty").mkdir()
    Path("note.txt").write_text("x")
    data = {"no images": "empty", "no such data": "none", "a file": "note.txt", "a null": "a\0b", "an empty name": ""}[
        kind
    ]
    with pytest.raises(InputError) as caught:
        gossamer.pick(data, "out", latency="8ms")
    assert "\n" not in str(caught.value) and not Path("out").exists()


def test_places_that_are_no_folder_for_it_are_refused(work: Work) -> None:
    Path("file").write_text("x")
    Path("full").mkdir()
    Path("full/a.txt").write_text("x")
    Path("run").mkdir()
    Path("run/settings.yaml").write_text("net: x\n")
    cases: dict[str, tuple[str, type[GossamerError]]] = {
        "": ("no folder for the result", SettingsError),
        "photos/picked": ("inside the data", SettingsError),
        "photos": ("inside the data", SettingsError),
        "file": ("is no folder", RunError),
        "full": ("holds other files", RunError),
        "run": ("holds a run", RunError),
        "a\0b": ("null", RunError),
        "n" * 300: ("too long", RunError),
    }
    for out, (said, error) in cases.items():
        with pytest.raises(error) as caught:
            gossamer.pick("photos", out, latency="8ms")
        assert said in str(caught.value), out
    with pytest.raises(SettingsError, match="without data"):
        gossamer.pick(None, "out", latency="8ms")


def test_a_folder_of_another_pick_is_refused(work: Work) -> None:
    picked()
    for options, said in (
        ({"latency": "4ms"}, "holds another pick: ms 8.0 where now it is 4.0"),
        ({"seed": 1}, "seed 0"),
    ):
        with pytest.raises(RunError) as caught:
            picked(**options)
        assert said in str(caught.value)
    path = Path("out/pick.json")
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "settings": {**state["settings"], "fingerprint": "other"}}))
    with pytest.raises(RunError, match="the images are no longer those"):
        picked()
    for text, said in (
        ("{", "is damaged"),
        ("[]", "no object"),
        ('{"format": 9}', "another version"),
        ("{}", "another version"),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match=said) as caught:
            picked()
        assert "its step is done again" not in str(caught.value), "no step writes the settings"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precisions", 5),
        ("precisions", "int8"),
        ("nets", [5]),
        ("data", 5),
        ("data", None),
        ("data", "a\0b"),
        ("seed", {}),
    ],
)
def test_settings_of_another_type_are_told(work: Work, name: str, value: Any) -> None:
    picked()
    path = Path("out/pick.json")
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "settings": {**state["settings"], name: value}}))
    with pytest.raises(RunError, match="settings of another type") as caught:
        picked()
    assert "\n" not in str(caught.value)


def test_two_at_once_are_refused(work: Work) -> None:
    class Other(StepFolder):
        command, state, first = "gossamer pick", "pick.json", "networks"

    with Other("out"), pytest.raises(RunError, match="another process is at work"):
        picked()


def test_an_engine_that_is_not_built_is_told(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.errors import MissingPackageError
    from gossamer.selection import settings

    monkeypatch.setattr(settings, "missing", lambda entry: f"{entry.title} is not built; make engine")
    with pytest.raises(MissingPackageError, match="make engine"):
        picked()


@pytest.mark.parametrize(
    ("package", "precision"), [("onnxscript", "float32"), ("onnx", "bf16"), ("onnxruntime", "int8")]
)
def test_a_package_that_the_last_step_needs_is_told_before_the_first(
    work: Work, monkeypatch: pytest.MonkeyPatch, package: str, precision: str
) -> None:
    from gossamer.errors import MissingPackageError

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=package):
        picked(precision=precision)
    assert not Path("out").exists() and work.done == []


def test_the_overhead_of_a_file_grows_with_its_input() -> None:
    assert 10_000 < file_overhead((32, 32), 3) < file_overhead((64, 64), 3) < 1_000_000
    assert file_overhead((32, 32), 1) > 0
