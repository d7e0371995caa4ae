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
from gossamer.images.preprocess import Placement
from gossamer.predictions import boxes as decoding
from gossamer.predictions import masks
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.classes import NOT_FINITE
from gossamer.predictions.head import OutputHead

Outputs = dict[str, NDArray[np.float32]]
SHOWN = 0.3  # boxes of a lower score are not drawn


@dataclass(frozen=True)
class Detections:
    """The boxes of an image, likeliest first: (m, 4) float32 x0, y0, x1, y1 in pixels of the upright image.

    labels: class names. scores: 0..1. size: (height, width) of the image.
    """

    source: str
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    size: tuple[int, int]
    error: str = ""

    def text(self) -> str:
        """The prediction on one line: objects with a score of SHOWN or more."""
        rows = [(n, s, b) for n, s, b in zip(self.labels, self.scores, self.boxes.tolist()) if s >= SHOWN]
        shown = [f"{name} {score:.3f} [{' '.join(f'{x:.1f}' for x in box)}]" for name, score, box in rows]
        less = len(self.labels) - len(rows)
        return ", ".join([*shown, *([f"{less} below {SHOWN:g}"] if less else [])]) or "nothing"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = zip(self.labels, self.scores, self.boxes.tolist())
        detections = [{"class": name, "score": score, "box": box} for name, score, box in rows]
        return {"source": self.source, "size": list(self.size), "detections": detections, "error": self.error}

    def draw(self, image: Image.Image, classes: tuple[str, ...]) -> Image.Image:
        """The image with the boxes of a score of SHOWN or more, one colour per class."""
        page = image.convert("RGB")
        draw = ImageDraw.Draw(page)
        colours = masks.palette(len(classes))
        width = max(1, round(max(page.size) / 320))
        for name, score, box in zip(self.labels, self.scores, self.boxes.tolist()):
            if score < SHOWN:
                continue
            colour = tuple(colours[classes.index(name)].tolist())
            draw.rectangle(box, outline=colour, width=width)
            label = f"{name} {score:.2f}"
            left, top, right, bottom = draw.textbbox((box[0] + width, box[1] + width), label)
            draw.rectangle((left - width, top - width, right + width, bottom + width), fill=colour)
            dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128
            draw.text((box[0] + width, box[1] + width), label, fill="black" if dark else "white")
        return page


@dataclass(frozen=True)
class Segmentation:
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
        """The image with the classes laid over it."""
        return Image.fromarray(masks.overlay(np.asarray(image.convert("RGB")), self.mask))


def detected(head: OutputHead, raw: Outputs, place: Placement, source: str) -> Detections:
    """The boxes of one image, in its own pixels."""
    boxes = image_boxes(head, raw, place)
    finite = np.isfinite(raw["deltas"]).all() and np.isfinite(raw["logits"]).all()
    labels = tuple(head.classes[label] for label in boxes.labels.tolist())
    scores = tuple(boxes.scores.astype(float).tolist())
    return Detections(source, boxes.boxes, labels, scores, (place.height, place.width), "" if finite else NOT_FINITE)


def image_boxes(head: OutputHead, raw: Outputs, place: Placement) -> decoding.ScoredBoxes:
    """The boxes of one image in its own pixels, clipped to it, with class numbers; raw: of a batch of one."""
    spec, how = AnchorSpec.from_json(head.options["anchors"]), Decoding.from_json(head.options["decoding"])
    boxes = decoding.detections(raw["deltas"][0], raw["logits"][0], spec, how)
    return boxes._replace(boxes=decoding.on_picture(boxes.boxes, place))


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
