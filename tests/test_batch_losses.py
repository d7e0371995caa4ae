"""Workers that are killed, as by a system without memory: their unit is tried again, given up, and told; the rest goes on."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest

import gossamer
from gossamer.batch import losses, workers
from gossamer.batch.folder import AnswerFolder
from gossamer.batch.index import index_many
from gossamer.batch.losses import Queue
from gossamer.batch.plan import FILES, Unit
from gossamer.batch.status import batch_status
from gossamer.cli.main import main
from gossamer.errors import DataError, GossamerError, StorageError
from gossamer.predictions.gallery import Gallery
from tests import batchcases
from tests.batchcases import picture, row_files, write_source
from tests.trained import runs_of_tasks

# a worker that ends itself as it comes to an image whose key has `poison` in it, as often as the file `kills` has lines
POISONED = """
import os, pathlib, signal
from gossamer.batch import answering, worker
decode = answering.Answering._decode

def poisoned(self, image):
    lines = pathlib.Path("kills").read_text().splitlines()
    if "{poison}" in image.key and lines:
        pathlib.Path("kills").write_text("".join(line + "\\n" for line in lines[1:]))
        if lines[0] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError if lines[0] == "memory" else ValueError("no\\nsuch image")
    return decode(self, image)

answering.Answering._decode = poisoned
worker.main()
"""


def poison(monkeypatch: pytest.MonkeyPatch, key: str, *ends: str) -> None:
    """Let workers end at an image, the first so many times; "kill", "memory" or "defect" each."""
    Path("kills").write_text("".join(f"{each}\n" for each in ends))
    monkeypatch.setattr(workers, "COMMAND", [sys.executable, "-P", "-c", POISONED.replace("{poison}", key)])


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_source(tmp_path / "home", each=3, files=0))
    shutil.copy(batchcases.model_files(tmp_path_factory) / "a.onnx", "a.onnx")
    return Path.cwd()


@pytest.mark.full
def test_a_unit_that_kills_its_worker_is_tried_again_and_then_given_up(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "a.onnx", "shards", "--workers", "1", "--out"]
    poison(monkeypatch, "001.tar/0001", "kill")
    assert main([*command, "once"]) == 0  # the second worker answers it
    undisturbed = row_files(Path("once"))
    assert len(undisturbed) == 4 and not Path("once/failed.jsonl").exists() and not Path("kills").read_text()
    capsys.readouterr()

    poison(monkeypatch, "001.tar/0001", *["kill"] * 9)
    assert main([*command, "answers", "--json"]) == 2
    out = capsys.readouterr()
    summary = json.loads(out.out)
    assert (summary["units"], summary["images"], len(summary["failed"])) == (3, 12, 1)
    line = "unit 1 (shards/001.tar): its worker was lost 2 times, the last time ended by SIGKILL; where the memory"
    assert summary["failed"][0].startswith(line) and "is given up: its worker was lost 2 times" in out.err
    assert len(Path("kills").read_text().splitlines()) in (6, 7)  # once perhaps while another unit was before it
    kept = {name: content for name, content in undisturbed.items() if name != "rows/000/000001.jsonl"}
    assert row_files(Path("answers")) == kept and not list(Path("answers").rglob("*.part"))
    status = batch_status("answers")
    assert (
        not status.complete and f"failed: {line}" in status.text() and status.to_json()["failed"] == summary["failed"]
    )

    for end, line in (("memory", "the memory of this machine is not enough"), ("defect", "ValueError: no such image")):
        poison(monkeypatch, "001.tar/0001", end, end, end)
        assert main([*command, "answers"]) == 2
        said = capsys.readouterr().out
        assert f"ended with exit code 1: {line}" in said and "1 unit failed: the same command tries" in said
    poison(monkeypatch, "001.tar/0001")
    assert main([*command, "answers"]) == 0
    assert row_files(Path("answers")) == undisturbed and batch_status("answers").failed == ()


@pytest.mark.full
def test_an_index_lacks_a_unit_that_was_given_up_until_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(runs_of_tasks(tmp_path_factory) / "embed.onnx", "people.onnx")
    for number in range(40):
        path = Path(f"gallery/who{number % 2}/{number:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    poison(monkeypatch, "038.png", *["kill"] * 9)
    result = index_many("people.onnx", "gallery", "people.index", 1, batch=16)
    assert (result.exit_code, len(result.failed)) == (2, 1) and "1 unit failed" in result.text()
    assert 0 < result.images == len(Gallery.load("people.index")) < 40 and Path("people.index.parts").is_dir()
    poison(monkeypatch, "038.png")
    again = index_many("people.onnx", "gallery", "people.index", 1, batch=16)
    assert (again.exit_code, again.images, again.failed) == (0, 40, ()) and not Path("people.index.parts").exists()
    poison(monkeypatch, "", *["kill"] * 9)
    with pytest.raises(GossamerError, match=r"x\.index: not written, as no unit was answered: unit 0 \(gallery/who0"):
        index_many("people.onnx", "gallery/who0", "x.index", 1, batch=32)
    assert not Path("x.index").exists()


def test_units_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit whose worker was lost waits behind the others and is given alone; losses in a row end the whole."""
    folder = AnswerFolder(tmp_path)
    folder.begin()
    units = [Unit.of(number, FILES, [(f"{number}.png", 1, 1)]) for number in range(6)]
    queue = Queue(folder, units, 1, 2)
    held: list[Unit] = []
    sent: list[int] = []

    def give() -> list[int]:
        queue.give(held, lambda unit: sent.append(unit.number))
        return [unit.number for unit in held]

    assert give() == [0, 1] and "another one takes its unit" in queue.lost(held, "ended by SIGKILL")
    held.clear()
    assert give() == [2, 3]  # the suspects wait behind them
    for left in ([3, 4], [4, 5], [5], [0], [1]):
        held.pop(0)
        queue.answered()
        if not held:
            assert queue.left == (2 if left == [0] else 1)
        assert give() == left
    queue.left = 1
    line = queue.lost(held, "lost")
    assert (
        line == "a worker was lost: another one takes its unit" and queue.left == 1
    )  # the first time that it was begun
    held.clear()
    assert give() == [1] and "unit 1 (1.png) is given up: its worker was lost 2 times" in queue.lost(held, "lost")
    assert (
        queue.left == 0 and not queue and folder.failed()[0].startswith("unit 1 (1.png): its worker was lost 2 times")
    )
    queue.back(units[:2])
    held.clear()
    assert queue and give() == [0]
    monkeypatch.setattr(losses, "MOST_KILLS", 3)
    with pytest.raises(
        GossamerError, match="3 workers were lost with no unit answered between them, the last one at unit"
    ):
        queue.lost(units[5:], "lost")
    (tmp_path / "failed.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"failed\.jsonl: .*; allowed: a folder that"):
        folder.failed()
    folder.forget_failed()
    assert folder.failed() == () and not (tmp_path / "failed.jsonl").exists()
    folder.end()


def test_a_machine_that_is_lost_with_all_its_workers_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is answered between the losses of its workers, be they more than end a start; a name of a file is one line."""
    monkeypatch.setattr(losses, "MOST_KILLS", 2)
    folder = AnswerFolder(tmp_path)
    folder.begin()
    units = [Unit.of(number, FILES, [(f"a\n{number}.png", 1, 1)]) for number in range(3)]
    queue = Queue(folder, units, 3, 2)
    lines = [queue.lost([unit], "lost (a\nb)") for unit in units]
    assert lines == [r"a worker was lost (a\nb): another one takes its unit"] * 3
    queue.answered()
    assert queue.lost(units[:1], "lost").startswith(r"unit 0 (a\n0.png) is given up: its worker")
    queue.lost([], "lost")
    queue.lost([], "lost")
    with pytest.raises(GossamerError, match=r"4 workers were lost .* at unit 1 \(a\\n1\.png\)"):
        queue.lost(units[1:], "lost")
    folder.end()


def test_a_folder_of_answers_survives_a_kill_while_it_goes_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of one that was being removed is still one to resume; a start that fails leaves no lock behind."""
    folder = AnswerFolder(tmp_path)
    folder.begin()
    folder.save_settings({"model": "a", "sha256": "b", "settings": {}, "sources": []})
    folder.save_plan([])
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name == "plan.jsonl":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.remove()
    folder.end()
    assert (tmp_path / "batch.json").exists()

    def full(handle: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr("gossamer.batch.folder.os.ftruncate", full)
        with pytest.raises(StorageError, match="the disk is full"):
            AnswerFolder(tmp_path).begin()
    folder.begin()
    folder.remove()
    assert not tmp_path.exists()


def test_an_index_is_locked_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A second indexer over the same path is refused while the first one writes; what comes after it is not removed by it."""
    monkeypatch.chdir(tmp_path)
    batchcases.in_process(monkeypatch)
    model = runs_of_tasks(tmp_path_factory) / "embed.onnx"
    for number in range(4):
        Path(f"gallery/who{number % 2}").mkdir(parents=True, exist_ok=True)
        Path(f"gallery/who{number % 2}/{number}.png").write_bytes(picture(number))
    write = gossamer.batch.index.write_gallery  # type: ignore[attr-defined]
    refused: list[str] = []

    def second(*words: object) -> None:
        with pytest.raises(GossamerError, match="another process") as caught:
            index_many(model, "gallery", "people.index")
        refused.append(str(caught.value))
        write(*words)

    monkeypatch.setattr("gossamer.batch.index.write_gallery", second)
    index_many(model, "gallery", "people.index")
    assert len(refused) == 1 and "people.index.parts: another process" in refused[0]
    assert len(Gallery.load("people.index")) == 4 and not Path("people.index.parts").exists()
