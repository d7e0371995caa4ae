"""Galleries: what a search finds, the file and whatever bytes it may hold, folders of images with an embedder."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import DataError, InputError, MissingPackageError, StorageError, UnknownNameError
from gossamer.images.preprocess import Preprocess, decode
from gossamer.predictions import neighbours
from gossamer.predictions.gallery import MARK, Gallery, Match
from gossamer.predictions.head import OutputHead
from gossamer.runtime.contact_sheets import GAP, MOST, TILE, contact_sheet, draw_neighbours
from gossamer.runtime.retrieval import SearchResult, embed_files, index_folder, search_files

MODEL = "0123456789abcdef" * 4
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(30, 6)).astype(np.float32)


def gallery(count: int = 30) -> Gallery:
    names = [f"{index}.jpg" for index in range(count)]
    return Gallery.build(VECTORS[:count], names, [f"who{index % 4}" for index in range(count)], MODEL)


def cosines(queries: np.ndarray) -> np.ndarray:
    rows = queries.astype(np.float64)
    columns = VECTORS.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(columns, axis=1)
    return np.asarray(rows @ columns.T / lengths)


@pytest.mark.parametrize("backend", ["numpy", "faiss", "auto"])
@pytest.mark.parametrize("top", [1, 5, 30, 99])
def test_a_search_finds_the_most_similar(backend: str, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(neighbours, "CHUNK", 70)  # two queries at a time
    queries = 3 * RNG.normal(size=(5, 6)).astype(np.float32)
    expected = cosines(queries)
    for row, matches in zip(expected, gallery().search(queries, top, backend), strict=True):
        order = np.argsort(-row)[:top]
        assert [match.name for match in matches] == [f"{index}.jpg" for index in order]
        assert [match.label for match in matches] == [f"who{index % 4}" for index in order]
        assert [match.similarity for match in matches] == pytest.approx(row[order], abs=1e-6)


def test_of_equal_images_the_first_is_first() -> None:
    same = Gallery.build(np.tile(VECTORS[:2], (200, 1)), [str(index) for index in range(400)], [""] * 400, MODEL)
    matches = same.search(VECTORS[1:2], 300, "numpy")[0]
    assert [int(match.name) for match in matches] == [*range(1, 400, 2), *range(0, 200, 2)]


def test_a_search_refuses_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for top in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="a whole number from 1"):
            gallery().search(VECTORS, top)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(30, 5\) for the gallery; allowed: \(m, 6\)"):
        gallery().search(VECTORS[:, :5])
    with pytest.raises(UnknownNameError, match="did you mean faiss"):
        gallery().search(VECTORS, 1, "fais")
    with pytest.raises(DataError, match="query 1: its embedding is not finite or all zeros"):
        gallery().search(np.array([[1] * 6, [np.nan] * 6], np.float32))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[faiss\]"):
        gallery().search(VECTORS, 1, "faiss")
    assert gallery().search(VECTORS[:1], 1, "auto")[0][0].name == "0.jpg"
    assert gallery().search(VECTORS[:0]) == []


def test_a_gallery_refuses_embeddings_without_a_direction() -> None:
    for bad in (np.nan, np.inf, 0.0):
        vectors = VECTORS.copy()
        vectors[3] = bad
        with pytest.raises(DataError, match=r"^3\.jpg: its embedding"):
            Gallery.build(vectors, [f"{index}.jpg" for index in range(30)], [""] * 30, MODEL)
    for vectors, names in ((VECTORS, ["a"]), (VECTORS[:0], []), (VECTORS[0], ["a"] * 6)):
        with pytest.raises(DataError, match="one name and one label for each"):
            Gallery.build(vectors, names, names, MODEL)


def test_embeddings_of_any_finite_size_become_length_1() -> None:
    built = Gallery.build(VECTORS * np.float32(1e30), list("x" * 30), [""] * 30, MODEL)
    assert np.linalg.norm(built.embeddings, axis=1) == pytest.approx(1)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    names = [f"Zoë/{index}\udcff\n.jpg" for index in range(30)]  # as file systems have them
    Gallery.build(VECTORS, names, ["Zoë"] * 30, MODEL).save(tmp_path / "people.index")
    loaded = Gallery.load(tmp_path / "people.index")
    assert loaded.names == tuple(names) and loaded.labels == ("Zoë",) * 30 and loaded.model == MODEL
    assert np.array_equal(loaded.embeddings, Gallery.build(VECTORS, names, names, MODEL).embeddings)
    assert len(loaded) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["people.index"]
    assert loaded.search(VECTORS[:3], 2, "numpy") == Gallery.build(VECTORS, names, ["Zoë"] * 30, MODEL).search(
        VECTORS[:3], 2, "numpy"
    )
    with pytest.raises(StorageError, match="could not be written"):
        loaded.save(tmp_path / "people.index" / "below.index")


def test_a_gallery_of_another_embedder_is_refused(tmp_path: Path) -> None:
    gallery().save(tmp_path / "people.index")
    loaded = Gallery.load(tmp_path / "people.index")
    loaded.check_model(MODEL)
    with pytest.raises(DataError, match=r"people\.index: made by another model file") as caught:
        loaded.check_model("f" * 64)
    assert "\n" not in str(caught.value)


def content(tmp_path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the embeddings of a good file."""
    gallery(3).save(tmp_path / "good.index")
    data = (tmp_path / "good.index").read_bytes()
    length = int.from_bytes(data[8:16], "little")
    return json.loads(data[16 : 16 + length]), data[16 + length : -32]


