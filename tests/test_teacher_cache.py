"""Answers of a teacher on disk: exact, bounded, and found again by what the teacher saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gossamer.cli.main import main
from gossamer.errors import StorageError
from gossamer.training import teacher as room
from gossamer.training import teacher_cache
from gossamer.training.loop import train
from gossamer.training.restore import load_run
from gossamer.training.teacher_cache import TeacherCache
from tests.test_teacher import CLASSES, COMPAT, TEACHERS, log, short

CPU = torch.device("cpu")
FACTS = {"teacher": "abc", "compute": "float32"}


def batch(seed: int, count: int = 4, side: int = 6) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def answers(images: Tensor) -> dict[str, Tensor]:
    return {"logits": images.mean((2, 3)), "maps": images[:, :1] * 2}


def filled(folder: Path, limit: int = 1 << 20, **facts: Any) -> TeacherCache:
    cache = TeacherCache({**FACTS, **facts}, limit, str(folder))
    images = batch(0)
    cache.put(cache.digests(images), answers(images))
    cache.flush()
    return cache


def test_what_was_seen_is_answered_to_the_bit_and_nothing_else_is(tmp_path: Path) -> None:
    filled(tmp_path)
    cache = TeacherCache(FACTS, 1 << 20, str(tmp_path))
    assert cache.taken_notes() == [f"teacher cache: 4 answers of earlier trainings in {tmp_path}"] and not cache.notes
    images = batch(0)
    for seen, rows in (
        (images, [0, 1, 2, 3]),
        (images[[2, 0]], [2, 0]),
        (images.to(memory_format=torch.channels_last), [0, 1, 2, 3]),
    ):
        known = cache.get(cache.digests(seen), CPU)
        assert known is not None and sorted(known) == ["logits", "maps"]
        for name, value in answers(images).items():
            assert torch.equal(known[name], value[rows])
    changed = images.clone()
    changed[1, 0, 0, 0] += 1e-6
    for other in (batch(1), changed, torch.cat([images, batch(1)[:1]]), images.reshape(4, 3, 4, 9), images.flip(3)):
        assert cache.get(cache.digests(other), CPU) is None
    for facts in ({"teacher": "abd"}, {"compute": "bfloat16"}, {"more": 1}):
        other = TeacherCache({**FACTS, **facts}, 1 << 20, str(tmp_path))
        assert not other.rows and other.key != cache.key


def test_sizes_of_several_kinds_are_kept_apart(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    small = batch(5, side=4)
    cache.put(cache.digests(small), answers(small))
    cache.flush()
    cache.flush()  # nothing is left to write
    again = TeacherCache(FACTS, 1 << 20, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2 and len(again.rows) == 8
    known = again.get(again.digests(small), CPU)
    assert known is not None and known["maps"].shape == (4, 1, 4, 4)


def test_the_limit_holds_on_disk_and_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache, "SHARD", 500)  # a file every few answers
    limit = 3000
    cache = TeacherCache(FACTS, limit, str(tmp_path))
    cache.taken_notes()
    for seed in range(12):
        images = batch(seed)
        cache.put(cache.digests(images), answers(images))
    cache.flush()
    notes = cache.taken_notes()
    assert len(notes) == 1 and "teacher cache: full with" in notes[0]
    assert 1000 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    less = TeacherCache(FACTS, 600, str(tmp_path))  # a smaller limit takes less of it
    assert less.size <= 600 and sum("teacher cache: full with" in note for note in less.notes) == 1


def test_a_file_beyond_the_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(teacher_cache, "read_regular", lambda path: pytest.fail("it was read"))
    assert not TeacherCache(FACTS, 100, str(tmp_path)).rows


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other", "bit", "named"])
def test_a_damaged_file_is_named_and_left_out(damage: str, tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    from safetensors.numpy import save

    contents = {
        "cut": data[:-9],
        "text": b"hello",
        "empty": b"",
        "other": save({"gossamer.keys": np.zeros((2, 3), np.uint8)}),
        "bit": data[:-1] + bytes([data[-1] ^ 1]),  # of an answer
        "named": save({"gossamer.keys": np.zeros((2, 16), np.uint8), "logits": np.zeros((3, 2), np.float32)}),
    }
    path.write_bytes(contents[damage])
    if damage == "named":  # as it should be for its bytes, which are no cache
        path = path.rename(tmp_path / TeacherCache(FACTS, 1 << 20, str(tmp_path))._name(contents[damage]))
    cache = TeacherCache(FACTS, 1 << 20, str(tmp_path))
    assert f"{path} is left out, it is damaged" in cache.notes[0] and not cache.rows


def test_a_disk_that_is_full_costs_the_cache_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Any, data: bytes) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(teacher_cache, "write_bytes", fail)
    cache = filled(tmp_path)
    assert any("nothing more is kept: no space left" in note for note in cache.notes)
    assert cache.get(cache.digests(batch(0)), CPU) is not None  # in memory it is
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        TeacherCache(FACTS, 1 << 20, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--teacher-cache", "1M"], "teacher_cache without teacher"),
        (["--teacher-cache", "0"], "--teacher-cache '0'"),
        (["--teacher-cache", "1kB5"], "--teacher-cache '1kB5'"),
        (["--cache", "0"], "--cache '0'"),
        (["--teacher-cache", "1M", "--teacher", "x", "--deterministic"], "other batches have other last bits"),
        (["--teacher-cache", "much", "--teacher", "x"], "--teacher-cache 'much'"),
    ],
)
def test_bad_settings_are_one_line(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(CLASSES), "--net", "mobilenet_v1", "--out", str(tmp_path / "run"), *arguments]) == 2
    assert text in capsys.readouterr().err.strip().splitlines()[-1]


def test_another_training_of_the_same_images_asks_the_teacher_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    as_input = room.as_input
    monkeypatch.setattr(room, "as_input", lambda images, *rest: (asked.append(len(images)), as_input(images, *rest))[1])
    options = {"teacher_cache": "1M", "cache_dir": str(tmp_path / "cache"), "epochs": 2}
    teacher = COMPAT / TEACHERS["run"]
    first = train(short(CLASSES, tmp_path / "a", teacher, **options))
    computed, asked[:] = len(asked), []
    assert computed > 0
    second = train(short(CLASSES, tmp_path / "b", teacher, **options))
    assert asked == [] and "teacher cache: 12 answers of earlier trainings" in log(second)
    plain = train(short(CLASSES, tmp_path / "c", teacher, epochs=2))
    states = [load_run(run.path, "last").model.state_dict() for run in (first, second, plain)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) and torch.equal(value, states[2][name]), name
