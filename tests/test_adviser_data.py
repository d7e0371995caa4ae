"""The rules on data: what a network sees and predicts beside the objects and images that it is trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.adviser.data_facts import DataFacts, _boxes
from gossamer.adviser.review import review
from gossamer.adviser.table import RULES
from gossamer.adviser.task import seen
from gossamer.cli.main import main
from gossamer.data.boxes.annotation import BoxTarget
from gossamer.diagnosis.evidence import Evidence
from gossamer.errors import InputError
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings
from tests.adviserdata import DATA_PAIRS, facts, images, maps
from tests.adviserpairs import Net, conv
from tests.trained import TASKS, runs_of_tasks

BY_NAME = {rule.name: rule for rule in RULES}
OLD = Path(__file__).parent / "compat" / "0.1"


@pytest.mark.parametrize("rule", DATA_PAIRS)
def test_a_planted_fault_is_named_and_its_partner_left_alone(rule: str) -> None:
    network, data = DATA_PAIRS[rule].fault()
    result = review(network, (3, 96, 96), data=data)
    names = [one.rule for one in result.findings if BY_NAME[one.rule].needs_data]
    assert names[:1] == [rule]
    found = next(one for one in result.findings if one.rule == rule)
    assert BY_NAME[rule].names(found.figure) and 0 < found.cost <= 1 and found.severity == "warning"
    assert (found.layers and found.change.text and "--" in found.change.text) or rule == "receptive-field"
    network, data = DATA_PAIRS[rule].partner()
    left = review(network, (3, 96, 96), data=data)
    assert rule not in [one.rule for one in left.findings]
    assert rule in left.rules and rule not in review(network, (3, 96, 96)).rules
    json.dumps(result.to_json(), allow_nan=False)


def test_figures_are_as_counted() -> None:
    def figure(rule: str, network: object, data: DataFacts) -> float:
        return next(one for one in review(network, (3, 96, 96), data=data).findings if one.rule == rule).figure  # type: ignore[arg-type]

    assert figure("receptive-field", maps(3), facts((20, 20), (60, 30))) == pytest.approx(15 / 60)
    assert figure("output-stride", maps(20), facts((5, 20), (20, 20))) == pytest.approx(5 / 8)
    assert figure("unmatched-anchors", maps(20), facts((20, 20), anchors=[(16, 16, 10), (80, 80, 30)])) == 0.75
    assert figure("upsampled-images", maps(3), images(32, 32)) == 3
    assert figure("squashed-images", maps(3), images(100, 300)) == pytest.approx(3)
    assert seen(review(Net(conv(32, 32)), (3, 64, 64)).subject) == float("inf"), "a classifier sees all"


def test_cropped_and_padded_images_stay_in_proportion() -> None:
    for resize, scale in (("crop", 0.96), ("pad", 0.32)):
        assert images(100, 300, resize).scales() == pytest.approx(np.full((20, 2), scale), rel=0.02)
        names = [one.rule for one in review(maps(3), (3, 96, 96), data=images(100, 300, resize)).findings]
        assert "squashed-images" not in names
    crop = DataFacts((96, 96), "crop", 0.5, images=np.full((1, 2), 96.0))
    assert crop.scales() == pytest.approx(np.full((1, 2), 2.0)), "half of the image is seen, twice as large"


def test_data_without_boxes_or_anchors_say_nothing_of_them() -> None:
    result = review(maps(3), (3, 96, 96), data=DataFacts((96, 96), images=np.full((3, 2), 96.0)))
    assert not [one for one in result.findings if BY_NAME[one.rule].needs_data]
    assert {name for name in BY_NAME if BY_NAME[name].needs_data} <= set(result.rules)


@pytest.mark.full
def test_runs_of_every_task_are_compared_with_their_data(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    home = runs_of_tasks(tmp_path_factory)
    for task in TASKS:
        result = gossamer.review(home / task, data="")
        data = result.subject.data
        assert data is not None and len(data.images) and len(result.rules) == len(RULES)
        assert bool(len(data.boxes)) == (task == "detect") == bool(data.steps) == bool(len(data.anchors))
        capsys.readouterr()  # what the trainings have said
        assert main(["review", str(home / task), "--data", "--json"]) == 0
        assert "receptive-field" in json.loads(capsys.readouterr().out)["rules"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mobilenet_v2", "--data"], "--data for mobilenet_v2, a network"),
        ([str(OLD / "classify.onnx"), "--data", "photos"], "a model file; allowed: a run folder"),
        ([str(OLD / "runs" / "classify"), "--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and "Traceback" not in error


def test_a_module_has_no_data_of_its_own() -> None:
    with pytest.raises(InputError, match="--data for Sequential"):
        review(maps(3), (3, 96, 96), data="photos")


def test_crowds_are_no_objects() -> None:
    boxes = BoxTarget.plain([[0, 0, 10, 10], [0, 0, 90, 90]], [0, 0], (96, 96))
    boxes = dataclasses.replace(boxes, crowd=np.array([False, True]))
    source: Any = OneImage(boxes)
    assert _boxes(source, Preprocess((96, 96), "squash")).tolist() == [[10, 10]]
    evidence: Any = SimpleNamespace(
        data=SimpleNamespace(train=source),
        settings=Settings(task="detect", resize="squash"),
        input_size=(96, 96),
        classes=("a",),
    )
    assert vars(Evidence)["boxes"].func(evidence).tolist() == [[10, 10]]
    assert vars(Evidence)["box_classes"].func(evidence) == [1]


class OneImage:
    """A source of one image with these boxes."""

    def __init__(self, boxes: BoxTarget) -> None:
        self.boxes = boxes

    def __len__(self) -> int:
        return 1

    def target(self, index: int) -> BoxTarget:
        return self.boxes
