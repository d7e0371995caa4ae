"""Samples of several frames: one folder per class, in it one folder per sample, in that its images in their order.

All frames of a sample travel as one piece of bytes, the first image followed by the others and by an index, so that
what reads single images sees the first one. `FrameTransform` makes one tall array of them, frame below frame.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.augment import ImageLike, Pixels, Transform
from gossamer.data.folder import folders, hidden_notes, no_images, printable_path, split_folders, walk_files
from gossamer.data.source import Indices, shown
from gossamer.data.table import StrPath, Table
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted
from gossamer.images.decode import printable
from gossamer.images.preprocess import IMAGE_SUFFIXES, read_file

MAGIC = b"gossamer-frames1"
MOST_FRAMES = 256
ALLOWED = "one folder per class, in it one folder of frames per sample, alone or under train/ and val/"


def pack_frames(images: list[bytes]) -> bytes:
    """Encoded images, concatenated, their lengths (uint64, little-endian), how many (uint32), and MAGIC."""
    lengths = struct.pack(f"<{len(images)}Q", *map(len, images))
    return b"".join([*images, lengths, struct.pack("<I", len(images)), MAGIC])


def unpack_frames(data: bytes) -> list[bytes]:
    """The frames that `pack_frames` packed. Raises ImageError for anything else."""
    tail = len(data) - len(MAGIC) - 4
    if tail >= 0 and data.endswith(MAGIC):
        (count,) = struct.unpack_from("<I", data, tail)
        start = tail - 8 * count
        if 0 < count <= MOST_FRAMES and start >= 0:
            lengths = struct.unpack_from(f"<{count}Q", data, start)
            if sum(lengths) == start:
                ends = np.cumsum(lengths).tolist()
                return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    raise ImageError(
        "a sample that is no folder of frames", ALLOWED, "sort the images into folders, or leave frames out"
    )


def frame_indices(available: int, count: int) -> list[int]:
    """The indices of `count` frames, evenly spread over those available; where there are fewer, some come twice."""
    return [index * available // count for index in range(count)]


class FrameStore:
    """`count` frames of each row's files; paths are relative to `root`, or absolute."""

    def __init__(self, root: Path, samples: list[list[str]], count: int) -> None:
        self.root, self.samples, self.count = os.fspath(root), samples, count

    def read(self, row: int) -> bytes:
        """The frames of a row, packed. Raises OSError, ImageError."""
        paths = self.samples[row]
        images = {
            index: read_file(Path(self.root, paths[index])) for index in set(frame_indices(len(paths), self.count))
        }
        return pack_frames([images[index] for index in frame_indices(len(paths), self.count)])

    def stats(self, rows: Indices) -> Iterator[tuple[int, int]]:
        """(bytes of all frames, their latest time in ns) of each row, (-1, 0) where one is missing."""
        for row in rows.tolist():
            try:
                stats = [Path(self.root, path).stat() for path in self.samples[row]]
                yield sum(one.st_size for one in stats), max(one.st_mtime_ns for one in stats)
            except OSError:
                yield -1, 0

    def arrange(self, rows: Indices, rng: np.random.Generator) -> Indices:
        return rng.permutation(len(rows))


class FrameTransform:
    """A transform of single images on each frame of a sample, with the same draws: uint8 (frames * H, W, C)."""

    def __init__(self, inner: Transform, count: int) -> None:
        self.inner, self.count = inner, count

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.inner.shape
        return self.count * height, width, channels

    def __call__(self, source: ImageLike, rng: np.random.Generator | None = None) -> Pixels:
        """The result for packed frames. Raises ImageError."""
        assert isinstance(source, bytes)
        seed = 0 if rng is None else int(rng.integers(2**63))
        result: NDArray[np.uint8] = np.empty(self.shape, np.uint8)
        height = self.inner.shape[0]
        for index, image in enumerate(unpack_frames(source)):
            result[index * height : (index + 1) * height] = self.inner(image, np.random.default_rng(seed))
        return result

    def prepare(self, source: ImageLike) -> Pixels:
        """Settings refuse a cache with frames."""
        raise ImageError("a cache of frames", "a cache of single images", "leave the cache out")

    def vary(self, prepared: Pixels, rng: np.random.Generator) -> Pixels:
        """As `prepare`."""
        raise ImageError("a cache of frames", "a cache of single images", "leave the cache out")

    def key(self) -> dict[str, Any]:
        return {"frames": self.count, **self.inner.key()}


def read_frames(root: StrPath, count: int, *, every_class: bool = False) -> Table:
    """The samples at `root`, of which `count` frames each are read. every_class: as in `read_table`. Raises DataError."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: {'is no folder' if root.exists() else 'does not exist'}", ALLOWED, "check the path")
    parts = _splits(root)
    notes: list[str] = []
    skipped: list[str] = []
    rows: list[tuple[str, str, str, list[str]]] = []  # display path, class, split, frames
    loose = 0
    others: Counter[str] = Counter()
    for split, top in parts.items():
        for folder in folders(top, skipped):
            before = len(rows)
            for sample in folders(folder, skipped):
                files = [os.path.relpath(path, root) for path in walk_files(sample, notes, skipped)]
                images = sorted((path for path in files if Path(path).suffix.lower() in IMAGE_SUFFIXES), key=_natural)
                others.update(ending for path in files if (ending := Path(path).suffix.lower()) not in IMAGE_SUFFIXES)
                if images:
                    name = printable_path(os.path.relpath(sample, root).replace(os.sep, "/"))
                    rows.append((name, folder.name, split, images))
                else:
                    notes.append(f"{sample}: holds no images, so it is no sample")
            loose += sum(1 for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
            if len(rows) == before:
                notes.append(f"{folder}: holds no folder of frames, so it is no class")
    if not rows:
        reason = (
            f"holds {counted(loose, 'image')} in class folders but no folders of frames" if loose else "holds no frames"
        )
        raise DataError(f"{root}: {reason}", ALLOWED, "put the frames of each sample into a folder of their own")
    if loose:
        notes.append(
            f"{root}: {counted(loose, 'image')} outside folders of frames {'is' if loose == 1 else 'are'} passed over"
        )
    if others:
        notes.append(f"{root}: {no_images(others)}")
    few = [name for name, _, _, images in rows if len(images) < count]
    if few:
        have = counted(len(few), "sample has", "samples have")
        notes.append(f"{have} fewer than {count} frames, of which some are seen twice: {shown(few)}")
    notes += hidden_notes(root, skipped)
    rows.sort(key=lambda row: row[0])
    order = sorted({name for _, name, _, _ in rows})
    number = {name: index for index, name in enumerate(order)}
    table = Table(
        "folders of frames",
        tuple(printable(name) for name in order),
        [name for name, _, _, _ in rows],
        np.array([number[name] for _, name, _, _ in rows], dtype=np.int64),
        [split for _, _, split, _ in rows],
        FrameStore(root, [images for _, _, _, images in rows], count),
        notes=notes,
    )
    table.unseen = every_class
    return table


def _splits(root: Path) -> dict[str, Path]:
    """The folders of the splits. A class may be called "train": its samples hold images, those of a split folders."""
    parts = split_folders(root)
    deep = {split: top for split, top in parts.items() if any(any(folders(name)) for name in folders(top))}
    return deep if "train" in deep or "val" in deep else {"": root}


def _natural(path: str) -> list[tuple[int, str]]:
    """Frame 10 behind frame 9, whether the numbers have leading zeros or not."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path)]
