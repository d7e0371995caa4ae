"""Files that version 0.1.0 wrote: they load, verify, predict, resume, compile and are searched as they were then."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gossamer
from gossamer.cli.main import main
from gossamer.runtime.native import LIBRARY
from gossamer.tasks.registry import task_of
from gossamer.training.restore import run_data
from tests.runs import flags, weights
from tests.tiers import quick_ones

OLD = Path(__file__).parent / "compat" / "0.1"
NUMBERS = json.loads((OLD / "numbers.json").read_text())
TASKS = ("classify", "detect", "segment", "embed", "multi")
RUNS = ("classify", "detect", "multi")
IMAGES = {"detect": "boxes/JPEGImages", "segment": "masks/val/images"}  # the others: classes/val
DATA = {"detect": "boxes", "segment": "masks", "multi": "heads.csv"}  # the others: classes
TOLERANCE = {"classify-bf16.goss": 2e-2, "classify-int8.goss": 2e-2}  # by the arithmetic of the processor's own ISA
FLOAT = 2e-4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, and the current folder: their paths are relative to it."""
    monkeypatch.chdir(shutil.copytree(OLD, tmp_path / "old"))
    return tmp_path / "old"


def targets(field: str) -> list[Any]:
    """(task, target) of each old number; compiled files need the engine."""
    engine = pytest.mark.skipif(not LIBRARY.is_file(), reason="the native engine is not built")
    return [
        pytest.param(task, target, marks=[engine] if target.endswith(".goss") else [], id=target.replace("/", "-"))
        for task in TASKS
        for target in NUMBERS[task][field]
    ]


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    """What `gossamer ... --json` prints."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def alike(new: Any, old: Any, tolerance: float, place: str = "") -> None:
    """Both hold the same fields; numbers that are no integers agree within the tolerance, masks in all but a pixel of 50."""
    if isinstance(old, dict):
        assert isinstance(new, dict) and new.keys() >= old.keys(), place
        for name in old:
            alike(new[name], old[name], tolerance, f"{place}.{name}")
    elif isinstance(old, list):
        assert isinstance(new, list) and len(new) == len(old), place
        for index, (a, b) in enumerate(zip(new, old)):
            alike(a, b, tolerance, f"{place}[{index}]")
    elif isinstance(old, float):
        assert math.isnan(old) == math.isnan(new), place
        assert math.isnan(old) or new == pytest.approx(old, rel=tolerance, abs=tolerance), place
    elif place.endswith(".mask"):
        masks = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in (new, old)]
        assert masks[0].shape == masks[1].shape and (masks[0] == masks[1]).mean() >= 0.98, place
    else:
        assert new == old, place


def predictions(capsys: pytest.CaptureFixture[str], task: str, target: str | Path) -> Any:
    top = ["--top", "3"] if task == "classify" else []
    return command(capsys, "predict", target, IMAGES.get(task, "classes/val"), *top)["predictions"]


@pytest.mark.parametrize(("task", "target"), targets("predict"))
def test_a_target_predicts_as_it_did(folder: Path, capsys: pytest.CaptureFixture[str], task: str, target: str) -> None:
    predicted = predictions(capsys, task, target)
    alike(predicted, NUMBERS[task]["predict"][target], 1e-2 if task == "segment" else TOLERANCE.get(target, FLOAT))


@pytest.mark.parametrize(("task", "target"), targets("eval"))
def test_a_target_scores_as_it_did(folder: Path, capsys: pytest.CaptureFixture[str], task: str, target: str) -> None:
    data = [] if target.startswith("runs") else [DATA.get(task, "classes")]
    tolerance = {"segment": 2e-2, "detect": 5e-3}.get(task, TOLERANCE.get(target, FLOAT))
    alike(command(capsys, "eval", target, *data), NUMBERS[task]["eval"][target], tolerance)


def compute_bf16_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 as in numbers.json, where this processor can: AVX2 rounds weights alone, the other ISAs activations as well."""
    if "avx2" in flags():
        monkeypatch.setenv("GOSSAMER_ISA", "avx2")


