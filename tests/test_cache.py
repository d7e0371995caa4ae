"""The cache of prepared images: never another result, whatever happens to its file."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data.augment import EvalTransform, TrainTransform, Transform
from gossamer.data.cache import MAGIC, Cache, cache_key, open_cache
from gossamer.data.loader import Batches
from gossamer.data.open import open_source
from gossamer.data.source import Source
from gossamer.errors import DataError, StorageError
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings
from tests.conftest import write_image_folder

P = Preprocess((16, 16))
EVAL = EvalTransform(P)
CROPS = TrainTransform(P, Settings())
PADDED = TrainTransform(P, Settings(crop="padded"))
CLASSES = ("class0", "class1", "class2")
ROOM = 1 << 30


class Messages(Progress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(write_image_folder(tmp_path / "data", each=4, size=40, splits=("val",)) / "val", CLASSES)


def pixels(source: Source, transform: Transform, cache: Cache | None) -> np.ndarray:
    order = np.arange(len(source))
    return np.concatenate([b.pixels for b in Batches(source, transform, order, 5, seed=3, epoch=1, cache=cache)])


@pytest.mark.parametrize("transform", [EVAL, PADDED])
def test_cached_pixels_are_the_same_bit_by_bit_where_the_geometry_is_fixed(
    source: Source, transform: Transform, tmp_path: Path
) -> None:
    cache = open_cache(source, transform, ROOM, folder=tmp_path / "cache")
    assert cache.kept == len(cache) == len(source)
    assert np.array_equal(pixels(source, transform, None), pixels(source, transform, cache))


@pytest.mark.parametrize("transform", [EVAL, CROPS])
def test_results_do_not_depend_on_how_much_is_cached(source: Source, transform: Transform, tmp_path: Path) -> None:
    full = open_cache(source, transform, ROOM, folder=tmp_path / "a")
    size = full.path.stat().st_size
    part = open_cache(source, transform, size // 2, folder=tmp_path / "b")
    none = open_cache(source, transform, 1, folder=tmp_path / "c")
    assert none.kept == 0 < part.kept < len(source) and part.path.stat().st_size <= size // 2
    expected = pixels(source, transform, full)
    assert np.array_equal(expected, pixels(source, transform, part))
    assert np.array_equal(expected, pixels(source, transform, none))


def test_a_cache_is_built_once_and_again_where_anything_changed(source: Source, tmp_path: Path) -> None:
    def stamp(transform: Transform = EVAL, limit: int = ROOM) -> tuple[Path, int]:
        path = open_cache(source, transform, limit, folder=tmp_path / "cache").path
        return path, path.stat().st_ino

    first = stamp()
    assert stamp() == first
    assert stamp(limit=ROOM * 2) == first  # it holds everything, so more room changes nothing
    assert stamp(EvalTransform(Preprocess((20, 16))))[0] != first[0]
    assert stamp(limit=4000)[1] != first[1]  # smaller than the file
    changed = Path(source.store.root) / source.store.paths[0]  # type: ignore[attr-defined]
    changed.write_bytes(changed.read_bytes() + b" ")
    assert stamp()[0] != first[0]


def test_the_order_of_the_images_belongs_to_the_key(source: Source) -> None:
    turned = source.select(np.arange(len(source))[::-1].copy())
    assert cache_key(turned, EVAL) != cache_key(source, EVAL)
    assert turned.fingerprint() == source.fingerprint()


def test_an_unreadable_image_is_left_out_and_met_again_by_the_loader(source: Source, tmp_path: Path) -> None:
    (Path(source.store.root) / source.store.paths[2]).write_bytes(b"")  # type: ignore[attr-defined]
    cache = open_cache(source, EVAL, ROOM, folder=tmp_path / "cache", threads=3)
    assert cache.kept == len(source) - 1 and cache.get(2) is None
    batch = Batches(source, EVAL, np.arange(len(source)), 99, cache=cache)[0]
    assert [name for name, _ in batch.unreadable] == [source.names[2]] and 2 not in batch.indices


def test_a_damaged_record_is_decoded_again_and_noted(source: Source, tmp_path: Path) -> None:
    path = open_cache(source, EVAL, ROOM, folder=tmp_path / "cache").path
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    cache = open_cache(source, EVAL, ROOM, folder=tmp_path / "cache")
    with pytest.raises(DataError, match=f"record {len(source) - 1} is damaged"):
        cache.get(len(source) - 1)
    assert np.array_equal(pixels(source, EVAL, None), pixels(source, EVAL, cache))
    notes = Batches(source, EVAL, np.arange(len(source)), 99, cache=cache)[0].notes
    assert len(notes) == 1 and source.names[-1] in notes[0]


@pytest.mark.parametrize("keep", [0, 10, 100, 400, 5000, -1])
def test_a_file_that_is_cut_off_is_built_again(source: Source, tmp_path: Path, keep: int) -> None:
    path = open_cache(source, EVAL, ROOM, folder=tmp_path).path
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    heard = Messages()
    open_cache(source, EVAL, ROOM, folder=tmp_path, progress=heard)
    assert path.read_bytes() == content
    assert len(heard.lines) == 1 and "building it again" in heard.lines[0]


def test_a_cache_of_other_images_under_this_name_is_built_again(source: Source, tmp_path: Path) -> None:
    other = open_cache(source, PADDED, ROOM, folder=tmp_path)
    mine = open_cache(source, EvalTransform(Preprocess((20, 20))), ROOM, folder=tmp_path)
    mine.path.write_bytes(other.path.read_bytes())
    assert open_cache(source, EvalTransform(Preprocess((20, 20))), ROOM, folder=tmp_path).get(0).shape == (20, 20, 3)  # type: ignore[union-attr]


@given(st.integers(0, 700), st.binary(min_size=1, max_size=30))
def test_whatever_is_changed_in_its_header_only_a_data_error_is_raised(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes
) -> None:
    base = tmp_path_factory.getbasetemp()
    if not (base / "data").exists():
        write_image_folder(base / "data", each=2, size=20, splits=("val",))
    source = open_source(base / "data" / "val", CLASSES)
    cache = open_cache(source, EVAL, ROOM, folder=base / "cache")
    raw = bytearray(cache.path.read_bytes())
    raw[at : at + len(value)] = value[: len(raw) - at]
    (base / "changed").write_bytes(raw)
    try:
        changed = Cache(base / "changed", cache.key)
        for index in range(len(changed)):
            changed.get(index)
    except DataError as error:
        assert "\n" not in str(error)


def test_a_cache_survives_pickling_and_starts_with_its_name(source: Source, tmp_path: Path) -> None:
    cache = open_cache(source, EVAL, ROOM, folder=tmp_path)
    copy = pickle.loads(pickle.dumps(cache))
    assert np.array_equal(copy.get(3), cache.get(3))
    assert cache.path.read_bytes().startswith(MAGIC)


def test_a_folder_that_cannot_be_written_is_a_storage_error(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        open_cache(source, EVAL, ROOM, folder=tmp_path / "file")
