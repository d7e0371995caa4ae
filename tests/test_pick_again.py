"""`gossamer pick` begun again: after steps were removed, files were made anew, trainings were killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gossamer.host.steprunner import StepRunner
from gossamer.selection import steps, trainings
from gossamer.selection.budget import Budget, Use
from gossamer.selection.folder import PickFolder
from tests.pickcases import MadeUpTimes
from tests.test_pick import FIRST, Work, picked, work  # noqa: F401


def test_a_first_step_that_is_done_again_and_interrupted_leaves_the_others(
    work: Work,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = picked()
    Path("out/steps/networks.json").unlink()  # as the line on a damaged one says

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(MadeUpTimes, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            picked()
    assert Path("out/pick.json").exists()
    work.done.clear()
    assert picked().chosen == first.chosen and work.done == []


def test_figures_on_test_images_are_those_of_the_chosen_file(
    work: Work,  # noqa: F811
    make_image_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("photos").unlink()
    Path("photos").symlink_to(make_image_folder(splits=("train", "val", "test")))

    def scored(loaded: Any, model: Path, *_: Any) -> Any:
        assert Path(loaded).name in model.name, "the run of the file"
        work.done.append(f"test images with {model.name}")
        return SimpleNamespace(metrics={"accuracy": 0.75 if "075" in model.name else 0.5}, images=9)

    monkeypatch.setattr(steps, "opened", lambda path, *_: path)
    monkeypatch.setattr(steps, "scored", scored)
    assert picked().test == {"accuracy": 0.75}
    assert work.done[-1] == "test images with mobilenetv1_075-32x32-int8.onnx"
    work.done.clear()
    assert picked().test == {"accuracy": 0.75} and work.done == [], "opened once"
    work.over = {"mobilenetv1_075"}
    Path("out/steps/files-mobilenetv1_075-32x32.json").unlink()
    again = picked()
    assert again.chosen.network == "mobilenetv1_100-32x32" and again.test == {"accuracy": 0.5}
    assert work.done[-1] == "test images with mobilenetv1_100-32x32-int8.onnx"


@pytest.mark.parametrize(("clock", "seconds"), [(1000.0, 1000), ("abc", 0), (None, 0), (float("nan"), 0)])
def test_the_time_of_a_killed_training_counts_once(
    work: Work,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    clock: Any,
    seconds: float,
) -> None:
    runners: list[StepRunner] = []

    class Kept(StepRunner):
        def __init__(self, *asked: Any) -> None:
            super().__init__(*asked)
            runners.append(self)

    work.fail[FIRST[1]] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        picked()
    work.fail.clear()
    run = Path("out/runs/mobilenetv1_075-32x32")
    run.mkdir(parents=True)
    (run / "settings.yaml").write_text("net: x\n")
    opened = SimpleNamespace(clock=lambda: {"seconds": clock})
    monkeypatch.setattr(trainings, "Run", SimpleNamespace(open=lambda folder: opened))
    monkeypatch.setattr(steps, "StepRunner", Kept)
    result = picked()
    assert result.chosen.network == "mobilenetv1_075-32x32" and "mobilenetv1_075 to 1" in work.done
    assert seconds <= runners[-1].before < seconds + 500, "in rung 1, and not in rung 2 again"


def test_a_choice_of_another_kind_replaces_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    for name in ("a.goss", "b.onnx"):
        (tmp_path / "candidates" / name).write_text(name)
    folder = PickFolder(tmp_path)
    assert folder.choose(tmp_path / "candidates" / "a.goss").read_text() == "a.goss"
    assert folder.choose(tmp_path / "candidates" / "b.onnx").name == "best.onnx"
    assert [path.name for path in tmp_path.glob("best.*")] == ["best.onnx"]


def test_a_nearest_network_within_the_scatter_of_times_is_told_as_such() -> None:
    settings: Any = SimpleNamespace(budget=Budget(2.0, None, None), precisions=("int8",))
    for ms, near in ((1.99, True), (2.5, False)):
        search: Any = SimpleNamespace(nearest=(ms / 2, "lenet5", "int8", Use(ms, 1, 1)), dropped=[])
        assert ("times scatter" in str(steps.nothing_fits(settings, search))) == near
