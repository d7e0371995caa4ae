"""What a report draws and finds in made-up results: photographs of mistakes, boxes, the plane of embeddings, findings."""

from __future__ import annotations

import io
import math
import re
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.charts.svg import WIDTH
from gossamer.report import classify, detect, embed
from gossamer.report.detection_examples import BoxMark
from gossamer.report.gallery import SIDE, data_uri, heat, mistake
from gossamer.report.scores import Calibration
from gossamer.tasks.embedding.scores import EmbeddingScores
from tests.reportcases import data

CAM = np.eye(2, dtype=np.float32)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(uri.split(",")[1])))


def shown(height: int, width: int) -> Any:
    """A photograph with a black left and a white right half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    return mistake("x", pixels, CAM, 0, 1, np.array([0.25, 0.75]))


def test_a_small_photograph_keeps_its_pixels_and_a_large_one_is_smoothed() -> None:
    small, exact, large = shown(4, 8), shown(SIDE // 2, SIDE), shown(300, 500)
    assert (small.pixelated, exact.pixelated, large.pixelated) == (True, False, False)
    assert (small.confidence, small.truth, small.true, small.predicted) == (0.75, 0.25, 0, 1)
    assert [decoded(one.photo).size for one in (small, exact, large)] == [(8, 4), (SIDE, SIDE // 2), (SIDE, 106)]
    assert [decoded(one.photo).format for one in (small, exact, large)] == ["PNG", "JPEG", "JPEG"]
    assert [decoded(one.overlay).size for one in (small, large)] == [(SIDE, SIDE // 2), (SIDE, 106)]
    for one, height, width, resample in (
        (small, 4, 8, Image.Resampling.NEAREST),
        (shown(66, 132), 66, 132, Image.Resampling.NEAREST),
        (large, 300, 500, Image.Resampling.LANCZOS),
    ):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, width // 2 :] = 255
        photo = Image.fromarray(pixels).resize((SIDE, round(height * SIDE / width)), resample)
        assert one.overlay == data_uri(heat(photo, CAM), "JPEG")


@pytest.mark.parametrize(
    ("confidence", "accuracy", "what"),
    [(0.9, 0.8, "Over-confident"), (0.7, 0.8, "Under-confident"), (0.81, 0.8, None), (0.79, 0.8, None)],
)
def test_a_gap_between_confidence_and_accuracy_is_a_finding(
    confidence: float, accuracy: float, what: str | None
) -> None:
    findings = classify._calibration(Calibration((), 0.0, confidence, accuracy, 0))
    assert [one.what for one in findings] == ([what] if what else [])
    for one in findings:
        words = re.sub(r"\s", " ", one.sentence).replace("\u202f", " ")
        assert words == f"Mean confidence {confidence:.1%}, accuracy {accuracy:.1%}.".replace("%", " %")
    (nothing,) = classify._calibration(None)
    assert nothing.failure and nothing.what == "Outputs"


def numbers(svg: str, element: str, *names: str) -> list[tuple[float, ...]]:
    return [
        tuple(float(re.search(rf' {name}="([^"]+)"', one)[1]) for name in names)  # type: ignore[index]
        for one in re.findall(rf"<{element}\b[^>]*>", svg)
    ]


@pytest.mark.parametrize(
    ("kind", "box", "rect", "place"),
    [
        ("matched", (10, 20, 30, 60), (20, 40, 40, 80), (24, 53)),
        ("false", (10, 20, 30, 60), (20, 40, 40, 80), (24, 115)),
        ("missed", (10, 20, 10, 20.1), (20, 40, 1, 1), (24, 53)),
        ("false", (0, 0, 4, 4), (0, 0, 8, 8), (4, 13)),
        ("matched", (150, 20, 170, 60), (300, 40, 40, 80), (336, 53)),
    ],
)
def test_a_box_is_drawn_where_it_is_with_its_name_inside(
    kind: str, box: tuple[float, ...], rect: tuple[float, ...], place: tuple[float, ...]
) -> None:
    """At twice the size; a box of no width is a line that can be seen."""
    mark = BoxMark(kind, box, 3, math.nan if kind == "missed" else 0.876)  # type: ignore[arg-type]
    svg = detect._mark(mark, 2.0, "a cat")
    assert numbers(svg, "rect", "x", "y", "width", "height") == [pytest.approx(rect)] * 2
    assert numbers(svg, "text", "x", "y") == [pytest.approx(place)]
    assert ('text-anchor="end"' in svg) == (box[0] * 2 > WIDTH - 80)
    assert (">a cat<" if kind == "missed" else ">a cat 0.88<") in svg


def test_points_of_the_plane_have_one_scale_along_both_axes() -> None:
    places = np.array([[0, 0], [10, 0], [0, 5], [10, 5]], np.float32)
    svg = embed.projection_chart(places, np.array([0, 0, 1, 1]), ["a", "b"])
    centres = numbers(svg, "circle", "cx", "cy")
    height = 24 + (WIDTH - 24) / 2
    assert svg.startswith(f'<svg viewBox="0 0 {WIDTH} {height:.0f}"')
    left, right, top, bottom = 12, WIDTH - 12, 12, height - 12
    assert centres == [(left, bottom), (right, bottom), (left, top), (right, top)]
    flat = embed.projection_chart(places * [[1, 0.01]], np.array([0, 0, 1, 1]), ["a", "b"])
    (first, *_, last) = numbers(flat, "circle", "cx", "cy")
    assert flat.startswith(f'<svg viewBox="0 0 {WIDTH} 120"')
    assert first[1] - last[1] == pytest.approx(0.05 * (WIDTH - 24) / 10, abs=0.02)


@pytest.mark.parametrize(("near", "failure"), [(True, False), (False, True)])
def test_embeddings_no_better_than_chance_are_a_failure(near: bool, failure: bool) -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    labels = np.array([0, 0, 1, 1] if near else [0, 1, 0, 1])
    scores = EmbeddingScores(("x", "y"), list("abcd"), vectors, labels, [])
    report = data(("x", "y"), counts={"train": (2, 2), "val": (0, 2)})
    object.__setattr__(report, "evaluation", scores)
    findings = embed._highlights(report, None)
    assert [one.what for one in findings] == ["Near chance"] * failure + ["Seen before"]
    assert [one.failure for one in findings] == [True] * failure + [False]
    if failure:
        assert findings[0].sentence.startswith("AUC ")
    assert findings[-1].sentence.startswith("1 of 1 identity has training images")
