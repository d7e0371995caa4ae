"""The folder that `predict --out` leaves, damaged: settings, plan, units, log, lock, and links among the images."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.batch.folder import AnswerFolder
from gossamer.batch.plan import identity, scan
from gossamer.batch.status import batch_status
from gossamer.errors import DataError, StorageError
from tests.test_shrink import Work, shrunk, work  # noqa: F401 (a fixture)

UNIT = [0, "files", ["photos/a.png", 5, 7]]
RECORD = {
    "unit": 0, "kind": "files", "key": "photos/a.png", "entries": 1,
    "fingerprint": identity(json.dumps(UNIT).encode())[1], "model": "m", "images": 1,
    "unreadable": 0, "repeated": 0, "damaged": "", "input_bytes": 5, "rows": "rows/000/000000.jsonl", "bytes": 3,
    "seconds": 1.0, "at": 5.0,
}  # fmt: skip
BEGUN = {"format": 1, "model": "a.onnx", "sha256": "x", "settings": {}, "sources": ["photos"]}


def answers(begun: Any = BEGUN, plan: str = "", log: str = "") -> AnswerFolder:
    """A folder of answers with one unit."""
    shutil.rmtree("answers", ignore_errors=True)
    Path("answers/rows/000").mkdir(parents=True)
    Path("answers/rows/000/000000.jsonl").write_text("{}\n")
    Path("answers/batch.json").write_text(begun if isinstance(begun, str) else json.dumps(begun))
    Path("answers/plan.jsonl").write_text(plan or f'{{"units": 1, "bytes": 5}}\n{json.dumps(UNIT)}\n')
    Path("answers/log.jsonl").write_text(log or json.dumps(RECORD) + "\n")
    return AnswerFolder("answers")


def test_the_folder_as_it_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = answers()
    assert folder.settings() == BEGUN and [unit.number for unit in folder.plan() or []] == [0]
    assert folder.committed() == ({0: RECORD}, []) and batch_status("answers").complete


@pytest.mark.parametrize(
    "begun",
    [
        {**BEGUN, "settings": []}, {**BEGUN, "sources": 5}, {**BEGUN, "sources": [1]}, {**BEGUN, "sha256": 5},
        {**BEGUN, "model": None}, {**BEGUN, "format": True}, {**BEGUN, "format": 2}, [], 5, "", "[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_settings_of_answers_are_told(begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = answers(begun)
    for read in (folder.settings, lambda: batch_status("answers")):
        with pytest.raises(DataError, match=r"batch\.json"):
            read()


@pytest.mark.parametrize(
    "plan",
    [
        "[1]\n", '{"units": 1e999, "bytes": 1e999}\n', '{"units": -1, "bytes": -1}\n', '{"units": true, "bytes": 1}\n',
        f'{{"units": {"9" * 5000}, "bytes": 1}}\n', "[" * 100_000 + "\n", "5\n", "null\n",
    ],
)  # fmt: skip
def test_damaged_totals_of_a_plan_are_told(plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers(plan=plan)
    with pytest.raises(DataError, match=r"plan\.jsonl"):
        batch_status("answers")


@pytest.mark.parametrize(
    "unit",
    [
        '[0, "files", ["a", 1e999, 1]]', "[" * 100_000, '[0, "files", [null, null, null]]', '[-5, "files", ["a", 1, 1]]',
        '[0, "files", ["a", -1, 1]]', '[0, "files", [1, 1, 1]]', '[0, "files", ["a", true, 1]]', '[0, "shard"]',
        '[0, "other", ["a", 1, 1]]', "{}", '[0, "files", ["a", 1]]',
    ],
)  # fmt: skip
def test_a_damaged_unit_is_told(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"plan\.jsonl"):
        answers(plan=f'{{"units": 1, "bytes": 5}}\n{unit}\n').plan()
    with pytest.raises(DataError, match="twice"):
        answers(plan='{"units": 2, "bytes": 5}\n' + 2 * f"{json.dumps(UNIT)}\n").plan()


@pytest.mark.parametrize(
    "changed",
    [
        {"at": "x"}, {"at": math.nan}, {"input_bytes": "x"}, {"input_bytes": -1}, {"images": -5}, {"unit": -1},
        {"seconds": []}, {"images": True}, {"rows": 5}, {"damaged": None},
    ],
)  # fmt: skip
def test_a_damaged_line_of_the_log_is_answered_again(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = answers(log=json.dumps({**RECORD, **changed}) + "\n")
    assert batch_status("answers").units == 0, "and no number of it is counted"
    kept, (note,) = folder.committed()
    assert kept == {} and "answered again" in note
    assert not Path("answers/rows/000/000000.jsonl").exists() and Path("answers/log.jsonl").read_bytes() == b""


def test_files_of_others_among_the_rows_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = answers()
    shutil.rmtree("answers/rows")
    Path("photos/000").mkdir(parents=True)
    Path("photos/000/a.png").write_bytes(b"a picture")
    Path("photos/000/000099.jsonl").write_bytes(b"rows in no line")
    Path("answers/rows").symlink_to("../photos")
    assert folder.committed()[0] == {}
    assert [path.name for path in Path("photos/000").iterdir()] == ["a.png"]


def test_a_pipe_as_the_lock_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers()
    os.mkfifo("answers/.lock")
    assert batch_status("answers").complete
    with pytest.raises(StorageError):
        AnswerFolder("answers").begin()


def test_a_loop_of_links_is_a_row_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("photos/a.png")
    Path("photos/loop.png").symlink_to("loop.png")
    Path("photos/nothing.png").symlink_to("nowhere")
    found = scan([Path("photos")])
    assert [Path(key).name for key, _, _ in found.files] == ["a.png", "loop.png", "nothing.png"]
