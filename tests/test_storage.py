"""Files are written completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gossamer import errors
from gossamer.errors import DataError, MissingPackageError, ModelFileError, StorageError, UnknownNameError
from gossamer.host.storage import atomic_write, write_bytes, write_text


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_text(target, "one")
    write_text(target, "zwei ä")
    assert target.read_text(encoding="utf-8") == "zwei ä"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(ValueError), atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise ValueError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        with pytest.raises(StorageError, match="disk is full"), atomic_write(tmp_path / "a") as file:
            file.write(b"half")
            full()
    else:
        monkeypatch.setattr(os, call, full)
        with pytest.raises(StorageError, match="disk is full"):
            write_bytes(tmp_path / "a", b"new")
        monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_really_full_device_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this platform")
    with pytest.raises(StorageError):
        write_bytes("/dev/full/x", b"x")


@pytest.mark.parametrize(
    "error",
    [
        DataError("a\nb", "c", "d"),
        UnknownNameError("network", "mobilnet", ["mobilenet_v1", "resnet18"]),
        ModelFileError(3, "x.onnx: cut", "complete files"),
        MissingPackageError("torch", "train", "training"),
    ],
)
def test_errors_are_one_line_and_survive_another_process(error: errors.GossamerError) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert "\n" not in str(error)
    assert error.exit_code == 2
