"""Contact sheets, pixel by pixel, and the grey under the wrong pixels of a segmenter's report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from gossamer.predictions.gallery import Match
from gossamer.report.segmentation_examples import wrong_pixels
from gossamer.runtime.contact_sheets import FIT, GAP, TILE, _tile, contact_sheet
from gossamer.runtime.retrieval import SearchResult


def test_the_line_behind_the_query_lies_in_the_middle_of_the_gap(tmp_path: Path) -> None:
    Image.new("RGB", (TILE, TILE), "white").save(tmp_path / "q.png")
    drawn = np.asarray(contact_sheet(SearchResult(str(tmp_path / "q.png"), (Match("q.png", "", 1.0),)), tmp_path))
    middle = drawn[GAP : GAP + TILE, TILE + GAP : TILE + 2 * GAP].mean(axis=2)
    assert np.flatnonzero((middle < 255).all(axis=0)).tolist() == [GAP // 2]
    assert (middle[:, [k for k in range(GAP) if k != GAP // 2]] == 255).all()


def test_a_long_name_keeps_its_end_and_fills_the_line() -> None:
    name = "".join(chr(97 + k % 26) for k in range(FIT + 5))
    assert _tile(None, name) == _tile(None, "..." + name[8:]), "the dots and the last FIT - 3 letters"
    assert _tile(None, name[:FIT]) != _tile(None, "..." + name[3:FIT]), "a name that fits is not cut"


def test_right_pixels_are_pale_and_grey() -> None:
    truth = np.zeros((8, 8), np.uint8)
    photo = wrong_pixels(Image.new("RGB", (8, 8), (100, 100, 100)), truth, truth)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(photo.uri.split(",")[1]))).convert("RGB"))
    assert (pixels == round(100 * 0.45 + 255 * 0.55)).all()
