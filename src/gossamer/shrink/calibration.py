"""The images that a network is calibrated with: a bounded number in memory, the others read when their turn comes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.source import Source
from gossamer.errors import DataError, ImageError, InputError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import counted
from gossamer.images.preprocess import Preprocess, read_file
from gossamer.runtime.predict import find_images

FEWEST = 8  # below it ranges would be guesses
FEW = 32  # images; fewer are noted
HELD_OUT = 4  # every fourth image is kept out of the calibration, to decide what helps
KEPT = 512  # images at most that stay in memory; equalisation, bias correction and rounding look at these alone
COMPARED = 20_000  # images at most that are compared with those to calibrate with
MOST_NOTES = 5  # skipped images that are named

Pixels = NDArray[np.uint8]
Reader = Callable[[], bytes]


@dataclass
class Calibration:
    """Normalised images (N, C, H, W). used: to calibrate with; held: to decide what helps, of which nothing is measured.

    rest: further ones of the count, in batches, read anew at each call; `later` is how many there are.
    """

    used: NDArray[np.float32]
    held: NDArray[np.float32]
    later: int
    rest: Callable[[], Iterator[NDArray[np.float32]]]


def calibration(
    readers: Sequence[tuple[str, Reader]],
    preprocess: Preprocess,
    count: int,
    notes: list[str],
    progress: Progress = SILENT,
    batch: int = 8,
) -> Calibration:
    """`count` of the images, evenly spread. readers: the name of each and what reads its bytes; notes: gets lines to tell.

    Raises InputError where too few can be read or they are all alike.
    """
    chosen = [readers[index] for index in spread(len(readers), count)]
    near = set(spread(len(chosen), KEPT))
    skipped: list[str] = []
    kept: list[Pixels] = []
    for index in progress.track(sorted(near), len(near), "images"):
        pixels = _pixels(*chosen[index], preprocess, skipped)
        if pixels is not None:
            kept.append(pixels)
    notes += [f"skipped: {line}" for line in skipped[:MOST_NOTES]]
    if len(skipped) > MOST_NOTES:
        notes.append(f"skipped: {counted(len(skipped) - MOST_NOTES, 'more image')} that cannot be read")
    if len(kept) < FEWEST:
        reason = f" ({skipped[0]})" if skipped else ""
        raise InputError(
            f"{counted(len(kept), 'image')} to calibrate with{reason}", f"{FEWEST} at least, better {FEW}", "give more"
        )
    if len({hashlib.sha256(pixels.tobytes()).digest() for pixels in kept}) < FEWEST:
        raise InputError("images to calibrate with that are all alike", f"{FEWEST} that differ", "give others")
    if len(kept) < FEW:
        notes.append(
            f"calibrated on {counted(len(kept), 'image')} only: with fewer than {FEW} the ranges are uncertain"
        )
    images = preprocess.normalise(np.stack(kept))
    far = [one for index, one in enumerate(chosen) if index not in near]

    def rest() -> Iterator[NDArray[np.float32]]:
        part: list[Pixels] = []
        for position, (name, reader) in enumerate(far, start=1):
            pixels = _pixels(name, reader, preprocess, [])
            if pixels is not None:
                part.append(pixels)
            if part and (len(part) == batch or position == len(far)):
                yield preprocess.normalise(np.stack(part))
                part = []

    held = images[HELD_OUT - 1 :: HELD_OUT]
    used = np.delete(images, np.s_[HELD_OUT - 1 :: HELD_OUT], axis=0)
    return Calibration(used, held, len(far), rest)


def _pixels(name: str, reader: Reader, preprocess: Preprocess, skipped: list[str]) -> Pixels | None:
    """The pixels of an image; where it cannot be read None, and the reason goes to `skipped`."""
    try:
        return preprocess.pixels(reader())
    except (ImageError, DataError) as error:
        text = str(error)
        skipped.append(text if name in text else f"{name}: {text}")
        return None


def files_to_read(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Reader]]:
    """The images of files and folders, by name; what a folder lacks is told when it is read."""

    def reader(path: Path, problem: str) -> Reader:
        def read() -> bytes:
            if problem:
                raise DataError(problem, "a folder with images", "check the path")
            return read_file(path)

        return read

    return [(str(path), reader(path, problem)) for root in paths for path, problem in find_images(Path(root))]


def images_to_read(source: Source) -> list[tuple[str, Reader]]:
    """The images of a source, by name."""

    def reader(index: int) -> Reader:
        return lambda: source.read(index)

    return [(name, reader(index)) for index, name in enumerate(source.names)]


def shared_with(readers: Sequence[tuple[str, Reader]], others: Sequence[Source]) -> int:
    """How many of the images are, byte for byte, among those of `others`, of which at most COMPARED are read."""
    own = {digest for _, reader in readers[:COMPARED] if (digest := _digest(reader))}
    theirs: set[bytes] = set()
    left = COMPARED
    for source in others:
        for index in spread(len(source), left):
            digest = _digest(lambda source=source, index=index: source.read(index))  # type: ignore[misc]
            if digest:
                theirs.add(digest)
        left -= min(left, len(source))
    return len(own & theirs)


def _digest(reader: Reader) -> bytes | None:
    try:
        return hashlib.sha256(reader()).digest()
    except (ImageError, DataError):
        return None


def spread(available: int, count: int) -> list[int]:
    """At most `count` positions of `available`, evenly spread."""
    count = min(available, count)
    return [index * available // count for index in range(count)] if count > 0 else []


def paths_of(images: Any) -> list[str]:
    """The paths that the argument `images` names: one, or several."""
    return [os.fspath(images)] if isinstance(images, (str, os.PathLike)) else [os.fspath(path) for path in images]
