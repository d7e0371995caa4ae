"""Predictions for many files: folders walked, images in batches, unreadable ones reported."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import ImageError
from gossamer.host.progress import SILENT, Progress
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES, Placement, Preprocess
from gossamer.predictions.classes import Classification, check_top
from gossamer.predictions.limits import OWN, DecodingLimits
from gossamer.predictions.postprocess import Prediction
from gossamer.runtime.model import Model

ReadImage = tuple[str, NDArray[np.uint8], Placement]  # name, pixels, where the image is in them


def predict_files(
    model: Model,
    paths: Iterable[str | os.PathLike[str]],
    top: int = 1,
    batch: int = 32,
    progress: Progress = SILENT,
    limits: DecodingLimits = OWN,
) -> Iterator[Prediction]:
    """A prediction for each image of `paths`, in their order; folders are walked in the order of their names.

    An image that cannot be read, and a folder without images, gives a prediction with `error`. limits: in place of the
    model's own thresholds. Raises ModelFileError for a file without metadata, InputError.
    """
    preprocess = model.need_metadata().preprocess
    check_top(top, batch)
    limits.check(model.need_metadata().heads, top)
    files = [file for path in paths for file in find_images(Path(path))]

    def predictions() -> Iterator[Prediction]:
        part: list[ReadImage | Classification] = []
        for done, (file, problem) in enumerate(progress.track(files, len(files), "images"), start=1):
            part.append(_read_image(preprocess, file, problem))
            if len(part) == batch or done == len(files):
                good = [item for item in part if not isinstance(item, Classification)]
                predicted = iter(model.predict_pixels(good, top, limits) if good else ())
                yield from [item if isinstance(item, Classification) else next(predicted) for item in part]
                part = []

    return predictions()


def readable_pixels(
    preprocess: Preprocess, paths: Iterable[str | os.PathLike[str]]
) -> Iterator[tuple[NDArray[np.uint8] | None, str]]:
    """Pixels of each image of files and folders, or None and the reason."""
    for file, problem in (item for path in paths for item in find_images(Path(path))):
        image = _read_image(preprocess, file, problem)
        yield (None, image.error) if isinstance(image, Classification) else (image[1], "")


def _read_image(preprocess: Preprocess, file: Path, problem: str) -> ReadImage | Classification:
    """The pixels of an image and their place, or the prediction that says why there are none."""
    if problem:
        return Classification(str(file), (), (), problem)
    try:
        return str(file), *preprocess.read(file)
    except ImageError as error:
        return Classification(str(file), (), (), str(error))


def find_images(path: Path) -> list[tuple[Path, str]]:
    """(file, "") for each image in a folder, sorted, hidden ones left out; a file stands for itself."""
    if not path.is_dir():
        return [(path, "")]
    files = []
    for folder, names, entries in os.walk(path):
        names[:] = sorted(name for name in names if not is_hidden(name))
        files += [
            (Path(folder, name), "")
            for name in sorted(entries)
            if not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return files or [(path, f"{path}: the folder holds no images")]
