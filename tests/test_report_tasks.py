"""The report of detectors, segmenters and embedders: the page against the scores, and the numbers behind it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.charts import rates
from gossamer.cli.main import main
from gossamer.data.boxes.annotation import BoxTarget
from gossamer.errors import InputError
from gossamer.export.formats import export
from gossamer.host.text import percent, points
from gossamer.images.decode import describe
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.boxes import ScoredBoxes
from gossamer.predictions.masks import IGNORED, palette
from gossamer.report import (
    detect,
    detection_examples,
    embed,
    neighbours,
    page,
    photos,
    segmentation_examples,
    training_curves,
)
from gossamer.report.collect import collect
from gossamer.report.contents import ReportData
from gossamer.report.highlights import highlights
from gossamer.runtime.drawing_files import drawing_places
from gossamer.settings import Settings
from gossamer.tasks.detection.scores import DetectionScores
from gossamer.tasks.embedding.scores import EmbeddingScores
from gossamer.tasks.embedding.verification import PairVerification
from gossamer.tasks.segmentation.scores import SegmentationEvaluation
from gossamer.training.loop import train
from tests.reportcases import HOSTILE, Page, check_alone, data, rows
from tests.scenes import CLASSES, write_boxes, write_masks
from tests.tiers import quick_ones

TINY = {"net": "mobilenet_v2", "width": 0.25, "epochs": 2.0, "workers": 0, "threads": 1, "warmup": 0.0, "batch": 8}
Report = tuple[ReportData, Page]


@pytest.fixture(scope="module")
def runs(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run folder of a task, trained once."""
    root = tmp_path_factory.mktemp("tasks")
    run_folders: dict[str, Path] = {}

    def run(task: str) -> Path:
        if task not in run_folders:
            source, changes = {
                "detect": (lambda: write_boxes(root / "boxes"), {"input": "64x96", "lr": 0.02}),
                "segment": (lambda: write_masks(root / "masks"), {"input": "64x96", "lr": 0.05}),
                "embed": (lambda: image_folder, {"input": "32", "lr": 0.01, "per_identity": 2, "dim": 8}),
            }[task]
            settings = Settings(data=str(source()), task=task, out=str(root / task), **{**TINY, **changes})
            run_folders[task] = train(settings).path
        return run_folders[task]

    return run


@pytest.fixture(scope="module")
def report_of_task(runs: Callable[[str], Path]) -> Callable[[str], Report]:
    """The data of the report of a task's run, and its page."""
    kept: dict[str, Report] = {}

    def report(task: str) -> Report:
        if task not in kept:
            collected = collect(runs(task))
            kept[task] = collected, check_alone(page.report_html(collected))
        return kept[task]

    return report


