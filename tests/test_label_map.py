"""Which class each value or colour of a mask is: by place in the list of classes, beside a value to ignore."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.data.masks.classes import label_map_of, numbered
from gossamer.data.masks.classfiles import CITYSCAPES_NAMES
from gossamer.data.masks.open import _label_map
from gossamer.errors import DataError, ImageError
from gossamer.predictions.masks import IGNORED


def grey(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], np.uint8))


@pytest.mark.parametrize(
    ("ignore_index", "classes", "values", "expected"),
    [
        (None, ("a", "b", "c"), (0, 1, 2, 255), [0, 1, 2, IGNORED]),
        (1, ("a", "c"), (0, 1, 2, 255), [0, IGNORED, 1, IGNORED]),
        (0, ("b", "c"), (0, 1, 2, 255), [IGNORED, 0, 1, IGNORED]),
        (9, ("a", "b", "c"), (0, 2, 9, 255), [0, 2, IGNORED, IGNORED]),
        (255, ("a", "b", "c"), (0, 2, 255), [0, 2, IGNORED]),
    ],
)
def test_values_are_places_in_the_list_of_classes(
    ignore_index: int | None, classes: tuple[str, ...], values: tuple[int, ...], expected: list[int]
) -> None:
    label_map = label_map_of([("a", None), ("b", None), ("c", None)], ignore_index)
    assert label_map.classes == classes
    assert label_map.mask(grey(*values), "m").tolist() == [expected]
    for wrong in {3, 9, 254} - {ignore_index}:
        with pytest.raises(ImageError, match=f"1 pixel has the value {wrong}, which is no class"):
            label_map.mask(grey(0, wrong), "m")


def test_colours_are_found_in_any_order_and_grey_ones_are_values() -> None:
    label_map = label_map_of([("sky", (9, 0, 0)), ("road", (0, 0, 9)), ("void", (0, 9, 0)), ("car", (1, 2, 3))], 2)
    assert label_map.classes == ("sky", "road", "car")
    pixels = np.array([[(1, 2, 3), (0, 9, 0), (0, 0, 9), (9, 0, 0)]], np.uint8)
    assert label_map.mask(Image.fromarray(pixels), "m").tolist() == [[2, IGNORED, 1, 0]]
    with pytest.raises(ImageError, match="1 pixel has the colour 9 9 9"):
        label_map.mask(Image.fromarray(np.full((1, 1, 3), 9, np.uint8)), "m")
    levels = label_map_of([("off", (0, 0, 0)), ("on", (200, 200, 200))], None)
    assert levels.mask(grey(0, 200, 255), "m").tolist() == [[0, 1, IGNORED]]
    with pytest.raises(ImageError, match="the value 1, which is no class"):
        levels.mask(grey(0, 1), "m")


@pytest.mark.parametrize("ignore_index", [-1, 256])
def test_a_value_to_ignore_is_one_of_a_byte(ignore_index: int) -> None:
    with pytest.raises(DataError, match=f"ignore_index {ignore_index}; allowed: 0 to 255"):
        label_map_of([("a", None), ("b", None)], ignore_index)


def test_classes_without_names_are_called_by_their_values() -> None:
    assert [name for name, _ in numbered(3, None)] == ["0", "1", "2"]
    assert [name for name, _ in numbered(3, 1, ("a", "b", "c"))] == ["a", "1", "b", "c"]
    assert [name for name, _ in numbered(3, 3, ("a", "b"))] == ["a", "b", "2", "3"]
    assert [name for name, _ in numbered(3, 4)] == ["0", "1", "2"]


def test_a_label_map_takes_the_order_of_other_classes() -> None:
    label_map = label_map_of([("a", None), ("void", None), ("b", None), ("c", None)], 1)
    ordered = label_map.ordered(("c", "a", "b"))
    assert ordered.classes == ("c", "a", "b")
    assert ordered.mask(grey(0, 1, 2, 3, 255), "m").tolist() == [[1, IGNORED, 2, 0, IGNORED]]
    with pytest.raises(ImageError, match="the value 4"):
        ordered.mask(grey(4), "m")
    with pytest.raises(DataError, match="masks of the classes a, b, c; allowed: the classes a, b"):
        label_map.ordered(("a", "b"))


def test_the_first_training_mask_tells_of_which_set_they_are(tmp_path: Path) -> None:
    masks: Any = SimpleNamespace(root=tmp_path, paths=["a.png", "b_gtFine_labelTrainIds.png", "c.png"])
    assert _label_map(masks, [1], None, None, (), None, []).classes == tuple(CITYSCAPES_NAMES)
    assert _label_map(masks, [1, 0], 0, None, (), None, []).classes == tuple(CITYSCAPES_NAMES[1:])
    assert _label_map(masks, [0, 1], None, 3, (), None, []).classes == ("0", "1", "2")
    given = label_map_of([("a", None), ("b", None)], None)
    assert _label_map(masks, [2], None, None, (), given, []) is given
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    assert _label_map(masks, [1], None, 3, ("car", "road", "sky"), given, []).classes == ("car", "road", "sky")
    with pytest.raises(DataError, match="its classes file has 3 classes; allowed: num_classes 4"):
        _label_map(masks, [1], None, 4, (), None, [])
