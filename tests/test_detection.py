"""Detection: anchors, decoding, matching, losses, transforms, scores, and the paper's counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.answers.anchors import AnchorSpec, Level, anchors, ssd_anchors
from gossamer.answers.boxes import Decoding, decode, detections, nms, on_input, on_picture, pairwise_iou
from gossamer.errors import SettingsError
from gossamer.images import Preprocess

SPEC = ssd_anchors((64, 96), [(4, 6), (2, 3), (1, 2)])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


def random_boxes(rng: np.random.Generator, count: int, side: float = 100) -> np.ndarray[Any, np.dtype[np.float32]]:
    corner = rng.uniform(0, side * 0.7, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(side * 0.02, side * 0.5, (count, 2))], 1).astype(np.float32)


# answers


def test_anchors_lie_level_by_level_row_by_row_and_shape_by_shape() -> None:
    spec = AnchorSpec((20, 60), (Level((2, 3), ((8.0, 4.0), (5.0, 6.0))), Level((1, 1), ((7.0, 9.0),))))
    expected = [
        [x, y, w, h] for y in (5, 15) for x in (10, 30, 50) for w, h in ((8, 4), (5, 6))
    ] + [[30, 10, 7, 9]]  # fmt: skip
    assert anchors(spec).tolist() == expected and spec.count == 13


def test_ssd_anchors_have_the_papers_scales_and_ratios() -> None:
    first, second, last = ssd_anchors((300, 300), [(10, 10), (5, 5), (1, 1)], (0.2, 0.9)).levels
    assert [len(level.shapes) for level in (first, second, last)] == [3, 6, 6]
    assert first.shapes[1] == pytest.approx((60 * math.sqrt(2), 60 / math.sqrt(2)))
    s, after = 300 * 0.55, 300 * 0.9
    assert second.shapes[0] == pytest.approx((s, s)) and second.shapes[1] == pytest.approx((math.sqrt(s * after),) * 2)
    assert second.shapes[5] == pytest.approx((s / math.sqrt(3), s * math.sqrt(3)))
    assert last.shapes[1] == pytest.approx((300 * math.sqrt(0.9),) * 2)


def test_a_spec_travels_as_json() -> None:
    assert AnchorSpec.from_json(SPEC.to_json()) == SPEC
    assert Decoding.from_json(Decoding(iou=0.6).to_json()) == Decoding(iou=0.6)


@pytest.mark.parametrize(
    "change",
    [
        {"input": [0, 5]},
        {"input": [5.0, 5]},
        {"levels": []},
        {"levels": [{"size": [1, 1], "shapes": []}]},
        {"levels": [{"size": [1, 1], "shapes": [[float("nan"), 1.0]]}]},
        {"levels": [{"size": [1, 1], "shapes": [[-1.0, 1.0]]}]},
        {"levels": [{"size": [4096, 4096], "shapes": [[1.0, 1.0]]}]},
        {"variances": [0.1, float("inf")]},
        {"more": 1},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        AnchorSpec.from_json({**SPEC.to_json(), **change})


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["input", "levels", "variances", ""]))
def test_hostile_json_is_an_error_or_a_spec(value: Any, key: str) -> None:
    for kind, good in ((AnchorSpec, SPEC.to_json()), (Decoding, Decoding().to_json())):
        try:
            kind.from_json({**good, key: value} if key else value)
        except SettingsError:
            continue
        assert key in good


def test_decoding_by_hand() -> None:
    # centre 10 + 0.1 * 2 * 8 = 11.6, 20 - 0.1 * 4 = 19.6; sides 8 * exp(0.2), 4 * exp(-0.2)
    found = decode(
        np.array([[2, -1, 1, -1]], np.float32), np.array([[10, 20, 8, 4]], np.float32), (0.1, 0.2)
    )  # fmt: skip
    w, h = 4 * math.exp(0.2), 2 * math.exp(-0.2)
    assert found[0].tolist() == pytest.approx([11.6 - w, 19.6 - h, 11.6 + w, 19.6 + h])


def slow_nms(boxes: Any, scores: Any, labels: Any, iou: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or pairwise_iou(boxes[[i]], boxes[[j]])[0, 0] <= iou for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_nms_is_that_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, labels = random_boxes(rng, 120), rng.integers(0, 3, 120)
    scores = rng.integers(0, 30, 120).astype(np.float32) / 30  # with ties
    assert nms(boxes, scores, labels, 0.4).tolist() == slow_nms(boxes, scores, labels, 0.4)


def test_nms_of_nothing() -> None:
    assert len(nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), 0.5)) == 0


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_detections_are_the_likeliest_boxes(score: str) -> None:
    logits = np.full((SPEC.count, 4 if score == "softmax" else 3), -9, np.float32)
    deltas = np.zeros((SPEC.count, 4), np.float32)
    if score == "softmax":
        logits[:, 0] = 9
    shift = int(score == "softmax")
    logits[7, 2 + shift], logits[8, 2 + shift], logits[100, 0 + shift] = 14, 13, 12
    if score == "softmax":
        logits[[7, 8, 100], 0] = -9
    found = detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99))
    assert found.labels.tolist() == [2, 2, 0]
    centre, side = anchors(SPEC)[100, :2], anchors(SPEC)[100, 2:]
    assert found.boxes[2].tolist() == pytest.approx([*(centre - side / 2), *(centre + side / 2)], rel=1e-5)
    assert len(detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99, limit=2)).scores) == 2
    one = detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99, candidates=1))
    assert one.labels.tolist() == [2, 0]


def test_outputs_that_are_not_finite_give_no_boxes() -> None:
    broken = np.full((SPEC.count, 4), np.nan, np.float32)
    assert len(detections(broken, np.zeros((SPEC.count, 3), np.float32), SPEC, Decoding()).scores) == 0
    huge = np.full((SPEC.count, 4), 1e30, np.float32)
    assert np.isfinite(detections(huge, np.zeros((SPEC.count, 3), np.float32), SPEC, Decoding()).boxes).all()


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_boxes_find_back_to_the_picture(resize: str) -> None:
    # a white rectangle on black: where it lies in the input's pixels is where the box is moved to
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[60:120, 90:210] = 255
    preprocess = Preprocess((64, 80), resize=resize, crop_pct=1.0)
    placed = preprocess.placed((200, 300))
    box = on_input(np.array([[90, 60, 210, 120]], np.float32), placed, (200, 300))
    rows, columns = np.nonzero(preprocess.pixels(picture)[..., 0] > 128)
    assert box[0].tolist() == pytest.approx([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], abs=0.6)
    assert on_picture(box, placed, (200, 300))[0].tolist() == pytest.approx([90, 60, 210, 120], abs=1e-3)
    outside = on_picture(np.array([[-500, -500, 500, 500]], np.float32), placed, (200, 300))
    assert outside.tolist() == [[0, 0, 300, 200]]
