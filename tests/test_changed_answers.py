"""Boxes and masks that changed from one file to another, side by side on the pages of a recipe and of a quantisation."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from gossamer.data.source import Source
from gossamer.errors import ImageError
from gossamer.host.progress import SILENT
from gossamer.predictions.postprocess import Several
from gossamer.predictions.spatial import Detections, Segmentation
from gossamer.shrink import changed_answers as module
from gossamer.shrink.changed_answers import boxes_changed, changed_answers, overlap, pixels_changed, shows_places
from gossamer.shrink.recipe.page import recipe_html
from tests.recipecases import recipe
from tests.reportcases import HOSTILE, check_alone

SIZE = (24, 32)


def test_boxes_are_compared_by_class_and_overlap() -> None:
    a, b, far = ("cat", (0.0, 0.0, 10.0, 10.0)), ("cat", (1.0, 0.0, 11.0, 10.0)), ("cat", (20.0, 0.0, 30.0, 10.0))
    assert overlap(a[1], b[1]) == pytest.approx(90 / 110) and overlap(a[1], far[1]) == 0
    assert boxes_changed([a], [b])[0] == 0 and boxes_changed([], []) == (0.0, "0 of 0 boxes are gone, 0 are new")
    assert boxes_changed([a], [far]) == (1.0, "1 of 1 box is gone, 1 is new")
    assert boxes_changed([a], [("dog", a[1])])[0] == 1, "of another class"
    assert boxes_changed([a, far], [b]) == (pytest.approx(1 / 3), "1 of 2 boxes is gone, 0 are new")
    assert boxes_changed([a, a], [b])[0] == pytest.approx(1 / 3), "one box is the counterpart of one"


def test_masks_are_compared_by_pixel() -> None:
    first, second = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    second[0] = 1
    assert pixels_changed(first, second) == (0.25, "25.0 % of the pixels have another class")
    assert pixels_changed(first, first)[0] == 0 and pixels_changed(first, second[:2])[0] == 1


class Fixed:
    """A model whose answer depends on the number in the upper left pixel alone."""

    def __init__(self, kind: str, moved: int) -> None:
        self.kind, self.moved = kind, moved

    def need_metadata(self) -> Any:
        classes = ("ground", "block")
        return SimpleNamespace(heads=(SimpleNamespace(kind=self.kind, name="", classes=classes),))

    def predict(self, encoded: bytes) -> Any:
        number = int(np.asarray(Image.open(io.BytesIO(encoded)))[0, 0, 0])
        if self.kind == "segment":
            mask = np.zeros(SIZE, np.uint8)
            mask[: self.moved * number] = 1
            return Segmentation("a", mask, ("ground", "block"))
        corner = 20.0 if self.moved and number else 0.0
        boxes = np.asarray([[corner, 0, corner + 10, 10], [0, 0, 5, 5]], np.float32)
        return Detections("a", boxes, ("block", "block"), (0.9, 0.01), SIZE)  # the second is not drawn


class Pictures:
    def read(self, row: int) -> bytes:
        if row == 2:
            raise ImageError("2.png: is broken", "an image", "remove it")
        file = io.BytesIO()
        Image.fromarray(np.full((*SIZE, 3), row, np.uint8)).save(file, "PNG")
        return file.getvalue()


def source(name: str = "i") -> Source:
    names = [f"{name}/{number}.png" for number in range(5)]
    return Source(("ground", "block"), names, np.zeros(5, np.int64), cast(Any, Pictures()), np.arange(5))


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_the_images_that_changed_the_most_come_first(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = cast(Any, Fixed(kind, 0)), cast(Any, Fixed(kind, 1))
    assert shows_places(before) and not shows_places(cast(Any, Fixed("classify", 0)))
    shown, changed, compared = changed_answers(before, after, source(), SILENT)
    assert (changed, compared) == (3, 4), "the first has number 0, the third cannot be read"
    order = [one.name for one in shown]
    assert order == (["i/1.png", "i/3.png", "i/4.png"] if kind == "detect" else ["i/4.png", "i/3.png", "i/1.png"])
    assert all(one.before != one.after and one.before.startswith("data:image/") for one in shown)
    assert changed_answers(before, before, source(), SILENT) == ([], 0, 4)
    monkeypatch.setattr(module, "SHOWN", 1)
    assert len(changed_answers(before, after, source(), SILENT)[0]) == 1


def test_of_several_heads_the_one_that_changed_most_counts() -> None:
    def several(model: Fixed) -> Any:
        return Several(
            "a",
            {
                "boxes": model.predict(Pictures().read(1)),
                "mask": Fixed("segment", model.moved).predict(Pictures().read(1)),
            },
        )

    part, said = module._difference(several(Fixed("detect", 0)), several(Fixed("detect", 1)))
    assert part == 1 and "1 of 1 box is gone" in said


@pytest.mark.parametrize("name", ["cat", *HOSTILE])
def test_the_page_shows_them_side_by_side(name: str) -> None:
    pytest.importorskip("jinja2")
    answers = changed_answers(cast(Any, Fixed("detect", 0)), cast(Any, Fixed("detect", 1)), source(name), SILENT)
    found, values, place = recipe()
    page = check_alone(recipe_html(found, values, place, answers))
    assert "answers" in [one["id"] for one in page.all("section")]
    assert "changed in 3 of 4 validation images" in page.words and "1 of 1 box is gone, 1 is new" in page.words
    none = check_alone(recipe_html(found, values, place, ([], 0, 4)))
    assert "of all 4 validation images that were compared are the same" in none.words
    assert "answers" not in [one["id"] for one in check_alone(recipe_html(found, values, place)).all("section")]
