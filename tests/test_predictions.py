"""Predictions drawn on the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gossamer.images.preprocess import Preprocess
from gossamer.predictions import spatial
from gossamer.predictions.boxes import ScoredBoxes
from gossamer.predictions.classes import NOT_FINITE
from gossamer.predictions.head import OutputHead
from gossamer.predictions.limits import DecodingLimits
from gossamer.predictions.masks import palette
from gossamer.predictions.spatial import SHOWN, Detections

CLASSES = ("cat", "dog", "hen")
GREY = 77


def drawn(box: tuple[float, float, float, float], name: str, score: float) -> np.ndarray:
    detections = Detections("a.png", np.array([box], np.float32), (name,), (score,), (480, 640))
    return np.asarray(detections.draw(Image.new("RGB", (640, 480), (GREY,) * 3), CLASSES))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("top", "inside"), [(50, False), (5, True)])
def test_a_label_is_above_its_box_or_inside_where_there_is_no_room(name: str, top: int, inside: bool) -> None:
    """At 640x480, text is 17 pixels high and lines are 2 wide: the ground of the label, in the class's colour, reaches 2
    pixels further than the text and ends where the box begins."""
    colour = tuple(palette(3)[CLASSES.index(name)].tolist())
    page = Image.new("RGB", (640, 480), (GREY,) * 3)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(17)
    draw.rectangle((100, top, 400, 300), outline=colour, width=2)
    left, upper, right, lower = draw.textbbox((0, 0), f"{name} 0.50", font=font)
    width, height = right - left + 4, lower - upper + 4
    y = top if inside else top - height
    draw.rectangle((100, y, 100 + width - 1, y + height - 1), fill=colour)
    dark = np.dot(colour, (0.299, 0.587, 0.114)) > 128
    draw.text((102 - left, y + 2 - upper), f"{name} 0.50", fill="black" if dark else "white", font=font)
    assert (drawn((100, top, 400, 300), name, 0.5) == np.asarray(page)).all()


def test_boxes_below_the_score_are_not_drawn() -> None:
    assert (drawn((100, 50, 400, 300), "cat", SHOWN - 0.01) == GREY).all()
    assert (drawn((100, 50, 400, 300), "cat", SHOWN) != GREY).any()


@pytest.mark.parametrize(("wrong", "note"), [((), ""), (("deltas",), NOT_FINITE), (("logits",), NOT_FINITE)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_noted(
    wrong: tuple[str, ...], note: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = ScoredBoxes(np.array([[1, 2, 3, 4]], np.float32), np.array([2]), np.array([0.75], np.float32))
    monkeypatch.setattr(spatial, "image_boxes", lambda *arguments: boxes)
    raw = {name: np.full((1, 2, 4), value if name in wrong else 0.5, np.float32) for name in ("deltas", "logits")}
    place = Preprocess((8, 8), "squash").read(Image.new("RGB", (20, 10)))[1]
    head = OutputHead("detect", CLASSES)
    found = spatial.detected(head, raw, place, "a.png")
    assert (found.error, found.labels, found.scores, found.size) == (note, ("hen",), (0.75,), (10, 20))
    assert (found.shown, spatial.detected(head, raw, place, "", DecodingLimits(0.1)).shown) == (SHOWN, 0.1)
