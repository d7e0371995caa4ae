"""The report of several heads: a table per head, equal to its scores; and the images that several heads draw."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.charts import scatter
from gossamer.cli.main import main
from gossamer.export.formats import export
from gossamer.host.text import metric_name, points, significant
from gossamer.report import heads, page
from gossamer.report.collect import collect
from gossamer.report.contents import ReportData
from gossamer.settings import Settings
from gossamer.tasks.scores_heads import MultiLabelEvaluation, RegressionEvaluation
from gossamer.training.loop import train
from tests.reportcases import HOSTILE, Page, check_alone, data
from tests.shop import EVERY, write_shop

KEPT = {"net": "mobilenet_v2", "width": 0.25, "input": "32x40", "epochs": 1.0, "batch": 8, "threads": 1, "workers": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    (root / "heads.yaml").write_text(EVERY)
    shop = write_shop(root / "shop")
    settings = {**KEPT, "data": str(shop), "task": "multi", "heads": str(root / "heads.yaml"), "out": str(root / "run")}
    return train(Settings(**settings)).path  # type: ignore[arg-type]


def cells(html: str, id: str) -> dict[str, list[str]]:
    """The rows of the tables of a section by their first cell."""
    part = html[html.index(f'<section id="{id}">') :]
    part = part[: part.index("</section>")]
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", part, re.S)]
    plain = [[re.sub(r"<[^>]*>", "", one).strip() for one in row] for row in rows if row]
    return {row[0]: row[1:] for row in plain}


def test_the_page_of_every_kind_of_head_says_the_scores_of_each(run: Path) -> None:
    collected = collect(run)
    html = page.report_html(collected)
    parsed = check_alone(html)
    scores = collected.evaluation
    overview = cells(html, "heads")
    assert list(overview)[1:] == list(scores.heads)
    for index, (name, one) in enumerate(scores.heads.items()):
        main_score = scores.main[name]
        assert overview[name][1:3] == [metric_name(main_score), significant(one.metrics[main_score])]
        facts = cells(html, f"head-{index}")
        for key, value in one.metrics.items():
            assert facts[metric_name(key)] == [significant(value, 4)], (name, key)
    tags = cells(html, "head-1")
    for row in scores.heads["tags"].per_class:
        assert tags[row["class"]][:1] == [points(row["ap"])]
        assert tags[row["class"]][-2:] == [points(row["f1"]), str(row["support"])]
    size = cells(html, "head-2")
    assert [size[name][2] for name in ("across", "down")] == [
        significant(row["mae"]) for row in scores.heads["size"].per_class
    ]
    targets = {(link["href"] or "").removeprefix("#") for link in parsed.all("a")}
    assert targets <= {section["id"] for section in parsed.all("section")}
    assert "Labels missing" in parsed.words and "nan" not in parsed.words.split()


def labels(names: tuple[str, ...] = ("wide", "left", "never")) -> MultiLabelEvaluation:
    outputs = np.array([[2, -1, -3], [1, 1, -3], [-1, 2, -3], [-2, -2, -3]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, np.nan, 0], [0, 1, 0]], np.float32)
    return MultiLabelEvaluation([f"{i}.png" for i in range(4)], outputs, targets, [], names)


def test_the_scores_of_each_label_by_hand() -> None:
    wide, left, never = labels().per_class
    assert wide["precision"] == wide["recall"] == wide["f1"] == 0.5 and wide["support"] == 2
    assert wide["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert (left["precision"], left["recall"], left["support"]) == (1.0, 0.5, 2), "one is not known"
    assert left["f1"] == pytest.approx(2 / 3) and left["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert never["support"] == 0 and all(math.isnan(never[name]) for name in ("ap", "precision", "recall", "f1"))
    plain = json.loads(json.dumps(labels().to_json(), allow_nan=False))
    assert plain["per_class"][2]["ap"] is None and plain["per_class"][0]["class"] == "wide"


def test_a_label_for_each_output_is_needed() -> None:
    scores = dataclasses.replace(labels(), labels=("wide", "left"))
    with pytest.raises(ValueError, match="zip"):
        scores.per_class  # noqa: B018


def test_the_scores_of_each_quantity_by_hand() -> None:
    outputs = np.array([[1, 5], [3, 5], [4, 5]], np.float32)
    targets = np.array([[1, 4], [2, np.nan], [6, 4]], np.float32)
    first, second = RegressionEvaluation(["a", "b", "c"], outputs, targets, [], ("x", "y")).per_class
    assert first["mae"] == 1 and first["rmse"] == pytest.approx(math.sqrt(5 / 3)) and first["support"] == 3
    assert first["bias"] == pytest.approx(-1 / 3) and first["r2"] == pytest.approx(1 - 5 / 14)
    assert (first["low"], first["high"]) == (1, 6)
    assert second["bias"] == 1 and math.isnan(second["r2"]) and second["support"] == 2, "all true values are the same"


def of(scores: Any, task: str, score: str) -> ReportData:
    """The data of the report of one head."""
    return dataclasses.replace(data(), task=task, score=score, evaluation=scores, mistakes=(), counts={})


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    outputs = np.array([[1.0], [2.0]], np.float32)
    numbers = RegressionEvaluation(["a", "b"], outputs, outputs + 1, [], (name,))
    for task, score, scores in (("multilabel", "map", labels((name, "b", "c"))), ("regress", "r2", numbers)):
        html = page.report_html(of(scores, task, score))
        check_alone(html)  # no script, nothing from outside, balanced
        assert "<b>" not in html[html.index('id="head-0"') : html.index('id="data"')].replace("<b><bdi>", "")


def test_one_head_has_no_overview() -> None:
    html = page.report_html(of(labels(), "multilabel", "map"))
    assert 'id="heads"' not in html and Page(html).words.count("multilabel") >= 2
    view = heads.heads_view(of(labels(), "multilabel", "map"))
    assert view.sections == (("head-0", "multilabel"),) and not view.highlights


@pytest.mark.parametrize(
    ("truth", "predicted", "dots"),
    [
        ([], [], 0),
        ([math.nan], [1.0], 0),
        ([3.0, 3.0], [3.0, 3.0], 2),
        ([1.0, math.inf, 2.0], [1.5, 1.0, 9.0], 2),
        (list(range(2500)), list(range(2500)), 834),
    ],
    ids=["nothing", "not numbers", "all the same", "one infinite", "more than are drawn"],
)
def test_a_scatter_draws_what_is_finite(truth: list[float], predicted: list[float], dots: int) -> None:
    svg = scatter.predicted_against_true("x", np.array(truth, np.float32), np.array(predicted, np.float32))
    assert svg.count("<circle") == dots and "nan" not in svg and "inf" not in svg


@pytest.mark.full
def test_boxes_and_masks_of_one_file_are_drawn_over_each_other(run: Path, tmp_path: Path) -> None:
    model, image_file = tmp_path / "shop.onnx", run.parent / "shop" / "pics" / "00.png"
    export(run, model)
    assert main(["predict", str(model), str(image_file), "--draw", str(tmp_path / "out")]) == 0
    drawn: Any = np.asarray(Image.open(tmp_path / "out" / "00.png").convert("RGB"))
    before = np.asarray(Image.open(image_file).convert("RGB")).repeat(8, 0).repeat(8, 1)  # 40 wide: drawn at 320
    assert drawn.shape == before.shape and (drawn != before).any(axis=2).mean() > 0.5, "the mask colours the image"
