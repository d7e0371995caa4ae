"""Shards that may be cut off, and a disk that is really full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import gossamer
from gossamer.batch.status import batch_status
from gossamer.cli.main import main
from gossamer.errors import StorageError
from tests import batchcases
from tests.batchcases import in_process, picture, row_files, rows, write_source, write_tar


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(batchcases.model_files(tmp_path_factory) / "a.onnx", "a.onnx")
    return tmp_path


def test_a_shard_that_ends_between_two_images_is_told_with_its_count(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that it still holds is answered; the exit code stays 0, as such a file may be complete."""
    in_process(monkeypatch)
    members = [(f"{index}.png", picture(index)) for index in range(6)]
    whole = write_tar(Path("shards/0.tar"), members).read_bytes()
    names = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    Path("shards/1.tar").write_bytes(whole[: names[4]])
    Path("shards/2.tar").write_bytes(whole + whole)
    Path("shards/3.tar").write_bytes(whole[: names[5] + 512 + len(members[5][1])])  # not even the last block is full
    assert main(["predict", "a.onnx", "shards", "--out", "answers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == len(rows(Path("answers"))) == 6 + 4 + 6 + 6 and found["damaged"] == []
    assert found["doubtful"][0] == (
        "shards/1.tar: ends without the closing zeros of a tar: it may be cut off behind its 4 files"
    )
    assert "shards/2.tar: its closing zeros are at byte" in found["doubtful"][1] and len(found["doubtful"]) == 3
    assert "behind its 6 files" in found["doubtful"][2]
    assert main(["predict", "a.onnx", "shards", "--out", "answers"]) == 0
    text = capsys.readouterr().out
    assert "warning: shards/1.tar: ends without" in text and "3 shards may be cut off" in text
    assert main(["predict", "--status", "answers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["doubtful"] == found["doubtful"]
    assert main(["predict", "--status", "answers"]) == 0
    assert "3 shards may be cut off" in capsys.readouterr().out


def test_a_log_without_such_notes_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As folders have it that were begun before they were told."""
    answered = in_process(monkeypatch)
    write_tar(Path("shards/0.tar"), [("0.png", picture(0))])
    gossamer.predict_many("a.onnx", "shards", "answers")
    log = Path("answers/log.jsonl")
    record = json.loads(log.read_text())
    for value, again in ((None, 0), (7, 1)):
        record.pop("doubtful", None)
        log.write_text(json.dumps(record if value is None else {**record, "doubtful": value}) + "\n")
        before = len(answered)
        assert gossamer.predict_many("a.onnx", "shards", "answers").doubtful == ()
        assert len(answered) == before + again


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of 96 kB."""
    place = home / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.full
def test_a_disk_that_is_full_is_one_line_and_resumes_where_there_is_room(
    small_disk: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's own ENOSPC, in the processes of workers; what is in the log is whole, and goes on after room is made."""
    write_source(home, shards=12, each=12, files=40)
    gossamer.predict_many("a.onnx", ["shards", "photos"], "undisturbed", workers=2, runtime="reference")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    command = ["predict", "a.onnx", "shards", "photos", "--out", str(small_disk / "answers"), "--runtime", "reference"]
    assert main([*command, "--workers", "2"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gossamer: ") and "could not be written: the disk is full" in error
    assert not list(small_disk.rglob("*.part"))
    begun = batch_status(small_disk / "answers")
    assert begun.units < begun.total_units and begun.filled_by is None
    with pytest.raises(StorageError, match="the disk is full"):
        gossamer.predict_many("a.onnx", ["shards", "photos"], small_disk / "answers", 2, runtime="reference")
    ballast.unlink()
    os.sync()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert main([*command, "--workers", "2"]) == 0
    assert row_files(small_disk / "answers") == row_files(Path("undisturbed"))
