"""Prepared images in one memory-mapped file: decoded once, read back as pixels.

A record is what `Transform.prepare` gave: for evaluation and for padded or centre crops the final pixels, so that
cached and uncached results are the same bit by bit; for random resized crops the shrunk image. Images beyond the
size limit are prepared again each time, in the same way, so results do not depend on what is in the cache.

The file, little-endian: MAGIC; the length of the header (uint64); the header, JSON with the key and the number of
records; an index of 24 bytes a record (offset uint64, height, width, channels uint32, CRC-32 uint32), its own CRC-32
(uint32), and the pixels. A record of height 0 is not in the file.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from gossamer.data.augment import Transform
from gossamer.data.source import Source, digest, shown
from gossamer.errors import DataError, ImageError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import atomic_write, open_regular, remove_parts, user_cache
from gossamer.host.text import counted

MAGIC = b"gossamer-images2"  # 2: the orientation of an image stands in its XMP, too, however it is spelt
INDEX = np.dtype([("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("channels", "<u4"), ("crc", "<u4")])
_LARGEST_HEADER = 1 << 16
_ALLOWED = "a complete cache file"


def cache_key(source: Source, transform: Transform) -> str:
    """SHA-256 of all that decides the records: names, sizes and times of the images in their order, the preparation,
    and the versions of Pillow and of this format."""
    facts = json.dumps([transform.key(), PIL.__version__, MAGIC.decode()], sort_keys=True)
    stats = source.store.stats(source.rows)
    return digest([facts, *(f"{name}\0{size}\0{time}" for name, (size, time) in zip(source.names, stats, strict=True))])


class Cache:
    """An open cache file. Survives pickling: a worker process maps the file itself. Raises DataError on a bad file."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._map, self.index, self.start, self.limit = _opened(path, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.path, self.key)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def kept(self) -> int:
        """How many images the file holds."""
        return int(np.count_nonzero(self.index["height"]))

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """The prepared image (h, w, C), None where the file has none. Raises DataError where its checksum does not fit."""
        offset, height, width, channels, crc = self.index[index].item()
        if not height:
            return None
        begin = self.start + offset
        record = np.frombuffer(self._map, np.uint8, height * width * channels, begin)
        if zlib.crc32(record.data) != crc:
            raise DataError(f"{self.path}: record {index} is damaged", _ALLOWED, "remove the file")
        return record.reshape(height, width, channels)


def open_cache(
    source: Source,
    transform: Transform,
    limit: int,
    *,
    folder: str | os.PathLike[str] = "",
    threads: int = 0,
    progress: Progress = SILENT,
) -> Cache:
    """The cache of these images prepared by this transform; built now, with `threads` threads, unless it is complete.

    limit: bytes that the file may have. folder: default `images` in the user's cache folder. Where several processes share
    the work, one calls this first and the others after it. Raises StorageError where the file cannot be written.
    """
    key = cache_key(source, transform)
    path = Path(folder or user_cache() / "images") / f"{key[:32]}.cache"
    if left := remove_parts(path.parent):
        progress.say(
            f"{path.parent}: removed {counted(len(left), 'unfinished file')} of a killed process: {shown(left)}"
        )
    if path.exists():
        try:
            cache = Cache(path, key)
            if cache.limit == limit or (cache.kept == len(cache) and path.stat().st_size <= limit):
                return cache
            progress.say(f"{path}: was made with another limit; building it again")
        except (DataError, OSError) as error:
            progress.say(f"{error}; building it again")
    _build(path, key, source, transform, limit, threads or os.cpu_count() or 1, progress)
    return Cache(path, key)


def _opened(path: Path, key: str) -> tuple[mmap.mmap, NDArray[Any], int, int]:
    """The mapped file, its index, where the pixels start, and the limit it was made with. Raises DataError."""

    def bad(what: str) -> DataError:
        return DataError(f"{path}: {what}", _ALLOWED, "remove the file")

    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < len(MAGIC) + 8:
                raise bad("is cut off")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise bad(str(error.strerror)) from error
    (length,) = struct.unpack_from("<Q", mapped, len(MAGIC))
    at = len(MAGIC) + 8
    if mapped[: len(MAGIC)] != MAGIC or length > min(_LARGEST_HEADER, size - at):
        raise bad("is no cache of this version")
    try:
        header = json.loads(mapped[at : at + length])
        count, stated, limit = (int(header[name]) for name in ("count", "bytes", "limit"))
        if header["key"] != key:
            raise bad("belongs to other images")
    except (ValueError, KeyError, TypeError) as error:
        raise bad("has a damaged header") from error
    at += length
    start = at + count * INDEX.itemsize + 4
    if count < 0 or start > size or size != start + stated:
        raise bad("is cut off")
    index = np.frombuffer(mapped, INDEX, count, at)
    if zlib.crc32(mapped[at : start - 4]) != struct.unpack_from("<I", mapped, start - 4)[0]:
        raise bad("has a damaged index")
    for offset, height, width, channels, _ in index.tolist():
        if offset + height * width * channels > stated:
            raise bad("has a damaged index")
    return mapped, index, start, limit


def _build(
    path: Path, key: str, source: Source, transform: Transform, limit: int, threads: int, progress: Progress
) -> None:
    """Write the cache to a temporary file and rename it. Raises StorageError."""
    count = len(source)
    index = np.zeros(count, INDEX)
    header = {"key": key, "count": count, "limit": limit, "bytes": 0}
    room = len(json.dumps({**header, "bytes": limit}))
    start = len(MAGIC) + 8 + room + index.nbytes + 4
    used = 0
    with atomic_write(path) as file, contextlib.closing(_prepared(source, transform, threads)) as records:
        file.seek(start)
        for number, pixels in enumerate(progress.track(records, count, "caching")):
            if pixels is None:  # unreadable: the loader will say so when it comes to it
                continue
            if start + used + pixels.nbytes > limit:
                break
            pixels = np.ascontiguousarray(pixels)
            file.write(pixels.data)
            index[number] = (used, *pixels.shape, zlib.crc32(pixels.data))
            used += pixels.nbytes
        file.seek(0)
        text = json.dumps({**header, "bytes": used}).encode().ljust(room)
        file.write(MAGIC + struct.pack("<Q", len(text)) + text + index.tobytes())
        file.write(struct.pack("<I", zlib.crc32(index.tobytes())))


def _prepared(source: Source, transform: Transform, threads: int) -> Generator[NDArray[np.uint8] | None, None, None]:
    """The prepared images in order, None for the unreadable; some are decoded ahead, in threads."""

    def prepare(index: int) -> NDArray[np.uint8] | None:
        try:
            return transform.prepare(source.read(index))
        except ImageError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[NDArray[np.uint8] | None]] = deque()
        try:
            for index in range(len(source)):
                waiting.append(pool.submit(prepare, index))
                if len(waiting) >= 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
