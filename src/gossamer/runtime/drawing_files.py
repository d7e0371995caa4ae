"""The files that drawings are written to. Needs pillow alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from gossamer.errors import InputError
from gossamer.runtime.predict import find_images

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
QUALITY = 92  # of JPEG: sharp edges of lines and letters


def drawing_places(paths: Iterable[str | Path], folder: Path) -> dict[str, Path]:
    """Where the drawing of each image of `paths` goes, by the image's path. Raises InputError."""
    places: dict[str, Path] = {}
    drawn_from: dict[Path, str] = {}
    for path in map(Path, paths):
        for file, _ in find_images(path):
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            place = folder / (name if name.suffix.lower() in FORMATS else f"{name}.png")
            if drawn_from.setdefault(place, str(file)) != str(file):
                raise InputError(
                    f"{file} and {drawn_from[place]}: both drawn to {place}",
                    "different names",
                    "draw into separate folders",
                )
            places[str(file)] = place
    inputs = {_real(file) for file in places}
    for place in places.values():
        if _real(place) in inputs:
            raise InputError(f"{place}: is an input image", "another folder", "draw elsewhere")
    return places


def _real(path: str | Path) -> str:
    """Where a path leads; the path itself where it can lead nowhere: whoever opens it says why."""
    try:
        return os.path.realpath(path)  # Path.resolve raises RuntimeError for a circle of links
    except ValueError:  # a null character
        return os.fspath(path)


def encoded(image: Image.Image, place: Path) -> bytes:
    """The image in the format that the name of `place` asks for."""
    file = io.BytesIO()
    image.save(file, FORMATS[place.suffix.lower()], quality=QUALITY)
    return file.getvalue()
