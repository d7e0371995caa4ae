"""Predictions drawn on the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

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
