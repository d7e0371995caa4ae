"""Units of work answered one after the other: images decoded in threads, the network beside them, rows written aside."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.batch.folder import rows_name
from gossamer.batch.images import UnitImage, UnitImages
from gossamer.batch.plan import Unit
from gossamer.batch.rows import FORMATS, VECTORS, Row, RowWriter
from gossamer.errors import ImageError, StorageError
from gossamer.host.storage import atomic_write, storage_error
from gossamer.images.preprocess import Placement
from gossamer.predictions.gallery import NO_DIRECTION, directed
from gossamer.predictions.limits import DecodingLimits
from gossamer.runtime.model import Model

PIXEL_BYTES = 64 << 20  # of decoded images that wait for the network
REPORTS = 0.5  # seconds between two reports of progress

Decoded = tuple[NDArray[np.uint8], Placement] | str  # pixels and their place, or why there are none
Report = Callable[[dict[str, Any]], None]
TakeUnit = Callable[[bool], Unit | None]
"""Gives the next unit; without one, waits for it where asked to, and gives None where there is none now or any more."""


class _Abandoned(Exception):
    """A unit is not answered to its end."""


@dataclass
class _Work:
    """A unit that is being answered."""

    unit: Unit
    images: UnitImages
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    writer: RowWriter | None = None
    part: list[tuple[UnitImage, Decoded]] = field(default_factory=list)
    started: float = 0.0
    done: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Answering:
    """What answers units. batch: images that run at once, which never belong to two units. decoders: threads.

    out: the folder of answers. model_sha256: what the commits say of the model.
    """

    model: Model
    out: Path
    model_sha256: str
    top: int
    limits: DecodingLimits
    batch: int
    format: str
    decoders: int

    def serve(self, take: TakeUnit, report: Report) -> None:
        """Answer units until there are none, and report {"done": line of the log} of each, and progress between.

        Decoding goes on into the next unit while the last one is written. Images in memory: two batches, or fewer where
        these are more than PIXEL_BYTES, and a file a decoder. Raises StorageError, ModelFileError, DataError.
        """
        preprocess = self.model.need_metadata().preprocess
        each = preprocess.size[0] * preprocess.size[1] * preprocess.channels
        window = max(self.decoders + 1, min(2 * self.batch, PIXEL_BYTES // each))
        waiting: deque[tuple[_Work, UnitImage | None, Future[Decoded] | None]] = deque()
        feeding: tuple[_Work, Iterator[UnitImage]] | None = None
        reported, images, size = time.monotonic(), 0, 0
        works: list[_Work] = []
        with ThreadPoolExecutor(self.decoders) as pool:
            try:
                while True:
                    while len(waiting) < window:
                        if feeding is None:
                            unit = take(not waiting)
                            if unit is None:
                                break
                            works.append(_Work(unit, UnitImages(unit)))
                            feeding = works[-1], iter(works[-1].images)
                        work, source = feeding
                        image = next(source, None)
                        feeding = feeding if image else None
                        waiting.append((work, image, pool.submit(self._decode, image) if image else None))
                    if not waiting:
                        return
                    work, image, future = waiting.popleft()
                    if work.writer is None:
                        self._begin(work)
                    if image is not None and future is not None:
                        work.part.append((image, future.result()))
                        images, size = images + 1, size + image.size
                        if len(work.part) == self.batch:
                            self._run(work)
                            if time.monotonic() - reported >= REPORTS:
                                report({"images": images, "bytes": size, "unit": work.unit.number})
                                reported, images, size = time.monotonic(), 0, 0
                        continue
                    record = self._finish(work)
                    works.remove(work)
                    report({"done": record, "images": images})
                    images = size = 0
            finally:
                for _, _, future in waiting:
                    if future is not None:
                        future.cancel()
                pool.shutdown(wait=True)  # before the shards are closed that it reads
                for work in works:
                    with contextlib.suppress(_Abandoned, StorageError), work.stack:
                        raise _Abandoned  # the rows of a unit that is not complete go
                    work.images.close()

    def _decode(self, image: UnitImage) -> Decoded:
        try:
            return self.model.need_metadata().preprocess.read(image.read(), image.key)
        except ImageError as error:
            return str(error)

    def _begin(self, work: _Work) -> None:
        work.started = time.monotonic()
        path = self.out / rows_name(work.unit.number, self.format)
        file = work.stack.enter_context(atomic_write(path))
        work.writer = FORMATS[self.format](file)

    def _run(self, work: _Work) -> None:
        """Answer a batch and write its rows."""
        good = [(image.key, *item) for image, item in work.part if not isinstance(item, str)]
        answers = iter((self._embeddings(good) if self.format == VECTORS else self._predictions(good)) if good else ())
        rows = []
        for image, item in work.part:
            rows.append(Row(image.key, None, item) if isinstance(item, str) else next(answers))
            work.unreadable += isinstance(item, str)
        self._write(work, rows)
        work.done += len(rows)
        work.part = []

    def _predictions(self, good: list[tuple[str, NDArray[np.uint8], Placement]]) -> list[Row]:
        predicted = self.model.predict_pixels(good, self.top, self.limits)
        return [Row(key, each.to_json(), each.error) for (key, _, _), each in zip(good, predicted, strict=True)]

    def _embeddings(self, good: list[tuple[str, NDArray[np.uint8], Placement]]) -> list[Row]:
        """Raw embeddings, as an index has them before they are brought to length 1."""
        metadata = self.model.need_metadata()
        pixels = np.stack([pixels for _, pixels, _ in good])
        vectors = metadata.heads[0].of(self.model.run(self.model.prepare(pixels)))["embedding"]
        fine = directed(vectors).tolist()
        return [
            Row(key, {"vector": vector} if sound else None, "" if sound else NO_DIRECTION)
            for (key, _, _), vector, sound in zip(good, vectors, fine, strict=True)
        ]

    def _write(self, work: _Work, rows: list[Row]) -> None:
        assert work.writer is not None
        try:
            work.writer.write(rows)
        except OSError as error:
            raise storage_error(self.out / rows_name(work.unit.number, self.format), error) from error

    def _finish(self, work: _Work) -> dict[str, Any]:
        """Write what is left, and put the rows in their place; the line of the log."""
        assert work.writer is not None
        if work.part:
            self._run(work)
        entries = work.unit.entries()
        if work.images.damaged:
            self._write(work, [Row(entries[0][0], None, work.images.damaged)])
        try:
            work.writer.close()
        except OSError as error:
            raise storage_error(self.out / rows_name(work.unit.number, self.format), error) from error
        work.stack.close()
        work.images.close()
        name = rows_name(work.unit.number, self.format)
        return {
            "unit": work.unit.number,
            "kind": work.unit.kind,
            "key": entries[0][0],
            "entries": len(entries),
            "fingerprint": work.unit.fingerprint,
            "model": self.model_sha256,
            "images": work.done,
            "unreadable": work.unreadable,
            "repeated": work.images.repeated,
            "damaged": work.images.damaged,
            "doubtful": work.images.doubtful,
            "input_bytes": work.unit.size,
            "rows": name,
            "bytes": os.stat(self.out / name).st_size,
            "seconds": round(time.monotonic() - work.started, 3),
            "at": round(time.time(), 3),
        }
