"""Boxes and masks as predictions for people: on one line, as plain values, drawn on the image."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gossamer.errors import SettingsError
from gossamer.host.shown import Brief
from gossamer.images.preprocess import Placement
from gossamer.predictions import boxes as decoding
from gossamer.predictions import masks
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.captions import draw_label, draw_lines, enlarged, line_width
from gossamer.predictions.classes import NOT_FINITE
from gossamer.predictions.head import OutputHead
from gossamer.predictions.limits import OWN, DecodingLimits

Outputs = dict[str, NDArray[np.float32]]
SHOWN = 0.3  # boxes of a lower score are neither printed nor drawn, unless a threshold is set


@dataclass(frozen=True, repr=False)
class Detections(Brief):
    """The boxes of an image, likeliest first: (m, 4) float32 x0, y0, x1, y1 in pixels of the upright image.

    labels: class names. scores: 0..1. size: (height, width) of the image. shown: the minimum score of those that are
    printed and drawn.
    """

    source: str
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    size: tuple[int, int]
    error: str = ""
    shown: float = SHOWN

    def text(self) -> str:
        """The prediction on one line: objects with a score of `shown` or more."""
        rows = self._shown_rows()
        shown = [f"{name} {score:.3f} [{' '.join(f'{x:.1f}' for x in box)}]" for name, score, box in rows]
        less = len(self.labels) - len(rows)
        return ", ".join([*shown, *([f"{less} below {self.shown:g}"] if less else [])]) or "nothing"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = zip(self.labels, self.scores, self.boxes.tolist())
        detections = [{"class": name, "score": score, "box": box} for name, score, box in rows]
        return {"source": self.source, "size": list(self.size), "detections": detections, "error": self.error}

    def draw(self, image: Image.Image, classes: tuple[str, ...]) -> Image.Image:
        """The image with the boxes of a score of `shown` or more, one colour per class, the likeliest on top.

        image: upright, or `captions.enlarged`, which a small one becomes.
        """
        page = enlarged(image)
        factor = page.width / self.size[1]
        draw, colours, width = ImageDraw.Draw(page), masks.palette(len(classes)), line_width(page.size)
        labels = []
        for name, score, box in reversed(self._shown_rows()):
            colour = _colour(colours, classes.index(name))
            corners = [edge * factor for edge in box]
            draw.rectangle(corners, outline=colour, width=width)
            labels.append(((corners[0], corners[1]), f"{name} {score:.2f}", colour))
        for corner, text, colour in labels:
            draw_label(page, corner, text, colour)
        return page

    def _shown_rows(self) -> list[tuple[str, float, list[float]]]:
        """(label, score, box) of a score of `shown` or more, likeliest first."""
        rows = zip(self.labels, self.scores, self.boxes.tolist())
        return [(name, score, box) for name, score, box in rows if score >= self.shown]


@dataclass(frozen=True, repr=False)
class Segmentation(Brief):
    """The class of each pixel of an image: uint8 (H, W) of the upright image's size."""

    source: str
    mask: NDArray[np.uint8]
    classes: tuple[str, ...]
    error: str = ""

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of the pixels of each class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes)) / max(1, self.mask.size)
        return {self.classes[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}

    def text(self) -> str:
        """The prediction on one line."""
        return ", ".join(f"{name} {fraction:.1%}" for name, fraction in self.fractions.items())

    def png(self) -> bytes:
        """The mask as an index PNG with the palette of the classes."""
        image = Image.fromarray(self.mask)
        image.putpalette(masks.palette(len(self.classes)).tobytes())
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the mask as an index PNG in base64."""
        return {
            "source": self.source,
            "size": list(self.mask.shape),
            "shares": self.fractions,
            "mask": base64.b64encode(self.png()).decode(),
            "error": self.error,
        }

    def draw(self, image: Image.Image, classes: tuple[str, ...]) -> Image.Image:
        """The image with the classes laid over it, and a legend of those that occur, largest first, in the lower left corner."""
        page = enlarged(image)
        mask = self.mask.repeat(page.height // self.mask.shape[0], 0).repeat(page.width // self.mask.shape[1], 1)
        page = Image.fromarray(masks.overlay(np.asarray(page), mask))
        colours = masks.palette(len(self.classes))
        present = list(self.fractions)
        draw_lines(page, present, [_colour(colours, self.classes.index(name)) for name in present], below=True)
        return page


def _colour(colours: NDArray[np.uint8], label: int) -> tuple[int, int, int]:
    red, green, blue = colours[label].tolist()
    return red, green, blue


def detected(head: OutputHead, raw: Outputs, place: Placement, source: str, limits: DecodingLimits = OWN) -> Detections:
    """The boxes of one image, in its own pixels."""
    boxes = image_boxes(head, raw, place, limits)
    finite = np.isfinite(raw["deltas"]).all() and np.isfinite(raw["logits"]).all()
    labels = tuple(head.classes[label] for label in boxes.labels.tolist())
    scores = tuple(boxes.scores.astype(float).tolist())
    size, shown = (place.height, place.width), SHOWN if limits.threshold is None else limits.threshold
    return Detections(source, boxes.boxes, labels, scores, size, "" if finite else NOT_FINITE, shown)


def image_boxes(head: OutputHead, raw: Outputs, place: Placement, limits: DecodingLimits = OWN) -> decoding.ScoredBoxes:
    """The boxes of one image in its own pixels, clipped to it, with class numbers; raw: of a batch of one."""
    spec, how = AnchorSpec.from_json(head.options["anchors"]), limits.applied_to(head)
    boxes = decoding.detections(raw["deltas"][0], raw["logits"][0], spec, how)
    return boxes._replace(boxes=decoding.to_image(boxes.boxes, place))


def segmented(head: OutputHead, raw: Outputs, place: Placement, source: str) -> Segmentation:
    """The mask of one image, of its own size."""
    finite = bool(np.isfinite(raw["logits"]).all())
    return Segmentation(source, image_mask(head, raw, place), head.classes, "" if finite else NOT_FINITE)


def image_mask(head: OutputHead, raw: Outputs, place: Placement) -> NDArray[np.uint8]:
    """Class numbers, uint8 (H, W) of the image's size; raw: of a batch of one."""
    height, width = head.options["size"]
    return masks.mask_of_logits(raw["logits"][0], (place.height, place.width), (height, width), place)


def check_detect(head: OutputHead) -> None:
    """Raises SettingsError unless the options are those of a detector."""
    if set(head.options) != {"anchors", "decoding"}:
        raise SettingsError("options of a detect head", "anchors, decoding", "fix them")
    AnchorSpec.from_json(head.options["anchors"])
    Decoding.from_json(head.options["decoding"])


def check_segment(head: OutputHead) -> None:
    """Raises SettingsError unless the options are those of a segmenter."""
    size = head.options.get("size")
    good = isinstance(size, list) and len(size) == 2 and all(type(side) is int and 8 <= side <= 4096 for side in size)
    if set(head.options) != {"size"} or not good:
        raise SettingsError("options of a segment head", "size: [height, width] of the input", "fix them")
    masks.check_classes(len(head.classes))
