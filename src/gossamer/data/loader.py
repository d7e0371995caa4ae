"""Batches of pixels and targets, prepared ahead of the training step.

A batch is a pure function of its step: which images, and every random draw, follow from (seed, epoch, position in the
epoch). So workers, processes and resumes change nothing, and no state has to be saved but the step.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.augment import Transform
from gossamer.data.cache import Cache
from gossamer.data.joint import JointTransform
from gossamer.data.source import Indices, Source
from gossamer.data.streams import stream
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted


@dataclass
class Batch:
    """One process's slice of one batch.

    pixels: uint8 (n, H, W, C). indices: int64 (n,), indices into the source. targets: class numbers, int64 (n,); with
    a joint transform a list of n of its targets.
    unreadable: (name, reason) of images met that cannot be read. next_pixels, next_targets: of the sample behind the
    slice in the global batch, (1, H, W, C) and (1,), or of length 0 without partners.
    notes: what else went wrong without changing the result.
    """

    pixels: NDArray[np.uint8]
    targets: Any
    indices: Indices
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    next_pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.uint8))
    next_targets: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: list[str] = field(default_factory=list)

    def partners(self) -> tuple[NDArray[np.uint8], Indices]:
        """Pixels and targets of the sample behind each one in the global batch, the first behind the last; see
        `gossamer.data.mix`. Only of batches made with partners=True."""
        pixels = np.concatenate([self.pixels[1:], self.next_pixels])
        return pixels, np.concatenate([self.targets[1:], self.next_targets])


class Batches:
    """The batches of one epoch, by step, for process `rank` of `world`.

    order: the epoch, indices into `source`. batch: images per step over all processes; process r takes the r-th of
    `world` contiguous slices, whose lengths differ by one at most. A position's random draws come from
    `stream(seed, epoch, position)`.

    drop_last (training): every batch is full. The rest of the order that fills none is left out, a batch larger than
    the order shrinks to it (to a multiple of `world`), and an unreadable image is replaced by the next readable one
    in the order. Otherwise (evaluation) the last batch is what is left, and unreadable images are left out.

    max_unreadable: fraction of unreadable images above which `prefetch` stops; of a handful, one may always be
    unreadable, unless it is 0. Each process counts over its own part of the order.
    partners: whether `Batch.partners` will be needed.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform | JointTransform,
        order: Indices,
        batch: int,
        *,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        cache: Cache | None = None,
        max_unreadable: float = 0.05,
        partners: bool = False,
    ) -> None:
        if drop_last and len(order) < world:
            raise DataError(
                f"{counted(len(order), 'training image')} for {world} processes",
                "one per process at least",
                "use fewer",
            )
        self.source, self.transform, self.order, self.cache = source, transform, order, cache
        self.batch = min(batch, len(order) // world * world) if drop_last else batch
        self.rank, self.world, self.seed, self.epoch = rank, world, seed, epoch
        self.drop_last, self.partners = drop_last, partners
        self.max_unreadable = max_unreadable
        self._bad: dict[int, str] = {}  # index: reason, of images this process has met

    def __len__(self) -> int:
        """Steps."""
        return len(self.order) // self.batch if self.drop_last else -(-len(self.order) // self.batch)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step. Raises DataError where images in a row cannot be read beyond the fraction allowed."""
        return self.load(step, lambda: False)

    def load(self, step: int, halted: Callable[[], bool]) -> Batch:
        """The batch of a step; once `halted()` is true, the samples still missing are left out."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        first, end = step * self.batch, min((step + 1) * self.batch, len(self.order))
        low, high = (first + (end - first) * part // self.world for part in (self.rank, self.rank + 1))
        batch = self._empty(high - low)
        filled = 0
        for position in range(low, high):
            if halted():
                break
            filled += self._put(batch, filled, position)
        batch.pixels, batch.targets = batch.pixels[:filled], batch.targets[:filled]
        batch.indices = batch.indices[:filled]
        if self.partners and not halted():
            self._add_next(batch, first, low, high, end)
        return batch

    def _empty(self, count: int) -> Batch:
        targets: Any = [None] * count if isinstance(self.transform, JointTransform) else _zeros(count)
        return Batch(np.empty((count, *self.transform.shape), np.uint8), targets, _zeros(count))

    def _add_next(self, batch: Batch, first: int, low: int, high: int, end: int) -> None:
        if high - low == end - first:  # the slice is all of the batch
            batch.next_pixels, batch.next_targets = batch.pixels[:1], batch.targets[:1]
            return
        behind = self._empty(1)
        count = self._put(behind, 0, high if high < end else first)
        batch.next_pixels, batch.next_targets = behind.pixels[:count], behind.targets[:count]

    def _put(self, batch: Batch, at: int, position: int) -> int:
        """Put the sample of a position at row `at`; how many there are now, 0 or 1."""
        failed: dict[str, str] = {}
        for further in range(len(self.order) if self.drop_last else 1):
            index = int(self.order[(position + further) % len(self.order)])
            name = self.source.names[index]
            if name in failed:
                continue
            if index not in self._bad:
                try:
                    rng = stream(self.seed, self.epoch, position)
                    batch.pixels[at], batch.targets[at] = self._sample(index, rng, batch)
                    batch.indices[at] = index
                    return 1
                except ImageError as error:
                    self._bad[index] = error.given
            failed[name] = self._bad[index]
            batch.unreadable.append((name, failed[name]))
            if self.drop_last and len(failed) > self.allowed(len(self.order)):
                break
        if self.drop_last:  # the search goes through all of the order, so what it meets is counted against all of it
            raise self.too_many(failed, len(self.order))
        return 0

    def _sample(self, index: int, rng: np.random.Generator, batch: Batch) -> tuple[NDArray[np.uint8], Any]:
        """uint8 (H, W, C) and the target. Raises ImageError."""
        transform = self.transform
        if isinstance(transform, JointTransform):
            return transform.joint(self.source.read(index), self.source.target(index), rng)
        return self._pixels(transform, index, rng, batch), self.source.labels[index]

    def _pixels(self, transform: Transform, index: int, rng: np.random.Generator, batch: Batch) -> NDArray[np.uint8]:
        """uint8 (H, W, C). Raises ImageError."""
        if self.cache is None:
            return transform(self.source.read(index), rng)
        try:
            prepared = self.cache.get(index)
        except DataError as error:
            batch.notes.append(f"{error.given}; {self.source.names[index]} was decoded again")
            prepared = None
        if prepared is None:
            prepared = transform.prepare(self.source.read(index))
        return transform.vary(prepared, rng)

    def allowed(self, count: int) -> int:
        """How many of `count` images may be unreadable."""
        return max(1, int(self.max_unreadable * count)) if self.max_unreadable else 0

    def too_many(self, unreadable: dict[str, str], count: int) -> DataError:
        """The error that stops a run: too many of `count` images are unreadable."""
        name, reason = next(iter(unreadable.items()))
        return DataError(
            f"{len(unreadable)} of {count} images cannot be read, such as {name} ({reason})",
            f"up to {self.allowed(count)} unreadable (max_unreadable)",
            "check the list of unreadable images; gossamer doctor --data DIR finds them",
        )


def prefetch(batches: Batches, start: int = 0, workers: int = 0, ahead: int = 2) -> Generator[Batch, None, None]:
    """The batches from step `start` on, prepared while the caller computes.

    workers: 0 is one thread of this process, else so many processes. ahead: batches prepared in advance per
    worker. Close the generator to stop early: threads and processes have ended when `close()` returns. Raises what
    preparing a batch raises, and DataError where more images are unreadable than allowed.
    """
    unreadable: dict[str, str] = {}
    count = len(batches.order) // batches.world
    batch_stream = _in_processes(batches, start, workers, ahead) if workers else _in_thread(batches, start, ahead)
    try:
        for batch in batch_stream:
            unreadable.update(batch.unreadable)
            if len(unreadable) > batches.allowed(count):
                raise batches.too_many(unreadable, count)
            yield batch
    finally:
        batch_stream.close()


def _in_thread(batches: Batches, start: int, ahead: int) -> Generator[Batch, None, None]:
    stop = threading.Event()
    free = threading.Semaphore(ahead)
    done: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for step in range(start, len(batches)):
                free.acquire()
                if stop.is_set():
                    return
                done.put(batches.load(step, stop.is_set))
            done.put(None)
        except BaseException as error:  # whatever it is, it is the caller's
            done.put(error)

    # a daemon, so that it does not keep a process alive whose main thread has ended
    thread = threading.Thread(target=work, name="gossamer-batches", daemon=True)
    thread.start()
    try:
        while (item := done.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            free.release()
            yield item
    finally:
        stop.set()
        free.release()
        thread.join()


class _Steps:
    """The batches as a map-style data set whose errors travel as values, with their type and all."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            return self.batches[step]
        except Exception as error:
            return error


def _unchanged(item: Any) -> Any:
    return item


def _begin_worker(number: int) -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="gossamer-parent", daemon=True).start()


def _in_processes(batches: Batches, start: int, workers: int, ahead: int) -> Generator[Batch, None, None]:
    from torch.utils.data import DataLoader

    # Forked where the system can: workers run numpy and Pillow only, never torch's arithmetic or a GPU, and inherit
    # the table of images instead of unpickling it. Batches come through a pipe rather than shared memory, which
    # containers often limit to less than a few batches.
    loader: DataLoader[Any] = DataLoader(
        _Steps(batches),  # type: ignore[arg-type]  # needs __getitem__ only
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=min(workers, max(1, len(batches) - start)),
        collate_fn=_unchanged,
        worker_init_fn=_begin_worker,
        prefetch_factor=ahead,
    )
    items: Iterator[Any] = iter(loader)
    try:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        del items


def _zeros(count: int) -> Indices:
    return np.zeros(count, np.int64)
