"""Decomposition as a step of the recipe: what is accepted is a candidate like others, what is not is told."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli.main import main
from gossamer.errors import RunError
from gossamer.host.progress import SILENT
from gossamer.run import Run
from gossamer.shrink import trials
from gossamer.shrink.decompose import decompose, unfinished_trials
from gossamer.shrink.pairs import Clock
from gossamer.shrink.recipe import aims, steps
from gossamer.shrink.recipe.candidates import Targets
from gossamer.shrink.recipe.page import recipe_html
from gossamer.shrink.recipe.saved import check_step
from gossamer.shrink.recipe.settings import settings_of
from gossamer.training.loop import train
from gossamer.training.network import changes_of
from tests.recipecases import recipe
from tests.reportcases import check_alone
from tests.runs import same, weights
from tests.test_decompose import by_macs
from tests.test_shrink import RUN, TRIED, Work, found, one, shrunk, work
from tests.test_trainer import small

__all__ = ["work"]  # the fixture


def test_what_is_accepted_is_a_candidate_like_others(work: Work) -> None:
    work.accepted = True
    work.sizes |= {"narrow-1-decomposed": 1_600_000, "narrow-1-decomposed-int8": 400_000}
    work.wrong["narrow-1-int8"] = 1
    result = shrunk()
    assert work.done[-5:] == ["narrow-1-int8", "decompose", "export", "narrow-1-decomposed-int8", "measure"]
    assert result.best == "narrow-1-decomposed-int8" and result.exit_code == 0
    names = [each["name"] for each in found()["candidates"]]
    assert names == ["float", "int8", "narrow-1", "narrow-1-int8", "narrow-1-decomposed", "narrow-1-decomposed-int8"]
    assert "narrow-1-decomposed-int8" in found()["pareto"]
    assert "1 layer decomposed" in result.candidates[-1].step and result.candidates[-1].run == "runs/decomposed"
    assert len(Path("out/pareto.csv").read_text().splitlines()) == 7
    work.done.clear()
    again = shrunk()
    assert work.done == [] and again.candidates == result.candidates
    kept = json.loads(Path("out/steps/narrow-1-decompose.json").read_text())
    assert kept["tried"] == [TRIED] and kept["parent"] == RUN


def test_nothing_accepted_is_told_and_changes_nothing(work: Work) -> None:
    result = shrunk()
    assert result.best == "narrow-1-int8" and len(result.candidates) == 4
    assert "narrow-1: of 1 decomposition none was accepted" in result.text()


def test_it_is_not_tried_where_it_is_not_wanted(work: Work) -> None:
    words = ["shrink", RUN, "--max-mb", "0.6", "--max-drop", "20", "--minutes", "2", "--out", "out", "--no-decompose"]
    assert main(words) == 0 and "decompose" not in work.done


def test_the_best_of_both_says_what_is_tried_next(work: Work) -> None:
    """Where the decomposed file alone keeps the limits, no narrower network is made for being too large."""
    work.accepted = True
    work.sizes |= {"narrow-1-int8": 700_000, "narrow-1-decomposed-int8": 590_000, "narrow-2-int8": 100_000}
    result = shrunk(minutes=6)
    assert result.best == "narrow-1-decomposed-int8" or "narrow-2" in result.best
    limits = next(each.what for each in result.steps if each.name == "narrow-2-choose")
    small = aims.limits_of({"size": 0.5}, 0.8, native=True)[0].value
    assert limits == f"prune to {small:.2f}x the parameters" or limits.endswith("x the parameters")
    scale = 0.8  # all limits kept: narrower; 0.7 MB of 0.6 would have given 0.95 / (1 + 1 / 6) = 0.81
    fractions = aims.needed(result.candidates[0], result.candidates[1], Targets(None, 0.6, 20.0), 100)
    assert limits == f"prune to {aims.in_words(aims.limits_of(fractions, scale, True))}"


def test_the_points_that_are_left_are_what_it_may_cost(work: Work) -> None:
    targets = Targets(None, 1.0, 1.0)
    assert aims.decompose_drop(targets, one("a", 1.0, 1, 0.9, 0.8)) == pytest.approx(0.2)
    assert aims.decompose_drop(targets, one("a", 1.0, 1, 0.9, -3.0)) == 0.5
    assert aims.decompose_drop(targets, one("a", 1.0, 1, 0.9, 3.0)) == 0.0
    assert aims.decompose_drop(targets, one("a", 1.0, 1, 0.9, float("nan"))) == 0.0
    work.wrong["narrow-1"] = 1  # 16.7 points of the 20
    shrunk()
    assert work.allowed == [0.5]


@pytest.mark.parametrize(
    "change",
    [{"run": 3}, {"tried": [{**TRIED, "ms": [1.0]}]}, {"tried": [{**TRIED, "ranks": [-1]}]}, {"accepted": -1}, {"before": -1.0}],
)  # fmt: skip
def test_a_damaged_step_is_told(change: dict[str, Any]) -> None:
    path = Path("narrow-1-decompose.json")
    good = {"what": "a", "seconds": 1.0, "run": None, "accepted": 0, "tried": [TRIED], "before": 0.0}
    check_step(good, path.stem, path)
    with pytest.raises(RunError, match=f"{next(iter(change))} is missing or of another type"):
        check_step({**good, **change}, path.stem, path)


def test_a_folder_of_a_version_that_did_not_decompose_goes_on_without(work: Work) -> None:
    shrunk(decompose=False)
    values = json.loads(Path("out/shrink.json").read_text())
    assert values["settings"].pop("decompose") is False
    assert settings_of(values["settings"], Path("x")).decompose is False
    with pytest.raises(RunError, match="settings of a recipe"):
        settings_of({**values["settings"], "decompose": 1}, Path("x"))
    Path("out/shrink.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match="give --no-decompose, or give another --out"):
        shrunk()
    assert shrunk(decompose=False).best == "narrow-1-int8"


def test_the_page_shows_what_was_tried_and_the_way() -> None:
    result, values, place = recipe()
    values["narrow-1-decompose"] = {
        "run": "runs/decomposed",
        "parent": "runs/narrow-1",
        "accepted": 1,
        "tried": [{**TRIED, "layer": "<b>", "ms": None, "ranks": [], "verdict": "no rank"}, TRIED],
        "before": 0.0,
    }
    last = result.candidates[-1]
    both = [
        dataclasses.replace(last, name=name, file=f"{name}.onnx", precision=kind, ms=ms, run="runs/decomposed")
        for name, kind, ms in (("narrow-1-decomposed", "float32", 0.4), ("narrow-1-decomposed-int8", "int8", 0.2))
    ]
    for each, step in zip(both, ("narrow-1-decomposed-float", "narrow-1-decomposed-int8"), strict=True):
        values[step] = {**values["narrow-1-int8"], "candidate": dataclasses.asdict(each)}
    result = dataclasses.replace(result, best=both[1].name, candidates=(*result.candidates, *both))
    page = check_alone(recipe_html(result, values, place))
    assert "decomposition" in [each["id"] for each in page.all("section")]
    assert "conv1 svd 4 0.500 0.400 accepted" in page.words and "<b> svd – – – no rank" in page.words
    labels = " ".join(each["aria-label"] or "" for each in page.all("svg"))
    assert "float: 1.200; narrow-1: 0.500; narrow-1-decomposed: 0.400; narrow-1-decomposed-int8: 0.200" in labels


# the step itself, on a run


@pytest.fixture(scope="module")
def parent(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("step")
    return train(small(image_folder, root / "run", net="lenet5", width=None, epochs=1)).path


@pytest.mark.full
def test_a_step_that_was_killed_comes_to_the_same_weights(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(Clock, "_measured", by_macs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = settings_of(
        {
            "run": str(parent),
            "which": "best",
            "weights": "",
            "seed": 0,
            "max_ms": None,
            "max_mb": 1.0,
            "max_drop": 1.0,
            "minutes": 2.0,
            "epochs": 1.0,
            "importance": "taylor",
            "threads": 1,
            "decompose": True,
        },
        Path("x"),
    )
    # at the energy that a step keeps, a network of one epoch has no rank worth it
    monkeypatch.setattr(steps, "decompose", functools.partial(decompose, energy=0.3, methods=("svd",)))
    place = steps.Workplace(settings, None, None, None, "native", SILENT)  # type: ignore[arg-type]

    def done(folder: Path) -> dict[str, Any]:
        return steps.decomposed(place, str(parent), "best", folder, 1.0, 100.0)

    peaceful = done(tmp_path / "peaceful")
    assert peaceful["run"] and peaceful["accepted"] >= 1 and peaceful["before"] == 0.0
    check_step({**peaceful, "what": "", "seconds": 1.0}, "narrow-1-decompose", Path("x"))
    trained = Run.open(peaceful["run"])
    assert trained.settings.epochs == 1.0 and trained.settings.minutes is None and changes_of(trained)

    saved, killed = trials.accept, tmp_path / "killed"

    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "accept", stopped)
    monkeypatch.setattr("gossamer.shrink.decompose.accept", stopped)
    with pytest.raises(KeyboardInterrupt):
        done(killed)
    seconds, minutes = unfinished_trials(killed)
    assert seconds > 0 and minutes is None and not killed.exists(), "epochs decide, no minutes"
    monkeypatch.setattr("gossamer.shrink.decompose.accept", saved)
    again = done(killed)
    assert again["before"] == pytest.approx(seconds)
    assert same(weights(killed, "best"), weights(tmp_path / "peaceful", "best"))
    assert {**again, "run": "", "before": 0.0} == {**peaceful, "run": "", "before": 0.0}
    third = done(killed)  # accepted, and stopped before the step was recorded
    assert third["accepted"] == again["accepted"] and same(
        weights(killed, "best"), weights(tmp_path / "peaceful", "best")
    )
