"""The best and the worst images of a segmenter: the predicted mask over the image, and its wrong pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.data.source import Source
from gossamer.images.preprocess import Preprocess, decode
from gossamer.predictions.masks import IGNORED, Mask, mask_of_logits, overlay, palette
from gossamer.report.gallery import data_uri
from gossamer.report.photos import NEAREST, SMOOTH, Photo, ends, fitted, missed_last, photo_of
from gossamer.tasks.segmentation.scores import SegmentationEvaluation, confusion_of
from gossamer.training.evaluate import Forward

EXAMPLES = 6  # best, and as many worst
SIDE = 264  # pixels of the longer side
PALE = 0.55  # how far the photograph under the mistakes is turned to white, so that any colour stands out


@dataclass(frozen=True)
class SegmentationExample:
    """An image under its true mask, under its predicted one, and its wrong pixels. miou, wrong: fractions 0..1; wrong: of
    the pixels that have a class. classes: those in the true and in the predicted mask."""

    name: str
    predicted: Photo
    mistakes: Photo
    miou: float
    wrong: float
    classes: tuple[int, ...]
    truth: Photo | None = None


@dataclass(frozen=True)
class SegmentationDetails:
    """What only a segmenter's report shows."""

    worst: tuple[SegmentationExample, ...]
    best: tuple[SegmentationExample, ...]


def segmentation_details(
    forward: Forward, source: Source, scores: SegmentationEvaluation, preprocess: Preprocess
) -> SegmentationDetails:
    """The examples of the scored images, through the network once more."""
    worst, best = ends(scores.image_miou, np.zeros(len(scores.names), np.int64), EXAMPLES)
    worst, best = missed_last(worst, best, (scores.image_miou > 0).tolist())
    place = {name: index for index, name in enumerate(source.names)}

    def examples(chosen: Sequence[int]) -> tuple[SegmentationExample, ...]:
        return tuple(
            example(forward, source, place[scores.names[i]], float(scores.image_miou[i]), preprocess) for i in chosen
        )

    return SegmentationDetails(examples(worst), examples(best))


def example(forward: Forward, source: Source, index: int, miou: float, preprocess: Preprocess) -> SegmentationExample:
    """One image of `source`. Raises ImageError."""
    encoded, truth = source.read(index), source.target(index)
    pixels, place = preprocess.read(encoded)
    raw = forward(preprocess.normalise(pixels[None]))
    logits = raw["logits"] if isinstance(raw, dict) else raw
    predicted = mask_of_logits(logits[0], (place.height, place.width), preprocess.size, place)
    counts = confusion_of(truth, predicted, len(source.classes))
    image = decode(encoded, channels=3)
    present = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    return SegmentationExample(
        source.names[index],
        _photo(image, predicted),
        wrong_pixels(image, truth, predicted),
        miou,
        float(1 - counts.trace() / max(1, counts.sum())),
        tuple(present.tolist()),
        _photo(image, truth),
    )


def wrong_pixels(image: Image.Image, truth: Mask, predicted: Mask) -> Photo:
    """The image, pale and grey, with each pixel that is wrong in the colour of its true class."""
    small = image.resize(fitted(*image.size, SIDE), SMOOTH)
    grey = np.asarray(small.convert("L"), np.float32)[..., None].repeat(3, axis=2)
    page = (grey * (1 - PALE) + 255 * PALE).round().astype(np.uint8)
    true, wrong = _small(truth, small.size), _small((truth != predicted) & (truth != IGNORED), small.size)
    page[wrong] = palette(IGNORED)[np.minimum(true[wrong], IGNORED - 1)]
    return _png(page, image)


def _photo(image: Image.Image, predicted: Mask) -> Photo:
    if max(image.size) * 2 > SIDE:
        small = image.resize(fitted(*image.size, SIDE), SMOOTH)
        photo = photo_of(Image.fromarray(overlay(np.asarray(small), _small(predicted, small.size))), SIDE)
        return Photo(photo.uri, image.height, image.width, False)
    return _png(overlay(np.asarray(image), predicted), image)


def _small(mask: NDArray[np.uint8] | NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, NEAREST))
    return values.astype(bool) if mask.dtype == np.bool_ else values


def _png(pixels: NDArray[np.uint8], image: Image.Image) -> Photo:
    """Sharp edges are kept."""
    uri = data_uri(Image.fromarray(pixels).quantize(128, dither=Image.Dither.NONE), "PNG")
    return Photo(uri, image.height, image.width, max(image.size) * 2 <= SIDE)