@pytest.mark.parametrize(("task", "target"), targets("sha256"))
def test_a_model_file_is_the_same_and_verifies(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, task: str, target: str
) -> None:
    if "bf16" in target:
        compute_bf16_as_written(monkeypatch)
    assert gossamer.load(target).sha256 == NUMBERS[task]["sha256"][target]
    assert gossamer.verify(target).ok
    command(capsys, "verify", target)


def digest(run: Path) -> np.ndarray:
    """Of each tensor of a run's state, in the order of their names: its norm, and its product with cos(0, 1, 2, ...)."""
    state = {
        name: tensor.astype(np.float64).ravel() for name, tensor in weights(run).items() if tensor.dtype.kind == "f"
    }
    return np.array(
        [[np.linalg.norm(state[name]), state[name] @ np.cos(np.arange(state[name].size))] for name in sorted(state)]
    )


@pytest.mark.parametrize("task", RUNS)
def test_a_run_resumes_to_the_weights_it_would_have_had(folder: Path, task: str) -> None:
    before, numbers = gossamer.Run.open(f"runs/{task}"), NUMBERS[task]
    assert run_data(before).fingerprint == numbers["data"]
    rows = len(before.metrics())
    run = gossamer.resume(f"runs/{task}")
    assert run.settings == before.settings
    assert len(run.metrics()) == len(numbers["metrics"]) == rows + 1
    alike(run.metrics(), numbers["metrics"], 1e-2)
    expected = np.array(numbers["resumed"])
    difference = abs(digest(run.path) - expected)
    assert (difference <= 1e-3 * expected[:, :1] + 1e-6).all()  # by the norm: the product may be near zero


@pytest.mark.parametrize("task", quick_ones(RUNS, ["classify", "multi"]))
def test_a_run_is_exported_and_predicts_the_same(folder: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    command(capsys, "export", f"runs/{task}", "--out", "new.onnx")
    alike(predictions(capsys, task, "new.onnx"), NUMBERS[task]["predict"][f"runs/{task}"], FLOAT)


@pytest.mark.parametrize("task", RUNS)
def test_a_run_is_reported(folder: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    model = ["--model", f"{task}.onnx"] if Path(f"{task}.onnx").exists() else []
    command(capsys, "report", f"runs/{task}", "--out", "page.html", *model)
    page = Path("page.html").read_text()
    score = task_of(gossamer.Run.open(f"runs/{task}").settings.task).score
    value = NUMBERS[task]["eval"][f"runs/{task}"][score]
    assert f"{value:.3f}" in page or f"{100 * value:.1f}" in page
    for name in ["sign", "cone"] if task == "detect" else ["class0", "class1", "class2"]:
        assert name in page


def test_a_run_starts_another_from_its_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = gossamer.Run.open("runs/classify").settings
    command(capsys, "train", "--config", "runs/classify/settings.yaml", "--out", "runs/again", "--epochs", "1")
    again = gossamer.Run.open("runs/again").settings
    assert again.replace(out=old.out, epochs=old.epochs) == old


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the native engine is not built")
@pytest.mark.parametrize(
    ("task", "options"),
    [(task, "") for task in ("classify", "segment", "embed", "multi")]
    + [("classify", "--precision bf16"), ("classify", "--classifier int8"), ("embed", "--classifier int8")],
)
def test_a_model_file_is_compiled(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, task: str, options: str
) -> None:
    if "bf16" in options:
        compute_bf16_as_written(monkeypatch)
    command(capsys, "compile", f"{task}.onnx", "--out", "new.goss", *options.split())
    tolerance = 2e-2 if options else FLOAT
    alike(
        predictions(capsys, task, "new.goss"),
        NUMBERS[task]["predict"][f"{task}.onnx"],
        max(tolerance, 2e-2 * (task == "segment")),
    )


def test_an_index_is_searched_and_is_what_an_index_of_today_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(index: str) -> Any:
        return command(capsys, "search", index, "classes/val", "--top", "3", "--backend", "numpy")["queries"]

    alike(search("embed.index"), NUMBERS["search"]["queries"], 1e-3)
    command(capsys, "index", "embed.onnx", "classes/train", "--out", "new.index")
    alike(search("new.index"), NUMBERS["search"]["queries"], 1e-3)
