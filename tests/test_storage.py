"""Files are written completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gossamer import errors
from gossamer.errors import DataError, MissingPackageError, ModelFileError, RunError, StorageError, UnknownNameError
from gossamer.host.cells import from_cell, to_cell
from gossamer.host.stepfolder import StepFolder
from gossamer.host.storage import atomic_folder, atomic_write, lock_file, remove_parts, write_bytes, write_text
from gossamer.run import Run
from gossamer.settings import Settings


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


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    left = [tmp_path / ".a.txt.abcd_123.part", tmp_path / ".b.txt.abcd_123.part"]
    other = [tmp_path / ".a.txt.part", tmp_path / "a.txt.abcd_123.part", tmp_path / ".a.txt.abcd_123.parts"]
    for path in [*left, *other]:
        path.write_bytes(b"half")
    (tmp_path / ".c.zzzzzzzz.part").mkdir()
    (tmp_path / ".c.zzzzzzzz.part" / "half").write_bytes(b"x")
    write_text(tmp_path / "a.txt", "complete")
    assert not left[0].exists() and left[1].exists() and all(path.exists() for path in other)
    with atomic_folder(tmp_path / "c") as folder:
        assert [path.name for path in tmp_path.glob(".c.*")] == [folder.name]
    assert remove_parts(tmp_path) == [left[1].name] and remove_parts(tmp_path / "nowhere") == []
    assert all(path.exists() for path in other)


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file, atomic_folder(tmp_path / "f") as folder:
        file.write(b"complete")
        (folder / "x").write_bytes(b"x")
        assert remove_parts(tmp_path) == []
        write_bytes(tmp_path / "a", b"by another")
    assert (tmp_path / "a").read_bytes() == b"complete" and (tmp_path / "f" / "x").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "f"]


def test_a_file_is_locked_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that cleans up between the last byte and the rename would take the file for one left over."""
    removed: list[list[str]] = []
    replace = os.replace

    def cleaned(source: Any, target: Any) -> None:
        removed.append(remove_parts(tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, "replace", cleaned)
    write_bytes(tmp_path / "a", b"complete")
    assert removed == [[]] and (tmp_path / "a").read_bytes() == b"complete"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_of_a_removed_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits at a file that its holder removes gets the lock of the next file of that name; one that is busy is refused."""
    fcntl = pytest.importorskip("fcntl")
    flock, path = fcntl.flock, tmp_path / ".lock"
    removed: list[int] = []

    def remove_first(handle: int, how: int) -> None:
        if not removed:
            removed.append(os.fstat(handle).st_ino)
            path.unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    handle = lock_file(path)
    assert os.fstat(handle).st_ino == path.stat().st_ino and len(removed) == 1
    with pytest.raises(BlockingIOError):
        lock_file(path)
    os.close(handle)
    asking = os.open(path, os.O_RDONLY)  # as who asks whether it is locked holds it for a moment
    flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    monkeypatch.setattr("gossamer.host.storage.time.sleep", lambda _: os.close(asking))
    os.close(lock_file(path))


CELLS = ["=1+2", "+a", "-a.jpg", "@a", "\t=1", "'=1", "''-x", "'a", "a=1", "", "é", "-1,5"]


@pytest.mark.parametrize("text", CELLS)
def test_no_cell_is_a_formula_and_all_are_read_back(text: str) -> None:
    assert from_cell(to_cell(text)) == text
    assert not to_cell(text) or to_cell(text)[0] not in "=+-@\t\r\n"
    assert to_cell(-1.5) == -1.5 and to_cell(None) is None


def test_names_that_look_like_formulas_survive_a_run_folder(tmp_path: Path) -> None:
    run = Run.create(Settings(data="x", out=str(tmp_path / "run")))
    rows = [(f"{text}/a.jpg", 1, "train") for text in CELLS if text.isprintable()]
    run.save_data(("a", "b"), {}, rows)
    run.save_unreadable([("=cmd|' /C calc'!A0", "-1")])
    assert run.split() == rows and run.unreadable() == [("=cmd|' /C calc'!A0", "-1")]
    for name in ("split.csv", "unreadable.csv"):
        lines = (run.path / name).read_text(encoding="utf-8").splitlines()
        assert not any(line.lstrip('"')[:1] in "=+-@" for line in lines if line.lstrip('"'))


def test_a_disk_without_locks_is_not_called_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network disks have none; one that is locked is refused as before."""
    fcntl = pytest.importorskip("fcntl")

    class Steps(StepFolder):
        command, state, first = "gossamer steps", "steps.json", "one"

    for error, refused in ((OSError(errno.ENOLCK, "no locks"), False), (BlockingIOError(errno.EAGAIN, "busy"), True)):

        def flock(*_: Any, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(fcntl, "flock", flock)
        for begin in (
            lambda: Run.create(Settings(data="photos", out=str(tmp_path / "run"))).unlock(),
            lambda: Steps(tmp_path / "steps").__enter__().close(),
        ):
            if refused:
                with pytest.raises(RunError, match="another process is"):
                    begin()
            else:
                begin()
