"""Predictions drawn on the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gossamer.predictions.masks import palette
from gossamer.predictions.pictures import SHOWN, Detections

CLASSES = ("cat", "dog", "hen")
GREY = 77


def drawn(box: tuple[float, float, float, float], name: str, score: float) -> np.ndarray:
    detections = Detections("a.png", np.array([box], np.float32), (name,), (score,), (480, 640))
    return np.asarray(detections.draw(Image.new("RGB", (640, 480), (GREY,) * 3), CLASSES))


@pytest.mark.parametrize("name", CLASSES)
def test_a_box_has_its_label_inside_at_the_upper_left(name: str) -> None:
    """At 640 pixels, lines are 2 wide: the label's text begins 2 pixels right of and below the corner, on a ground of the
    class's colour that reaches 2 pixels further than the text."""
    colour = tuple(palette(3)[CLASSES.index(name)].tolist())
    page = Image.new("RGB", (640, 480), (GREY,) * 3)
    draw = ImageDraw.Draw(page)
    draw.rectangle((100, 50, 400, 300), outline=colour, width=2)
    left, top, right, bottom = draw.textbbox((102, 52), f"{name} 0.50")
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=colour)
    dark = np.dot(colour, (0.299, 0.587, 0.114)) > 128
    draw.text((102, 52), f"{name} 0.50", fill="black" if dark else "white")
    assert (drawn((100, 50, 400, 300), name, 0.5) == np.asarray(page)).all()


def test_boxes_below_the_score_are_not_drawn() -> None:
    assert (drawn((100, 50, 400, 300), "cat", SHOWN - 0.01) == GREY).all()
    assert (drawn((100, 50, 400, 300), "cat", SHOWN) != GREY).any()
