"""What the tests of batch prediction share: a small model file, shards, and the rows of a folder of answers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.batch import fill
from gossamer.batch.folder import AnswerFolder
from gossamer.cli.main import main
from gossamer.modelfile.metadata import model_file_bytes, read_model_file
from tests.conftest import once, write_image_folder
from tests.trained import SHORT


def model_files(factory: pytest.TempPathFactory) -> Path:
    """a.onnx, b.onnx (another one) and photos/; not to be changed."""

    def fill(folder: Path) -> None:
        write_image_folder(folder / "photos", each=4)
        assert main(["train", str(folder / "photos"), *SHORT, "--out", str(folder / "a")]) == 0
        assert main(["export", str(folder / "a"), "--out", str(folder / "a.onnx")]) == 0
        file = read_model_file(folder / "a.onnx")
        assert file.metadata is not None
        other = model_file_bytes(file.data, replace(file.metadata, licence="another"))
        (folder / "b.onnx").write_bytes(other)

    return once(factory, "batch", fill)


def picture(seed: int, size: int = 24) -> bytes:
    """A small PNG of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_source(root: Path, shards: int = 4, each: int = 8, files: int = 20) -> Path:
    """shards/ with an image in each that cannot be read, and photos/ with one such file."""
    for shard in range(shards):
        members = [(f"{index:04}.png", picture(shard * 1000 + index)) for index in range(each)]
        members += [(f"{index:04}.cls", b"1") for index in range(each)] + [("bad.jpg", b"\xff\xd8\xff cut off")]
        write_tar(root / "shards" / f"{shard:03}.tar", members)
    (root / "photos" / "inner").mkdir(parents=True)
    for index in range(files):
        (root / "photos" / ("inner" if index % 2 else ".") / f"{index:03}.png").write_bytes(picture(9000 + index))
    (root / "photos" / "broken.png").write_bytes(b"no image")
    (root / "photos" / "notes.txt").write_text("no image either")
    return root


def row_files(out: Path) -> dict[str, bytes]:
    """The files of rows with their bytes."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted((out / "rows").rglob("*.*"))}


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The rows by key; each must be there once."""
    lines = [json.loads(line) for content in row_files(out).values() for line in content.decode().splitlines()]
    keys = [line["key"] for line in lines]
    assert len(keys) == len(set(keys))
    return {line["key"]: line for line in lines}


def started(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    words = [sys.executable, "-P", "-m", "gossamer", *map(str, arguments)]
    return subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_process(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let units be answered in this process; the numbers of those that were."""
    answered: list[int] = []

    def answer(out: AnswerFolder, units: Any, config: dict[str, Any], count: int, committed: Any, tell: Any) -> None:
        from gossamer.batch.worker import answering as answering_of

        waiting = list(units)

        def report(message: dict[str, Any]) -> None:
            if "done" in message:
                out.commit([message["done"]])
                answered.append(message["done"]["unit"])
                committed(message["done"])

        answering_of(config).serve(lambda wait: waiting.pop(0) if waiting else None, report)

    monkeypatch.setattr(fill, "answer_units", answer)
    return answered