def packed(header: object, values: bytes, mark: bytes = MARK, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = mark + (len(text) if length is None else length).to_bytes(8, "little") + text + values
    return body + hashlib.sha256(body).digest()


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], bytes], bytes], str]] = {
    "empty": (lambda h, v: b"", "no gallery"),
    "another file": (lambda h, v: b"\x89PNG" * 99, "no gallery"),
    "a later format": (lambda h, v: packed(h, v, b"GOSSGAL2"), "another format"),
    "cut off": (lambda h, v: packed(h, v)[:-1], "checksum"),
    "longer": (lambda h, v: packed(h, v) + b"x", "checksum"),
    "one bit": (lambda h, v: packed(h, v)[:-40] + b"\0" * 8 + packed(h, v)[-32:], "checksum"),
    "a header past the end": (lambda h, v: packed(h, v, length=2**63), "past the end"),
    "a header that is no JSON": (lambda h, v: packed(b"{", v), "not JSON"),
    "a header that is not UTF-8": (lambda h, v: packed(b'{"model": "\xff"}', v), "not JSON"),
    "a header nested deep": (lambda h, v: packed(b"[" * 200_000, v), "not JSON"),
    "a header that is a list": (lambda h, v: packed([1], v), "entries"),
    "an entry too few": (lambda h, v: packed({k: h[k] for k in list(h)[1:]}, v), "entries"),
    "an entry too many": (lambda h, v: packed({**h, "more": 1}, v), "entries"),
    "a model that is no hash": (lambda h, v: packed({**h, "model": "x" * 64}, v), "SHA-256"),
    "a model that is a number": (lambda h, v: packed({**h, "model": 5}, v), "SHA-256"),
    "no names": (lambda h, v: packed({**h, "names": [], "labels": []}, b""), "names and labels"),
    "names that are a text": (lambda h, v: packed({**h, "names": "abc"}, v), "names and labels"),
    "a name that is a number": (lambda h, v: packed({**h, "names": ["a", "b", 3]}, v), "names and labels"),
    "fewer labels": (lambda h, v: packed({**h, "labels": ["a", "b"]}, v), "names and labels"),
    "a dim of 0": (lambda h, v: packed({**h, "dim": 0}, b""), "dim"),
    "a dim that is true": (lambda h, v: packed({**h, "dim": True}, v), "dim"),
    "a dim that is no integer": (lambda h, v: packed({**h, "dim": 6.0}, v), "dim"),
    "a huge dim": (lambda h, v: packed({**h, "dim": 2**70}, v), "72 bytes of embeddings for 3 of"),
    "fewer embeddings": (lambda h, v: packed(h, v[:-4]), "68 bytes of embeddings for 3 of 6"),
    "an embedding that is nan": (lambda h, v: packed(h, v[:-4] + b"\0\0\xc0\x7f"), "length 1"),
    "an embedding that is huge": (lambda h, v: packed(h, v[:-4] + b"\xff\xff\x7f\x7f"), "length 1"),
    "an embedding of zeros": (lambda h, v: packed(h, v[:-24] + bytes(24)), "length 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[case]
    path = tmp_path / "bad.index"
    path.write_bytes(make(*content(tmp_path)))
    with pytest.raises(DataError, match=reason) as caught:
        Gallery.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_the_base_of_the_hostile_files_is_good(tmp_path: Path) -> None:
    path = tmp_path / "again.index"
    path.write_bytes(packed(*content(tmp_path)))
    assert Gallery.load(path).names == ("0.jpg", "1.jpg", "2.jpg")


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_any_bytes_are_a_gallery_or_a_data_error(tmp_path_factory: Any, bits: bytes, at: int, sealed: bool) -> None:
    folder = tmp_path_factory.mktemp("any")
    good = packed(*content(folder))[:-32]
    data = good[:at] + bits + good[at + len(bits) :]
    (folder / "any.index").write_bytes(data + (hashlib.sha256(data).digest() if sealed else b""))
    try:
        loaded = Gallery.load(folder / "any.index")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(loaded.search(loaded.embeddings, 2, "numpy")) == len(loaded)


def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.index", "a\0b"):
        with pytest.raises(DataError, match="check the path"):
            Gallery.load(path)
    with (tmp_path / "huge.index").open("wb") as file:
        file.truncate(2**34 + 1)  # sparse: takes no room
    with pytest.raises(DataError, match="17179869185 bytes"):
        Gallery.load(tmp_path / "huge.index")


class Colours:
    """An embedder whose embedding is the mean colour and a constant; black images become nan."""

    path, sha256 = "colours.onnx", MODEL

    def __init__(self, task: str = "embed") -> None:
        self.task, self.batches = task, list[int]()

    def need_metadata(self) -> Any:
        heads = (OutputHead(self.task, ("a", "b") if self.task == "classify" else ()),)
        return SimpleNamespace(heads=heads, preprocess=Preprocess(size=(8, 8)))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return Preprocess(size=(8, 8)).normalise(pixels)

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        mean = batch.mean((2, 3))
        return np.where(mean.max(1, keepdims=True) < -1.5, np.nan, np.c_[mean, np.full(len(mean), 0.2)]).astype("f4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """red/, green/ and blue/ with 3 images each, one at the top, one that is cut off, one that is black."""
    from PIL import Image

    root = tmp_path / "gallery"
    for label, colour in {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}.items():
        (root / label).mkdir(parents=True)
        for index in range(3):
            shade = tuple(value + 5 * index for value in colour)
            Image.new("RGB", (16, 16), shade).save(root / label / f"{index}.png")
    Image.new("RGB", (16, 16), (200, 200, 30)).save(root / "yellow.png")
    Image.new("RGB", (16, 16)).save(root / "green" / "black.png")
    content = (root / "red" / "0.png").read_bytes()
    (root / "red" / "cut.png").write_bytes(content[:30])
    return root


def test_parts_of_a_data_set_are_no_identities(folder: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    for part in ("train", "val"):
        shutil.copytree(folder, dataset / part)
    built, _ = index_folder(Colours(), dataset)
    assert set(built.labels) == {"", "red", "green", "blue"}
    shutil.copytree(folder / "red", dataset / "scarlet")
    assert "train" in index_folder(Colours(), dataset)[0].labels  # there is an identity beside: it may be one as well


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_a_folder_becomes_a_gallery_and_is_searched(folder: Path, tmp_path: Path, batch: int) -> None:
    model = Colours()
    built, skipped = index_folder(model, folder, batch)
    assert built.names == (
        "yellow.png",
        *(f"{label}/{index}.png" for label in ("blue", "green", "red") for index in range(3)),
    )
    assert built.labels == ("", *("blue",) * 3, *("green",) * 3, *("red",) * 3)
    assert [Path(path).name for path, _ in skipped] == ["black.png", "cut.png"]
    assert "not finite" in skipped[0][1] and "cut.png" in skipped[1][1]
    assert max(model.batches) <= batch

    built.save(tmp_path / "colours.index")
    queries = [folder / "red" / "1.png", folder / "red" / "cut.png", tmp_path / "none.png", folder / "blue"]
    results = list(search_files(model, Gallery.load(tmp_path / "colours.index"), queries, 3, batch, "numpy"))
    assert [Path(one.source).name for one in results] == ["1.png", "cut.png", "none.png", "0.png", "1.png", "2.png"]
    assert results[0].matches[0].name == "red/1.png" and results[0].matches[0].similarity == pytest.approx(1, abs=1e-6)
    assert {match.label for match in results[0].matches} == {"red"}
    assert results[1].error and results[2].error and not results[1].matches
    assert results[5].matches[0].name == "blue/2.png" and not results[5].error
    assert json.loads(json.dumps(results[0].to_json()))["matches"][0]["label"] == "red"


def test_neighbours_are_drawn_beside_each_image(folder: Path, tmp_path: Path) -> None:
    model = Colours()
    built, _ = index_folder(model, folder)
    (folder / "red" / "2.png").unlink()
    queries = [folder / "red" / "1.png", folder / "red" / "cut.png"]
    out = tmp_path / "sheets"
    results = list(draw_neighbours(search_files(model, built, queries, 3), queries, folder, out))
    assert [bool(one.error) for one in results] == [False, True]
    assert [path.name for path in out.iterdir()] == ["1.png"]
    page = np.asarray(decode(out / "1.png")).astype(int)
    middles = page[GAP + TILE // 2 + 40, [GAP + TILE // 2 + place * (TILE + GAP) for place in range(4)]]
    assert {match.name for match in results[0].matches} == {"red/0.png", "red/1.png", "red/2.png"}
    assert np.abs(middles[0] - (205, 35, 35)).max() <= 1  # the query itself
    for middle, match in zip(middles[1:], results[0].matches, strict=True):
        index = int(match.name[4])
        colour = (255, 255, 255) if index == 2 else (200 + 5 * index, 30 + 5 * index, 30 + 5 * index)
        assert np.abs(middle - colour).max() <= 1, match.name
    names = ("../gallery/red/0.png", str(folder / "red" / "0.png"))
    hostile = SearchResult(str(queries[0]), tuple(Match(name, "", 1.0) for name in names) * 300)
    page = np.asarray(contact_sheet(hostile, folder))
    assert page.shape[1] == GAP + (MOST + 1) * (TILE + GAP)
    assert (page[GAP + 20, [GAP + TILE // 2 + place * (TILE + GAP) for place in (1, 2)]] == 255).all()  # not followed
    with pytest.raises(DataError, match="none: no folder"):
        draw_neighbours(results, queries, tmp_path / "none", out)
    with pytest.raises(InputError, match="is an input image"):
        draw_neighbours(results, queries, folder, folder / "red")


def test_what_cannot_be_indexed_or_searched_is_one_line(folder: Path, tmp_path: Path) -> None:
    built, _ = index_folder(Colours(), folder)
    with pytest.raises(InputError, match=r"colours\.onnx: a network for classify"):
        index_folder(Colours("classify"), folder)
    with pytest.raises(InputError, match="batch 0"):
        embed_files(Colours(), [folder], 0)
    with pytest.raises(InputError, match="top 0"):
        search_files(Colours(), built, [folder], 0)
    with pytest.raises(DataError, match="none: no folder"):
        index_folder(Colours(), tmp_path / "none")
    other = Colours()
    other.sha256 = "f" * 64
    with pytest.raises(DataError, match="made by another model file"):
        search_files(other, built, [folder])
    for label in ("red", "green", "blue"):
        shutil.rmtree(folder / label)
    (folder / "yellow.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 1 image has an embedding"):
        index_folder(Colours(), folder)
    (folder / "yellow.png").unlink()
    with pytest.raises(DataError, match="holds no images"):
        index_folder(Colours(), folder)
