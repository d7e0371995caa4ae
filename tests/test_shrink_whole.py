"""The recipe on a trained network, from the run to a file that runs; killed on its way; the page of a quantisation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.training.loop import train
from tests.conftest import once
from tests.reportcases import check_alone
from tests.runs import commands
from tests.runs import gossamer as run_gossamer
from tests.test_trainer import small

pytest.importorskip("scipy")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.full
KILLS = 5


@pytest.fixture(scope="module")
def parent(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to shrink, of few layers: what is repeated after each kill is quickly done. Not to be changed."""

    def fill(root: Path) -> None:
        train(small(image_folder, root / "run", net="lenet5", width=None, epochs=2))

    return once(tmp_path_factory, "shrink", fill) / "run"


def words(parent: Path, out: Path) -> list[str]:
    limits = ["--max-mb", "0.05", "--max-drop", "100", "--minutes", "3", "--epochs", "1"]
    # what is decomposed depends on times of this machine; that step is killed in test_shrink_decompose, by a clock that does not
    limits.append("--no-decompose")
    return ["shrink", str(parent), *limits, "--out", str(out), "--json"]


@pytest.fixture(scope="module")
def whole(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of an uninterrupted recipe and what the command printed; not to be changed."""

    def fill(root: Path) -> None:
        done = run_gossamer(*words(parent, root / "out"), "--report")
        (root / "printed.json").write_text(done.stdout)

    folder = once(tmp_path_factory, "shrink, whole", fill)
    return folder / "out", json.loads((folder / "printed.json").read_text())


@pytest.mark.timeout(600)
def test_the_file_keeps_its_limits_and_runs_like_any_other(
    whole: tuple[Path, dict[str, Any]], image_folder: Path
) -> None:
    out, printed = whole
    assert printed["misses"] == [] and printed["bytes"] <= 50_000 and printed["best"] == "narrow-1-int8"
    assert (out / "best.onnx").stat().st_size == printed["bytes"]
    assert gossamer.verify(out / "best.onnx", runtime="onnxruntime").ok
    image = next(image_folder.rglob("*.png"), None) or next(image_folder.rglob("*.jpg"))
    (name,) = gossamer.load(out / "best.onnx").predict(image).classes
    assert name in gossamer.Run.open(out / "runs" / "narrow-1").classes
    assert [one["name"] for one in printed["candidates"]] == ["float", "int8", "narrow-1", "narrow-1-int8"]
    assert all(one["ms"] > 0 for one in printed["candidates"])


def test_the_page_lies_beside_the_file(whole: tuple[Path, dict[str, Any]]) -> None:
    out, printed = whole
    page = check_alone((out / "report.html").read_text(encoding="utf-8"))
    assert printed["report"] == str(out / "report.html")
    ids = {one["id"] for one in page.all("section")}
    assert ids >= {"score-and-cost", "steps", "layers", "ranges", "widths", "changed", "record"}
    assert "staircase" not in ids, "nothing was timed by width: the limit is of size"


@pytest.mark.timeout(900)
def test_a_recipe_that_is_killed_five_times_comes_to_the_same(
    parent: Path, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    peaceful, printed = whole
    out = tmp_path / "killed"
    took = sum(step["seconds"] for step in printed["steps"])
    kills = 0
    for attempt in range(40):
        life = commands().start(words(parent, out))
        finished = {path.name for path in (out / "steps").glob("*.json")}
        limit = time.monotonic() + 10 * took + 60
        while kills < KILLS and life.runs() and time.monotonic() < limit:
            if {
                path.name for path in (out / "steps").glob("*.json")
            } - finished:  # in the step after one that was finished
                time.sleep(0.2 * (attempt % 3))
                life.kill()
                kills += 1
            time.sleep(0.01)
        ended = life.wait(850)
        if ended.returncode == 0:
            break
    assert kills == KILLS
    again = json.loads(ended.stdout)
    assert [step["name"] for step in again["steps"]] == [step["name"] for step in printed["steps"]]
    assert again["best"] == printed["best"]
    trained = Path("runs", "narrow-1", "best.safetensors")
    same = (out / trained).read_bytes() == (peaceful / trained).read_bytes()
    assert same, "the trained weights are not those of an undisturbed recipe, bit for bit"
    for one, other in zip(again["candidates"], printed["candidates"], strict=True):
        assert {**one, "ms": 0, "run": "", "pareto": 0} == {**other, "ms": 0, "run": "", "pareto": 0}
    for found in (
        again,
        printed,
    ):  # who is on the front depends on milliseconds, which are measured again: by its own ones
        costs = [(one["ms"], one["bytes"], -one["score"]) for one in found["candidates"]]
        for one, mine in zip(found["candidates"], costs, strict=True):
            beaten = any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs)
            assert one["pareto"] != beaten


def test_quantize_writes_its_page(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "flowers.int8.onnx"
    assert main(["quantize", str(parent), "--out", str(out), "--report"]) == 0
    page = check_alone((tmp_path / "flowers.int8.html").read_text(encoding="utf-8"))
    assert {one["id"] for one in page.all("section")} >= {"layers", "ranges", "changed", "record"}
    assert f"{tmp_path / 'flowers.int8.html'}" in capsys.readouterr().err
    (tmp_path / "x.html").mkdir()
    assert main(["quantize", str(parent), "--out", str(tmp_path / "x.onnx"), "--report"]) == 2
    assert not (tmp_path / "x.onnx").exists() and "x.html" in capsys.readouterr().err
