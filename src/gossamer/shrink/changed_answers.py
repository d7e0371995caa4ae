"""Boxes and masks that changed from one file to another: the validation images on which they differ the most, side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

from gossamer.data.source import Source
from gossamer.errors import GossamerError
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.images.preprocess import decode
from gossamer.predictions.postprocess import Prediction, Several
from gossamer.predictions.spatial import Detections, Segmentation
from gossamer.report.photos import photo_of
from gossamer.runtime.drawing import draw_prediction
from gossamer.runtime.model import Model
from gossamer.shrink.calibration import spread

COMPARED = 64  # validation images, at most
SHOWN = 8
SIDE = 320  # pixels of a picture
OVERLAP = 0.5  # intersection over union from which two boxes of a class are one and the same
KINDS = ("detect", "segment")


class ChangedAnswer(NamedTuple):
    """An image with what both files predict drawn into it. part: of the boxes or of the pixels that changed. said: in words."""

    name: str
    before: str
    after: str
    pixelated: bool
    part: float
    said: str


def shows_places(model: Model) -> bool:
    """Whether a model predicts boxes or masks, alone or beside others."""
    return any(head.kind in KINDS for head in model.need_metadata().heads)


def changed_answers(
    before: Model, after: Model, images: Source, progress: Progress
) -> tuple[list[ChangedAnswer], int, int]:
    """The images that changed the most, how many changed, and how many were compared: evenly over `images`, COMPARED at most.

    before, after: models with a detector's or a segmenter's head. An image that cannot be read is left out.
    """
    found: list[tuple[float, int, str]] = []
    compared = 0
    places = [int(place) for place in spread(len(images), COMPARED)]
    for place in progress.track(places, len(places), "comparing boxes and masks"):
        try:
            encoded = images.read(place)
            part, said = _difference(before.predict(encoded), after.predict(encoded))
        except GossamerError:  # the scores tell of images that cannot be read
            continue
        compared += 1
        if part > 0:
            found.append((part, place, said))
    found.sort(key=lambda one: (-one[0], one[1]))
    shown = []
    for part, place, said in found[:SHOWN]:
        encoded = images.read(place)
        image = decode(encoded)
        first, second = (
            photo_of(draw_prediction(image, model.predict(encoded), model.need_metadata().heads), SIDE)
            for model in (before, after)
        )
        shown.append(ChangedAnswer(images.names[place], first.uri, second.uri, first.pixelated, part, said))
    return shown, len(found), compared


def _difference(before: Prediction, after: Prediction) -> tuple[float, str]:
    """The part that changed, 0 to 1, and in words; of several heads the one that changed the most."""
    if isinstance(before, Several) and isinstance(after, Several):
        parts = [
            _difference(one, after.predictions[name])
            for name, one in before.predictions.items()
            if name in after.predictions
        ]
        return max(parts, default=(0.0, ""))
    if isinstance(before, Detections) and isinstance(after, Detections):
        return boxes_changed(_boxes(before), _boxes(after))
    if isinstance(before, Segmentation) and isinstance(after, Segmentation):
        return pixels_changed(before.mask, after.mask)
    return 0.0, ""


def _boxes(prediction: Detections) -> list[tuple[str, tuple[float, ...]]]:
    """The boxes that are drawn."""
    rows = zip(prediction.labels, prediction.scores, prediction.boxes.tolist(), strict=True)
    return [(label, tuple(corners)) for label, score, corners in rows if score >= prediction.shown]


def boxes_changed(
    before: list[tuple[str, tuple[float, ...]]], after: list[tuple[str, tuple[float, ...]]]
) -> tuple[float, str]:
    """The part of all boxes, (class, (x1, y1, x2, y2)), that have no counterpart in the other list."""
    left = list(after)
    gone = 0
    for label, corners in before:
        best = max(
            (one for one in left if one[0] == label and overlap(corners, one[1]) >= OVERLAP),
            key=lambda one: overlap(corners, one[1]),
            default=None,
        )
        if best is None:
            gone += 1
        else:
            left.remove(best)
    total = len(before) + len(after)
    return (
        (gone + len(left)) / max(1, total),
        f"{gone} of {counted(len(before), 'box')} {'is' if gone == 1 else 'are'} gone, {len(left)} {'is' if len(left) == 1 else 'are'} new",
    )


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return shared / max(1e-9, sum(areas) - shared)


def pixels_changed(before: Any, after: Any) -> tuple[float, str]:
    """The part of the pixels that have another class."""
    if before.shape != after.shape:
        return 1.0, "masks of another size"
    part = float((before != after).mean())
    return part, f"{100 * part:.1f} % of the pixels have another class"
