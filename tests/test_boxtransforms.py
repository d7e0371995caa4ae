"""Images and their boxes through every random step."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gossamer.errors import ImageError, SettingsError
from gossamer.images.preprocess import Preprocess
from gossamer.tasks.detection.augment import TrainBoxes, crop_window, seen_boxes
from gossamer.tasks.detection.match import IGNORED, Target
from tests.boxcases import CORNERS, Prediction, annotated_boxes, random_boxes


def marked(height: int, width: int, corners: Any, form: str = "JPEG") -> bytes:
    """An image of the mean colour with a red box, a green one, ..."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    for index, (x0, y0, x1, y1) in enumerate(corners):
        pixels[y0:y1, x0:x1] = [255 * (index == channel) for channel in range(3)]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **({"quality": 95, "subsampling": 0} if form == "JPEG" else {}))
    return file.getvalue()


GREY = Preprocess((96, 80), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)


def check_boxes_lie_on_their_colours(pixels: Any, target: Target) -> int:
    for box, label in zip(target.boxes, target.labels):
        seen = pixels.astype(int)
        others = [channel for channel in range(3) if channel != label]
        rows, columns = np.nonzero((seen[..., label] > 190) & (seen[..., others] < 64).all(-1))
        x0, y0, x1, y1 = box
        inside = (columns > x0 - 1.5) & (columns < x1 + 0.5) & (rows > y0 - 1.5) & (rows < y1 + 0.5)
        assert inside.all()
        if min(x1 - x0, y1 - y0) > 5:
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx(
                box.tolist(), abs=1.6
            )
    return len(target.labels)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_boxes_follow_the_image_through_every_random_step(form: str) -> None:
    t = TrainBoxes(GREY, vertical_flip=0.5, jitter=0.0)
    data, drawn = marked(240, 320, CORNERS, form), annotated_boxes(CORNERS, [0, 1])
    seen = 0
    for seed in range(60):
        pixels, target = t.joint(data, drawn, np.random.default_rng(seed))
        assert pixels.shape == t.shape == (96, 80, 3) and pixels.dtype == np.uint8
        seen += check_boxes_lie_on_their_colours(pixels, target)
        again = t.joint(data, drawn, np.random.default_rng(seed))
        assert np.array_equal(again[0], pixels) and np.array_equal(again[1].boxes, target.boxes)
    assert seen > 60


def test_a_mosaic_holds_four_images_with_their_boxes() -> None:
    calls = []

    def others(rng: np.random.Generator) -> tuple[bytes, Prediction]:
        calls.append(int(rng.integers(9)))
        return (b"broken", annotated_boxes([], [])) if len(calls) == 2 else (marked(50, 90, [(10, 10, 80, 40)]), both)

    both = annotated_boxes([(10, 10, 80, 40)], [0])
    t = TrainBoxes(GREY, crop=0, expand=0, flip=0, jitter=0, mosaic=1.0, others=others)
    pixels, target = t.joint(marked(240, 320, CORNERS[1:]), annotated_boxes(CORNERS[1:], [0]), np.random.default_rng(3))
    assert len(calls) == 3 and target.labels.tolist() == [0, 0, 0, 0]
    for x0, y0, x1, y1 in target.boxes.round().astype(int).tolist():
        inside = pixels[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
        assert inside.size and (inside[..., 0] > 200).all() and (inside[..., 1] < 60).all()
    with pytest.raises(ImageError):
        t.joint(b"broken", both, np.random.default_rng(0))
    with pytest.raises(SettingsError):
        TrainBoxes(GREY, mosaic=0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 8))
def test_a_crop_holds_the_centre_of_an_object_and_lies_in_the_window(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = annotated_boxes(random_boxes(rng, count), rng.integers(0, 3, count), rng.random(count) < 0.3)
    limits = (-20.0, -10.0, 130.0, 110.0)
    left, top, right, bottom = crop_window(limits, boxes, rng)
    assert limits[0] <= left < right <= limits[2] + 1e-9 and limits[1] <= top < bottom <= limits[3] + 1e-9
    seen = seen_boxes(boxes, (left, top, right, bottom), (96, 80))
    assert (seen.boxes >= 0).all() and (seen.boxes <= [80, 96, 80, 96]).all()
    if (left, top, right, bottom) != limits and not boxes.crowd.all():
        objects = boxes.corners[~boxes.crowd]
        centres = (objects[:, :2] + objects[:, 2:]) / 2
        assert ((centres >= (left, top)) & (centres <= (right, bottom))).all(1).any()


def test_boxes_are_clipped_dropped_and_ignored() -> None:
    corners = [(10, 10, 30, 30), (35, 10, 60, 30), (5, 5, 5.2, 30), (30, 30, 90, 90)]
    seen = seen_boxes(annotated_boxes(corners, [0, 1, 2, 1], [0, 0, 0, 1]), (0, 0, 40, 40), (80, 40))
    # the second's centre is outside, the third is thin, the crowd stays in part; pixels are 2 high and 1 wide
    assert seen.labels.tolist() == [0, IGNORED]
    assert seen.boxes.tolist() == [[10, 20, 30, 60], [30, 60, 40, 80]]


def test_colours_change_and_nothing_else() -> None:
    t = TrainBoxes(GREY, crop=0, expand=0, flip=0)
    plain = TrainBoxes(GREY, crop=0, expand=0, flip=0, jitter=0)
    data, boxes = marked(240, 320, CORNERS), annotated_boxes(CORNERS, [0, 1])
    results = [t.joint(data, boxes, np.random.default_rng(seed)) for seed in range(8)]
    expected = plain.joint(data, boxes, np.random.default_rng(0))
    assert all(np.array_equal(target.boxes, expected[1].boxes) for _, target in results)
    assert sum(not np.array_equal(pixels, expected[0]) for pixels, _ in results) > 4
    grey = TrainBoxes(Preprocess((32, 32), resize="pad", channels=1, mean=(0.5,), std=(0.5,)))
    assert all(grey.joint(data, boxes, np.random.default_rng(seed))[0].shape == (32, 32, 1) for seed in range(8))


@pytest.mark.parametrize(
    ("window", "at", "part"),
    [
        ((-10, -4, 46, 32), (10, 4), (0, 0, 40, 24)),  # the image within a larger page
        ((5, 3, 25, 21), (0, 0), (5, 3, 25, 21)),  # a part of it
        ((-3, 6, 37, 30), (3, 0), (0, 6, 37, 24)),  # over two edges
        ((8, -2, 44, 18), (0, 2), (8, 0, 40, 18)),
    ],
)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_window_shows_the_image_where_it_lies(
    window: tuple[int, int, int, int], at: tuple[int, int], part: tuple[int, int, int, int], scale: int
) -> None:
    """Pixel for pixel, of an image decoded at `scale` of the size that its boxes are in; else the mean colour."""
    stored = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    image = Image.fromarray(stored).resize((40 * scale, 24 * scale), Image.Resampling.NEAREST)
    target = (window[3] - window[1], window[2] - window[0])
    nearest = Preprocess((96, 80), "squash", mean=(0.5, 0.25, 1.0), std=(0.5,) * 3, interpolation="nearest")
    page = TrainBoxes(nearest)._seen(image, (0, 0, 40 * scale, 24 * scale), (24, 40), window, target)
    expected = np.full((*target, 3), (128, 64, 255), np.uint8)
    left, top, right, bottom = part
    expected[at[1] : at[1] + bottom - top, at[0] : at[0] + right - left] = stored[top:bottom, left:right]
    assert np.array_equal(np.asarray(page), expected)
