"""kill -9 of workers and of the whole at random moments: the rows are in the end those of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

import gossamer
from tests import batchcases
from tests.batchcases import row_files, started, write_source


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_source(tmp_path / "home", shards=40, each=60, files=300))
    shutil.copy(batchcases.model_files(tmp_path_factory) / "a.onnx", "a.onnx")
    return Path.cwd()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.full
@pytest.mark.timeout(900)
def test_kills_at_random_moments_change_nothing(home: Path) -> None:
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")
    begun = time.monotonic()
    gossamer.predict_many("a.onnx", ["shards", "photos"], "undisturbed", workers=2)
    usual = time.monotonic() - begun
    rng = random.Random(0)
    kills = lives = 0
    command = ["predict", "a.onnx", "shards", "photos", "--out", "answers", "--workers", "2"]
    while kills < 10:
        lives += 1
        assert lives < 100
        process = started(*command, cwd=home)
        while kills < 10 and process.poll() is None:
            time.sleep(rng.uniform(0.05, 0.5) * usual)
            workers = children(process.pid)
            if rng.random() < 0.5 and workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills += 1
            elif process.poll() is None:
                process.kill()
                process.communicate()
                kills += 1
        if process.poll() is None:
            process.communicate(timeout=300)
        elif process.stdout is not None and not process.stdout.closed:
            process.communicate()
        if (home / "answers").exists() and process.returncode == 0:
            assert row_files(home / "answers") == row_files(home / "undisturbed")
            shutil.rmtree(home / "answers")  # through between two kills: begin again, and count on
    process = started(*command, cwd=home)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert row_files(home / "answers") == row_files(home / "undisturbed")
    assert len(batchcases.rows(home / "answers")) == 40 * 61 + 301
    assert f"{40 * 61 + 301} images" in out
    assert not (home / "answers" / ".work").exists()


def test_a_killed_worker_is_replaced_and_workers_end_with_their_parent(home: Path) -> None:
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")
    process = started("predict", "a.onnx", "shards", "--out", "answers", "--workers", "2", cwd=home)
    seen: list[int] = []
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None and not seen:
        seen = children(process.pid)
    os.kill(seen[0], signal.SIGKILL)
    while time.monotonic() < limit and process.poll() is None and not set(children(process.pid)) - set(seen):
        time.sleep(0.01)
    seen = children(process.pid)
    process.kill()
    process.communicate()
    while time.monotonic() < limit and any(Path(f"/proc/{pid}").exists() for pid in seen):
        time.sleep(0.02)
    assert not [pid for pid in seen if Path(f"/proc/{pid}").exists()]
    process = started("predict", "a.onnx", "shards", "--out", "answers", "--workers", "2", cwd=home)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert f"{40 * 61} images in 40 units" in out and len(batchcases.rows(home / "answers")) == 40 * 61
