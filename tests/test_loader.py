"""Batches and prefetching: the same pixels on any number of workers and processes, from any step, and clean ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gossamer.data.augment import EvalTransform, TrainTransform
from gossamer.data.loader import Batch, Batches, prefetch
from gossamer.data.open import open_data, open_source
from gossamer.data.source import Source
from gossamer.errors import DataError
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings
from tests.conftest import write_image_folder

P = Preprocess((16, 16), crop_pct=1.0)
TRAIN = TrainTransform(P, Settings(color_jitter=0.2, random_erasing=0.3))
CLASSES = ("class0", "class1", "class2")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_data(write_image_folder(tmp_path_factory.mktemp("loader"), each=17, size=24)).train


def spoilt(tmp_path: Path, *which: int, each: int = 17) -> Source:
    """A source whose images at these indices are empty files."""
    root = write_image_folder(tmp_path / "spoilt", each=each, size=24, splits=("all",)) / "all"
    opened = open_source(root, CLASSES)
    for index in which:
        (root / opened.names[index]).write_bytes(b"")
    return opened


def batches(source: Source, batch: int = 12, epoch: int = 2, **options: object) -> Batches:
    order = source.order(epoch, 5)
    return Batches(source, TRAIN, order, batch, seed=5, epoch=epoch, **{"drop_last": True, **options})  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    fields = ("pixels", "targets", "indices")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields) and (
        one.unreadable == other.unreadable
    )


def concatenated(parts: list[Batch]) -> Batch:
    return Batch(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "targets", "indices"))
    )


# what is in a batch


def test_a_batch_has_the_images_of_its_positions(source: Source) -> None:
    all_of_it = batches(source)
    assert len(all_of_it) == 51 // 12 == 4
    order = source.order(2, 5)
    for step in range(4):
        batch = all_of_it[step]
        assert batch.indices.tolist() == order[step * 12 : step * 12 + 12].tolist()
        assert np.array_equal(batch.targets, source.labels[batch.indices])
        assert batch.pixels.shape == (12, 16, 16, 3) and batch.pixels.dtype == np.uint8
        assert not batch.unreadable and not batch.notes
    with pytest.raises(IndexError):
        all_of_it[4]


def test_evaluation_takes_every_image_and_a_ragged_last_batch(source: Source) -> None:
    parts = [*prefetch(Batches(source, EvalTransform(P), source.order(0, 0, "none"), 20))]
    assert [len(part.indices) for part in parts] == [20, 20, 11]
    assert np.concatenate([part.indices for part in parts]).tolist() == list(range(51))
    assert np.array_equal(parts[2].pixels[10], P.pixels(source.read(50)))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_processes_together_have_the_batch_of_one(source: Source, world: int) -> None:
    one = batches(source, epoch=1, partners=True)
    ranks = [batches(source, epoch=1, partners=True, rank=rank, world=world) for rank in range(world)]
    for step in range(len(one)):
        complete, parts = one[step], [rank[step] for rank in ranks]
        assert same(concatenated(parts), complete)
        for column in (0, 1):
            partners = np.concatenate([part.partners()[column] for part in parts])
            assert np.array_equal(partners, complete.partners()[column])
            assert np.array_equal(partners, np.roll((complete.pixels, complete.targets)[column], -1, axis=0))


def test_evaluation_over_processes_covers_each_image_once(source: Source) -> None:
    order = source.order(0, 0, "none")
    ranks = [Batches(source, EvalTransform(P), order, 16, rank=rank, world=20) for rank in range(20)]
    seen = [part.indices for step in range(len(ranks[0])) for part in (rank[step] for rank in ranks)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(51))
    assert ranks[0][0].pixels.shape == (0, 16, 16, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_prefetched_batches_are_those_computed_in_place_from_any_step(source: Source, workers: int) -> None:
    expected = batches(source)
    for start in range(len(expected) + 1):
        prefetched = list(prefetch(batches(source), start, workers))
        assert len(prefetched) == len(expected) - start
        assert all(same(batch, expected[start + i]) for i, batch in enumerate(prefetched))


def test_epochs_draw_anew_for_the_same_image(source: Source) -> None:
    one, two = (
        Batches(source, TRAIN, np.zeros(4, np.int64), 4, seed=0, epoch=epoch, drop_last=True)[0] for epoch in (0, 1)
    )
    assert not np.array_equal(one.pixels, two.pixels) and not np.array_equal(one.pixels[0], one.pixels[1])


def test_a_batch_larger_than_the_data_shrinks_to_what_the_processes_can_share(source: Source) -> None:
    few = source.select(np.arange(7))
    assert len(batches(few, 64)) == 1 and len(batches(few, 64)[0].targets) == 7
    assert [len(batches(few, 64, rank=rank, world=3)[0].targets) for rank in range(3)] == [2, 2, 2]
    with pytest.raises(DataError, match="2 training images for 3 processes"):
        batches(source.select(np.arange(2)), 64, world=3)


def test_real_shards_give_the_same_pixels_however_they_are_read(real_data: Path) -> None:
    shards = open_data(real_data / "cifar10-shards").train.select(np.arange(0, 40_000, 400))
    expected = [*prefetch(batches(shards, 32))]
    assert len(expected) == 3 and not any(batch.unreadable for batch in expected)
    for reader in (prefetch(batches(shards, 32), workers=2), prefetch(batches(shards, 32), 1)):
        prefetched = list(reader)
        assert all(same(a, b) for a, b in zip(prefetched, expected[-len(prefetched) :], strict=True))
    halves = [[*prefetch(batches(shards, 32, rank=rank, world=2))] for rank in range(2)]
    assert all(same(concatenated(list(pair)), complete) for *pair, complete in zip(*halves, expected, strict=True))


# unreadable images


def test_training_replaces_an_unreadable_image_by_the_next_in_the_order(tmp_path: Path) -> None:
    source = spoilt(tmp_path, 3, 4)
    order = np.array([0, 3, 4, 5, 6, 3])
    of_one = Batches(source, TRAIN, order, 6, drop_last=True, max_unreadable=0.5)[0]
    assert of_one.indices.tolist() == [0, 5, 5, 5, 6, 0]
    assert np.array_equal(of_one.targets, source.labels[of_one.indices])
    assert {name for name, _ in of_one.unreadable} == {source.names[3], source.names[4]}
    assert all("is empty" in reason for _, reason in of_one.unreadable)
    parts = [Batches(source, TRAIN, order, 6, rank=r, world=3, drop_last=True, max_unreadable=0.9)[0] for r in range(3)]
    assert np.array_equal(concatenated(parts).pixels, of_one.pixels)


def test_evaluation_leaves_an_unreadable_image_out(tmp_path: Path) -> None:
    source = spoilt(tmp_path, 0, 1, 2, 3, 10)
    parts = list(prefetch(Batches(source, EvalTransform(P), np.arange(12), 4, max_unreadable=1.0)))
    assert [part.indices.tolist() for part in parts] == [[], [4, 5, 6, 7], [8, 9, 11]]
    assert parts[0].pixels.shape == (0, 16, 16, 3)
    assert [len(part.unreadable) for part in parts] == [4, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_more_unreadable_images_than_allowed_stop_the_run(tmp_path: Path, workers: int) -> None:
    source = spoilt(tmp_path, *range(0, 50, 10))  # 5 of 51, spread out
    assert len(list(prefetch(batches(source, 4, max_unreadable=0.1), workers=workers))) == 12
    with pytest.raises(DataError, match=r"3 of 51 images cannot be read.*up to 2 unreadable"):
        list(prefetch(batches(source, 4, max_unreadable=0.05), workers=workers))


def test_one_of_a_handful_may_be_unreadable_but_none_where_the_fraction_is_zero(tmp_path: Path) -> None:
    source = spoilt(tmp_path, 2, each=3)
    assert list(prefetch(batches(source, 4, max_unreadable=0.05)))
    with pytest.raises(DataError, match="1 of 9 images"):
        list(prefetch(batches(source, 4, max_unreadable=0.0)))


def test_a_source_of_unreadable_images_ends_at_once(tmp_path: Path) -> None:
    source = spoilt(tmp_path, *range(9), each=3)
    for fraction in (0.05, 1.0):
        with pytest.raises(DataError, match="images cannot be read"):
            list(prefetch(batches(source, 4, max_unreadable=fraction)))


# ends


class Broken:
    """A transform that fails in a way that nobody foresaw."""

    shape = (16, 16, 3)

    def __call__(self, image: object, rng: object) -> object:
        raise ZeroDivisionError("in the transform")


def gossamer_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gossamer")]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_the_background_is_raised_here_with_its_type(source: Source, workers: int) -> None:
    broken = Batches(source, Broken(), source.order(0, 0), 4)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError, match="in the transform"):
        list(prefetch(broken, workers=workers))
    assert not gossamer_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_closing_early_ends_threads_and_processes(source: Source, workers: int) -> None:
    before = children()
    stream = prefetch(batches(source, 4), workers=workers)
    next(stream)
    assert gossamer_threads() == ["gossamer-batches"] if workers == 0 else len(children() - before) == 2
    stream.close()
    assert not gossamer_threads() and until(lambda: children() <= before)


def test_a_generator_that_is_dropped_ends_its_thread(source: Source) -> None:
    stream = prefetch(batches(source, 4))
    next(stream)
    del stream
    assert until(lambda: not gossamer_threads())


def test_no_more_is_prepared_ahead_than_the_setting(source: Source) -> None:
    loaded: list[int] = []

    class Counting(Batches):
        def load(self, step: int, halted: Callable[[], bool]) -> Batch:
            loaded.append(step)
            return super().load(step, halted)

    stream = prefetch(Counting(source, TRAIN, source.order(0, 0), 4), ahead=3)
    next(stream)
    assert until(lambda: len(loaded) == 4)
    time.sleep(0.1)
    assert len(loaded) == 4
    stream.close()


def test_ctrl_c_reaches_a_caller_who_waits(source: Source) -> None:
    sent = threading.Event()

    class Slow(Batches):
        def load(self, step: int, halted: Callable[[], bool]) -> Batch:
            if not sent.is_set():  # by what is waited for, not by a clock that may ring outside of the block
                sent.set()
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGINT)
            while not halted():
                time.sleep(0.01)
            return super().load(step, halted)

    # a shell starts what runs in its background with Ctrl-C ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(prefetch(Slow(source, TRAIN, source.order(0, 0), 4)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not gossamer_threads()


PARENT = """
import sys, time, multiprocessing
import numpy as np
from gossamer.data.augment import EvalTransform
from gossamer.data.loader import Batches, prefetch
from gossamer.data.open import open_source
from gossamer.images.preprocess import Preprocess
source = open_source(sys.argv[1], ("class0", "class1", "class2"))
# batches of some megabytes, so that workers are caught while they write into a full pipe
transform = EvalTransform(Preprocess((512, 512)))
stream = prefetch(Batches(source, transform, np.arange(len(source)).repeat(200), 8), workers=2)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by number")
def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path, each=3, splits=("all",)) / "all"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(root)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(is_running(number) for number in workers)
        parent.kill()
    assert until(lambda: not any(is_running(number) for number in workers), seconds=10)


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(map(int, path.read_text().split())) if path.exists() else set()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
