"""An index by several processes: the bytes of the single-process one, whatever was killed on the way; shards beside folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.batch import fill
from gossamer.batch.folder import AnswerFolder
from gossamer.batch.index import index_many
from gossamer.batch.plan import Scan, first_plan
from gossamer.cli.main import main
from gossamer.errors import DataError, InputError
from gossamer.predictions.gallery import Gallery
from tests.batchcases import in_process, picture, write_tar
from tests.trained import runs_of_tasks


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder, with people.onnx, gallery/ of 75 images in folders and some that cannot be read."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(runs_of_tasks(tmp_path_factory) / "embed.onnx", "people.onnx")
    for index in range(75):
        place = Path("gallery", "train", f"who{index % 3}", "inner" if index % 5 == 0 else ".")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:03}.png").write_bytes(picture(index))
    (Path("gallery/train/who1") / "0000.png").write_bytes(b"no image")
    return tmp_path


def test_the_bytes_are_those_of_one_process(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With batches that do not divide the images; what a killed start has done is not done again."""
    answered = in_process(monkeypatch)
    assert main(["index", "people.onnx", "gallery", "--out", "one.index", "--batch", "8", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    commit = AnswerFolder.commit

    def interrupted(self: AnswerFolder, records: Any) -> None:
        commit(self, records)
        if len(answered) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AnswerFolder, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index_many("people.onnx", "gallery", "many.index", 2, batch=8)
    assert not Path("many.index").exists() and Path("many.index.parts").is_dir()
    done = list(answered)
    assert (
        main(["index", "people.onnx", "gallery", "--out", "many.index", "--workers", "2", "--batch", "8", "--json"])
        == 0
    )
    many = json.loads(capsys.readouterr().out)
    assert Path("many.index").read_bytes() == Path("one.index").read_bytes()
    assert done == [0, 1] and answered == [0, 1, 3, 4]  # the third was committed, but not counted
    assert (many["images"], many["identities"]) == (one["images"], one["identities"]) == (75, 3)
    assert many["unreadable"] == one["unreadable"] and len(many["unreadable"]) == 1
    assert sorted(path.name for path in home.iterdir()) == ["gallery", "many.index", "one.index", "people.onnx"]


@pytest.mark.parametrize("batch", [8, 1])
def test_files_that_come_between_two_starts_are_in_the_index(
    batch: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(monkeypatch)
    write = fill.write_bytes
    monkeypatch.setattr("gossamer.batch.index.write_gallery", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        index_many("people.onnx", "gallery", "many.index", batch=batch)
    monkeypatch.undo()
    monkeypatch.chdir(home)
    in_process(monkeypatch)
    assert fill.write_bytes is write
    Path("gallery/train/who0/00.png").write_bytes(picture(1000))
    Path("gallery/train/who2/002.png").unlink()
    index_many("people.onnx", "gallery", "many.index", batch=batch)
    assert main(["index", "people.onnx", "gallery", "--out", "one.index", "--batch", str(batch)]) == 0
    assert Path("many.index").read_bytes() == Path("one.index").read_bytes()


def test_shards_are_indexed_with_what_is_wrong_with_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    for shard in range(2):
        members = [(f"who{index % 2}/{index}.png", picture(10 * shard + index)) for index in range(5)]
        write_tar(Path(f"shards/{shard}.tar"), members)
    whole = Path("shards/0.tar").read_bytes()
    Path("shards/2.tar").write_bytes(whole[: whole.rindex(b"ustar") + 300])  # within the last image
    result = index_many("people.onnx", "shards", "shards.index")
    gallery = Gallery.load("shards.index")
    assert gallery.names[:2] == ("0.tar/who0/0.png", "0.tar/who1/1.png") and gallery.labels[:2] == ("who0", "who1")
    assert len(gallery) == result.images == 14 and result.identities == 2 and result.exit_code == 2
    assert "is cut off: 4 files are complete" in result.damaged[0] and not result.skipped
    assert len(gallery.search(np.asarray(gallery.embeddings[:1]), 1)[0]) == 1


def test_labels_are_those_within_a_shard_whatever_it_is_called(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    for name in ("A.TAR", "b.tar/c.tar"):  # a folder may have such a name too
        write_tar(Path("shards", name), [(f"who/{name[0]}.png", picture(ord(name[0])))] * 2)
    Path("shards/b.tar/alone").mkdir()
    Path("shards/b.tar/alone/d.png").write_bytes(picture(1))
    result = index_many("people.onnx", "shards", "shards.index")
    assert result.repeated == result.to_json()["repeated"] == 2
    assert "passed over: 2 images in shards with the name of an earlier one" in result.text()
    gallery = Gallery.load("shards.index")
    assert dict(zip(gallery.names, gallery.labels)) == {
        "A.TAR/who/A.png": "who", "b.tar/c.tar/who/b.png": "who", "b.tar/alone/d.png": "b.tar",
    }  # fmt: skip


def test_what_cannot_be_indexed_is_one_line(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    in_process(monkeypatch)
    shutil.copy(runs_of_tasks(tmp_path_factory) / "detect.onnx", "boxes.onnx")
    Path("empty").mkdir()
    for words, message in (
        (["people.onnx", "empty"], "empty: holds no images and no shards"),
        (["people.onnx", "none"], "none: no folder"),
        (["boxes.onnx", "gallery"], "boxes.onnx: a network for detect"),
        (["people.onnx", "gallery", "--batch", "0"], "0"),
    ):
        assert main(["index", *words, "--out", "x.index", "--workers", "2"]) == 2
        assert message in capsys.readouterr().err
    assert not list(home.glob("x.index*"))
    with pytest.raises(InputError, match="workers 5000"):
        index_many("people.onnx", "gallery", "x.index", 5000)
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 1 image has an embedding: broken/a\.png"):
        index_many("people.onnx", "broken", "x.index")


def test_units_of_an_index_are_whole_batches() -> None:
    files = [(f"{index:05}.png", 300_000, 1) for index in range(1000)]
    units = first_plan(Scan([], files), 48)
    assert len(units) > 5 and all(unit.length % 48 == 0 for unit in units[:-1])
    assert [entry for unit in units for entry in unit.entries()] == files