def cells(parsed: Page, html: str) -> list[list[str]]:
    """The rows of all tables, as plain text."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    return [[re.sub(r"<[^>]*>", "", one).strip() for one in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


# from a run folder


@pytest.mark.parametrize("task", quick_ones(["detect", "segment", "embed"], ["detect"]))
def test_a_run_gives_a_page_whose_headline_is_the_score_of_the_best_epoch(
    task: str, report_of_task: Callable[[str], Report], runs: Callable[[str], Path]
) -> None:
    collected, parsed = report_of_task(task)
    best = max(row[f"val_{collected.score}"] for row in collected.metrics)
    assert collected.evaluation.metrics[collected.score] == pytest.approx(best, abs=1e-6)
    assert page.key_figures(collected)[0].value == percent(collected.evaluation.metrics[collected.score])
    targets = {(link["href"] or "").removeprefix("#") for link in parsed.all("a")}
    assert targets <= {section["id"] for section in parsed.all("section")}
    assert "Calibration" not in parsed.words and "nan" not in parsed.words.split()
    path = page.write_report(runs(task))
    assert path.stat().st_size < 3_000_000


def test_the_page_of_a_detector_says_its_scores(report_of_task: Callable[[str], Report]) -> None:
    collected, parsed = report_of_task("detect")
    html = page.report_html(collected)
    table = {row[0]: row[1:] for row in cells(parsed, html) if row and row[0] in CLASSES}
    assert collected.counts["train"] == tuple(int(n) for n in (table["square"][-1], table["disc"][-1]))
    assert sum(row["support"] for row in collected.evaluation.per_class) == 16, "two objects in each of 8 images"
    classes = html[html.index('id="classes"') :]
    for row in collected.evaluation.per_class:
        assert re.search(
            rf"<bdi>{row['class']}</bdi></th><td class=\"n\">{re.escape(points(row['map50']))}</td>", classes
        )
    seen = detect.operating_point(collected.evaluation.confusion)
    facts = {row[0]: row[1] for row in cells(parsed, html) if len(row) == 2}
    assert facts["objects"] == "16" and facts["detected as their class"] == str(seen.correct)
    assert int(facts["missed"]) == 16 - seen.correct - seen.confused
    assert f"training boxes {sum(collected.counts['train'])}" in parsed.words
    examples = [svg for svg in parsed.all("svg") if " false positives." in (svg["aria-label"] or "")]
    assert len(examples) == 8, "each of the images is either among the best or among the worst"


def test_the_page_of_a_segmenter_says_its_scores(report_of_task: Callable[[str], Report]) -> None:
    collected, parsed = report_of_task("segment")
    html = page.report_html(collected)
    table = {row[0]: row[1:] for row in cells(parsed, html) if len(row) == 7}
    for row in collected.evaluation.per_class:
        assert table[row["class"]][0] == points(row["iou"]) and table[row["class"]][2] == points(row["accuracy"])
    assert int(collected.evaluation.confusion.sum()) == 8 * 64 * 96
    shown = (*collected.details.worst, *collected.details.best)
    assert len({one.name for one in shown}) == len(shown) == 8
    for one in shown:
        index = collected.evaluation.names.index(one.name)
        assert one.miou == collected.evaluation.image_miou[index]
    wrong = np.mean([one.wrong for one in shown])
    assert 1 - wrong == pytest.approx(collected.evaluation.metrics["pixel_accuracy"]), "the examples are all the images"
    assert len(parsed.all("img")) == 3 * 8, "the truth, the prediction and the wrong pixels of each image"


def test_the_page_of_an_embedder_says_its_scores(report_of_task: Callable[[str], Report]) -> None:
    collected, parsed = report_of_task("embed")
    table = {row[0]: row[1] for row in cells(parsed, page.report_html(collected)) if len(row) > 1}
    metrics = collected.evaluation.metrics
    assert table["Recall@1"] == points(metrics["recall1"]) and table["MAP@R"] == points(metrics["map_r"])
    assert table["AUC"] == percent(metrics["auc"], 2)
    assert table["true accept rate"] == percent(metrics["tar"])
    assert int(table["pairs of one identity"]) == 3 * (12 * 11 // 2)
    right = np.mean(collected.evaluation.labels[collected.details.first] == collected.evaluation.labels)
    assert right == pytest.approx(metrics["recall1"]), "the sheet and the scores look up the same neighbours"
    alts = [image["alt"] or "" for image in parsed.all("img")]
    assert len(alts) == 6 * len(collected.details.queries)
    assert sum(alt.startswith("wrong: ") for alt in alts) == sum(
        near.identity != query.image.identity for query in collected.details.queries for near in query.nearest
    )
    assert "Seen before" in parsed.words, "these identities are those of the training"


# training curves


def test_the_training_curves_follow_the_score_of_the_task() -> None:
    scored = SegmentationEvaluation(("a", "b"), ["x"], np.eye(2, dtype=np.int64), np.ones(1), [])
    metrics = [
        {"epoch": float(n), "loss": 1 / n, "val_loss": math.nan, "val_miou": miou, "val_accuracy": 0.1 * n}
        for n, miou in enumerate((0.2, 0.8, 0.5), 1)
    ]
    collected = report_of(scored, None, metrics=metrics)
    best = collected.best_row()
    assert best is not None and best["epoch"] == 2
    loss, score = training_curves.training_charts(collected)[:2]
    assert [one.name for one in loss.series] == ["training"], "there is no validation loss to draw"
    assert score.title == "Mean IoU" and list(score.series[0].ys) == [0.2, 0.8, 0.5]
    assert dict(training_curves.selected_checkpoint(collected))["mIoU"] == percent(0.8)
    findings = {one.what: one.sentence for one in highlights(collected, [])}
    assert "epoch 2 (80.0)" in findings["Past its best"] and "Diverged" not in findings
    broken = dataclasses.replace(collected, metrics=[*metrics, {"epoch": 4.0, "loss": math.nan, "val_miou": math.nan}])
    assert (
        "training loss was not a number in 1 of 4"
        in {one.what: one.sentence for one in highlights(broken, [])}["Diverged"]
    )


def test_a_task_without_a_part_of_its_own_shows_its_scores() -> None:
    @dataclasses.dataclass
    class Scores:
        metrics: dict[str, float]
        unreadable: list[tuple[str, str]]
        names: tuple[str, ...] = ("x", "y")
        loss: float = 1.0

    changes: dict[str, Any] = {"task": "regress", "score": "r2", "mistakes": (), "counts": {}, "images": {"val": 2}}
    collected = dataclasses.replace(data(), evaluation=Scores({"r2": 0.625}, unreadable=[]), **changes)
    words = check_alone(page.report_html(collected)).words
    assert "R² 0.6250" in words and "2 validation images" in words


# detection


def detections(*rows: tuple[int, float, list[float]]) -> ScoredBoxes:
    labels, scores, corners = zip(*rows) if rows else ((), (), ())
    return ScoredBoxes(
        np.array(corners, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    )


SQUARE, OTHER, CROWD = [0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 90, 90]


def test_objects_are_detected_missed_or_confused() -> None:
    truth = BoxTarget.plain([SQUARE, OTHER, CROWD], [0, 1, 0], (100, 100))
    truth = dataclasses.replace(truth, crowd=np.array([False, False, True]))
    predicted = detections(
        (0, 0.9, [0, 0, 10, 8]),  # the square
        (0, 0.8, SQUARE),  # once more
        (0, 0.7, OTHER),  # of another class
        (0, 0.6, [60, 60, 70, 70]),  # in the crowd
        (1, 0.2, OTHER),  # below the score threshold
    )
    seen = detection_examples.outcome(truth, predicted)
    assert (seen.matched, seen.missed, seen.false) == ([0], [1], [1, 2])
    assert seen.f1 == 2 / 5
    nothing = detection_examples.outcome(BoxTarget.plain([], [], (9, 9)), detections())
    assert math.isnan(nothing.f1)
    assert detection_examples.outcome(truth, detections()).missed == [0, 1]
    assert detection_examples.outcome(BoxTarget.plain([], [], (9, 9)), detections((0, 0.9, SQUARE))).false == [0]


def detector(names: tuple[str, ...] = ("cat", "dog"), objects: bool = True) -> DetectionScores:
    """Three images: one object detected, one missed, one with nothing."""
    truth = [BoxTarget.plain([SQUARE], [k], (100, 100)) if objects else BoxTarget.plain([], [], (9, 9)) for k in (0, 1)]
    predicted = [detections((0, 0.9, SQUARE)), detections((0, 0.9, OTHER))] if objects else [detections()] * 2
    return DetectionScores(
        names, ["a", "b", "c"], [*truth, BoxTarget.plain([], [], (9, 9))], [*predicted, detections()], [("d", "torn")]
    )


def report_of(scores: Any, details: Any, **changes: Any) -> ReportData:
    score = {"detect": "map50", "segment": "miou", "embed": "recall1"}[scores.task]
    named = {"evaluation": scores, "details": details, "task": scores.task, "score": score, "mistakes": ()}
    return dataclasses.replace(data(), **{**named, "images": {"train": 3, "val": 3}, "metrics": rows(1), **changes})


def test_curves_and_confusion_by_hand() -> None:
    details = detection_examples.DetectionDetails((), (), np.array([8.0, 9.0, 20.0, 70.0]))
    collected = report_of(detector(), details, counts={"train": (1, 9)})
    parsed = check_alone(page.report_html(collected))
    (cat,) = [svg for svg in parsed.all("svg") if (svg["aria-label"] or "").startswith("cat: precision")]
    assert "100 at 20, 100 at 50, 100 at 80; average 100.0" in (cat["aria-label"] or "")
    assert detect.operating_point(collected.evaluation.confusion) == (2, 1, 0, 2, 1)
    findings = {one.what: one.sentence for one in page.view_of(collected).highlights}
    assert (
        "dog" in findings["Never detected"]
        and "dog" in findings["Weakest class"]
        and "9 training objects" in findings["Imbalance"]
    )
    counts = {(round(c.low, 2), round(c.high, 2)): c.amount for c in detect.histogram_bars(details.sides)}
    assert counts == {
        (8.0, 11.31): 2,
        (11.31, 16.0): 0,
        (16.0, 22.63): 1,
        (22.63, 32.0): 0,
        (32.0, 45.25): 0,
        (45.25, 64.0): 0,
        (64.0, 90.51): 1,
        (90.51, 128.0): 0,
    }


def test_a_detector_without_anything_to_find_says_so() -> None:
    details = detection_examples.DetectionDetails((), (), np.zeros(0))
    html = page.report_html(report_of(detector(objects=False), details, counts={"train": (0, 0)}))
    words = check_alone(html).words
    assert "images have no objects" in words and "Sizes of the training boxes" not in words
    assert not re.search(r"\bnan\b", html)


def test_training_boxes_are_measured_in_pixels_of_the_input() -> None:
    class Training:
        def __len__(self) -> int:
            return 1

        def target(self, index: int) -> BoxTarget:
            return BoxTarget.plain([[0, 0, 40, 10]], [0], (100, 200))

    measured = detection_examples.sides(Training(), Preprocess((50, 50), resize="squash"))  # type: ignore[arg-type]
    assert measured.tolist() == pytest.approx([math.sqrt(10 * 5)])


# segmentation


def test_a_wrong_pixel_has_the_colour_of_its_true_class() -> None:
    truth = np.array([[0, 1], [2, IGNORED]], np.uint8).repeat(8, 0).repeat(8, 1)
    predicted = np.array([[0, 2], [2, 1]], np.uint8).repeat(8, 0).repeat(8, 1)
    shown = segmentation_examples.wrong_pixels(Image.new("RGB", (16, 16), (200, 20, 20)), truth, predicted)
    pixels = decoded(shown.uri)
    assert shown.pixelated and tuple(pixels[4, 12]) == tuple(palette(2)[1])
    for row, column in ((4, 4), (12, 4), (12, 12)):
        assert len(set(pixels[row, column].tolist())) == 1, "what is right or has no class stays grey"


def decoded(uri: str) -> np.ndarray:
    from base64 import b64decode
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(b64decode(uri.split(",")[1]))).convert("RGB"))


def test_best_and_worst_have_no_image_in_common() -> None:
    values = np.array([0.5, np.nan, 0.1, 0.9, 0.1])
    mistakes = np.array([0, 0, 1, 0, 7])
    assert photos.ends(values, mistakes, 2) == ([4, 2], [3, 0])
    assert photos.ends(values[:1], mistakes[:1], 6) == ([0], [])
    assert photos.ends(np.full(3, np.nan), mistakes[:3], 6) == ([], [])


def test_large_images_become_small_and_keep_their_shape() -> None:
    large = photos.photo_of(Image.new("RGB", (1000, 500)))
    assert (large.height, large.width, large.pixelated) == (500, 1000, False)
    assert decoded(large.uri).shape == (200, 400, 3)


# embeddings


def test_the_nearest_others_leave_the_image_itself_out() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0.8, 0.6]], np.float32)
    places, similarities = neighbours.others(vectors, 2)
    assert all(index not in row for index, row in enumerate(places.tolist()))
    assert places[3].tolist() == [4, 0] and similarities[3].tolist() == pytest.approx([0.6, 0])
    assert similarities[:3].tolist() == [[1, 1]] * 3


def test_the_sheet_begins_with_the_surest_mistakes() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    first = np.array([1, 2, 0, 2, 0])
    similarities = np.array([0.5, 0.6, 0.9, 0.7, 1.0], np.float32)
    assert neighbours.chosen_queries(labels, first, similarities) == [2, 1, 0, 3], (
        "image 4 is alone and cannot be right"
    )


def test_the_curve_is_what_the_threshold_accepts() -> None:
    same, other = np.zeros((2, 2_000_001), np.int64)
    same[1_500_000], same[1_900_000], other[1_100_000], other[1_800_000] = 1, 1, 3, 1
    far, tar = embed.sampled(same, other, np.array([0.1, 0.25, 0.9, 1.0]))
    assert tar.tolist() == [0.5, 1.0, 1.0, 1.0] and far[0] == 0.1
    pairs = PairVerification(same, other)
    assert pairs.accepted(pairs.threshold(0.1))[0] == 0.5


def test_a_logarithmic_axis_spans_its_decades() -> None:
    axis = rates.RateAxis("x", 3)
    assert [axis.place(value) for value in (1, 0.1, 0.001, 0)] == pytest.approx([1, 2 / 3, 0, 0])
    assert rates.RateAxis("x").place(0.3) == 0.3


def embedder(names: tuple[str, ...], vectors: np.ndarray) -> EmbeddingScores:
    return EmbeddingScores(names, ["a", "b", "c"], vectors, np.array([0, 0, 1]), [])


def test_embeddings_that_are_not_numbers_are_reported() -> None:
    scores = embedder(("x", "y"), np.full((3, 2), np.nan, np.float32))
    details = neighbours.embedding_details(None, scores, Preprocess((8, 8)))  # type: ignore[arg-type]
    words = check_alone(page.report_html(report_of(scores, details, counts={"train": (2, 2), "val": (2, 1)}))).words
    assert "are not numbers" in words and "Nearest images" not in words and "not pairs of both kinds" in words


def test_an_identity_of_one_image_is_confused_with_none() -> None:
    scores = embedder(("x", "y"), np.array([[1, 0], [1, 0.1], [0.9, 0.2]], np.float32))  # y's nearest is of x
    first = np.array([1, 0, 1])
    details = neighbours.EmbeddingDetails((), np.zeros((0, 2), np.float32), np.zeros(0, np.int64), first)
    assert not embed._most_confused(report_of(scores, details), details)
    other = dataclasses.replace(details, first=np.array([1, 2, 1]))
    (mixed,) = embed._most_confused(report_of(scores, other), other)
    assert "1 of its 2 images" in mixed.sentence


def test_the_map_colours_the_largest_identities() -> None:
    labels = np.repeat(np.arange(10), [1, 9, 2, 3, 4, 5, 6, 7, 8, 1])
    assert embed.coloured(labels) == [1, 2, 3, 4, 5, 6, 7, 8]
    svg = embed.projection_chart(np.zeros((46, 2), np.float32), labels, [f"n{k}" for k in range(10)])
    assert svg.count("fill c") == 2 and svg.count("fill p0") == 9


# names that are no friends


def test_hostile_names_are_only_text_in_every_task() -> None:
    photo = photos.photo_of(Image.new("RGB", (8, 8)))
    names = HOSTILE[:2]
    mark = detection_examples.BoxMark("missed", (1.0, 1.0, 4.0, 4.0), 0, math.nan)
    scene = detection_examples.DetectionExample(HOSTILE[1], photo, (mark,), 0, 1, 0)
    area = segmentation_examples.SegmentationExample(HOSTILE[1], photo, photo, 0.5, 0.5, (0, 1))
    near = neighbours.NeighbourImage(HOSTILE[1], 0, 0.5, photo)
    vectors = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    mapped = neighbours.EmbeddingDetails(
        (neighbours.Query(near, (near,)),), vectors[:, :2], np.array([0, 0, 1]), np.array([2, 2, 0])
    )
    confusion = np.array([[2, 1], [1, 3]], np.int64)
    for scores, details in (
        (detector(names), detection_examples.DetectionDetails((scene,), (scene,), np.array([8.0]))),
        (
            SegmentationEvaluation(names, ["a"], confusion, np.ones(1), []),
            segmentation_examples.SegmentationDetails((area,), (area,)),
        ),
        (embedder(names, vectors), mapped),
    ):
        html = page.report_html(report_of(scores, details, counts={"train": (1, 1), "val": (1, 1)}))
        parsed = check_alone(html)
        assert "<script>alert(1)</script>" in parsed.words
        assert not [image for image in parsed.all("img") if not (image["src"] or "").startswith("data:image/")]


# predict --draw


def test_predict_draws_each_image_under_its_name(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "boxes.onnx"
    export(runs("detect"), model)
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    image = Image.new("RGB", (90, 60), (99, 99, 99))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "deep" / "a.jpg", exif=exif)
    image.save(folder / "b.PNG")
    image.save(folder / "c.bmp")
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["predict", str(model), str(folder), "--draw", str(out)]) == 0
    written = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    formats = {name: describe(path) for name, path in written.items()}
    assert {name: one.format for name, one in formats.items()} == {
        "deep/a.jpg": "JPEG",
        "b.PNG": "PNG",
        "c.bmp.png": "PNG",
    }
    turned = formats["deep/a.jpg"]
    assert (turned.height, turned.width) == (90 * 4, 60 * 4), "drawn on the upright image, a small one enlarged"
    assert "broken.png" in capsys.readouterr().out
    assert main(["predict", str(model), str(folder / "b.PNG"), "--draw", str(folder)]) == 2
    assert "is an input image" in capsys.readouterr().err


def test_images_that_would_replace_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both drawn to"):
        drawing_places(["x/a.jpg", "y/a.jpg"], tmp_path)
    assert len(drawing_places(["x/a.jpg", "x/a.jpg"], tmp_path)) == 1
