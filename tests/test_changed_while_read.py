"""Files of annotations that somebody writes while they are read: one content or the other, or one line that says so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from gossamer.data.boxes.open import open_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.open import open_data
from gossamer.data.source import Data
from gossamer.data.tasks import reader_of
from gossamer.errors import DataError
from gossamer.host import storage
from gossamer.settings import Settings
from tests.annotations import write_file
from tests.test_tool_classes import KINDS
from tests.toollayouts import BOXES, COUNT, image, images, mask

Opened = Callable[[Path], Data]


def open_classes(root: Path) -> Data:
    return open_data(root, read=reader_of("classify", Settings()))


def masks_with_labels(root: Path) -> None:
    images(root)
    for number in range(COUNT):
        mask(root / f"masks/a{number}.png", number)
    write_file(root / "labels.txt", "ground\ndog\n")


CASES: dict[str, tuple[Callable[[Path], object], Opened, str]] = {
    "data.yaml": (BOXES["yolo: a file of any name"], open_boxes, "cars.yaml"),
    "obj.data": (BOXES["yolo: CVAT 1.1"], open_boxes, "obj.data"),
    "a list of images": (BOXES["yolo: CVAT 1.1"], open_boxes, "train.txt"),
    "classes.txt": (BOXES["yolo: beside"], open_boxes, "classes.txt"),
    "COCO": (BOXES["coco: one file"], open_boxes, "annotations.json"),
    "COCO of a split": (BOXES["coco: files by split"], open_boxes, "valid.json"),
    "labelme": (BOXES["labelme: beside"], open_boxes, "a0.json"),
    "Label Studio": (BOXES["labelstudio: JSON"], open_boxes, "project-3.json"),
    "CVAT": (BOXES["cvat: boxes"], open_boxes, "annotations.xml"),
    "FiftyOne": (BOXES["fiftyone: detections"], open_boxes, "labels.json"),
    "FiftyOne's classes": (KINDS["FiftyOne"], open_classes, "labels.json"),
    "choices": (KINDS["Label Studio"], open_classes, "project.json"),
    "Roboflow's classes": (KINDS["Roboflow"], open_classes, "train/_classes.csv"),
    "labels.csv": (KINDS["labels.csv"], open_classes, "labels.csv"),
    "names of masks": (masks_with_labels, open_masks, "labels.txt"),
}


def seen(read: Opened, root: Path) -> tuple[Any, ...] | str:
    """What is read, or the one line of the error."""
    try:
        data = read(root)
    except DataError as error:
        assert "\n" not in str(error)
        return "an error"
    rows = [
        (split, name, source.targets.line(int(row)) if source.targets else source.classes[int(label)])
        for split, source in data.splits().items()
        for name, label, row in zip(source.names, source.labels, source.rows, strict=True)
    ]
    return data.classes, tuple(sorted(rows))


class Changing:
    """Counts the openings of a file, and gives it another content before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.path, self.opened, self.when, self.content = path, 0, 0, b""
        self.open = storage.open_descriptor
        monkeypatch.setattr(storage, "open_descriptor", self)

    def __call__(self, path: str | os.PathLike[str]) -> int:
        if Path(path) == self.path:
            self.opened += 1
            if self.opened == self.when:
                self.write()
        return self.open(path)

    def write(self) -> None:
        self.path.unlink()
        if self.content != b"gone":
            self.path.write_bytes(self.content)


def contents(old: bytes) -> Iterator[bytes]:
    yield from (b"", b"gone", old[: len(old) // 2], b"[]", b"\xff{[<")
    yield old.replace(b"dog", b"cow")
    yield old.replace(b"car", b"*").replace(b"dog", b"car").replace(b"*", b"dog")


QUICK = ("data.yaml", "COCO", "Roboflow's classes", "labels.csv", "names of masks")


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.full) for case in CASES if case not in QUICK)]
)
def test_a_file_has_one_content_for_all_who_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    build, read, name = CASES[case]
    build(tmp_path)
    file = Changing(monkeypatch, tmp_path / name)
    first = seen(read, tmp_path)
    times, old = file.opened, file.path.read_bytes()
    assert times and isinstance(first, tuple)
    outcomes: Counter[str] = Counter()
    for content in contents(old):
        file.content = content
        file.write()
        second = seen(read, tmp_path)
        for when in range(1, times + 1):
            file.path.write_bytes(old)
            file.opened, file.when = 0, when
            third = seen(read, tmp_path)
            assert third in (first, second, "an error"), (content, when)
            outcomes[third if isinstance(third, str) else "read"] += 1
        file.when = 0
        file.path.write_bytes(old)
    # of a file per image, one that cannot be read is skipped with a note
    assert outcomes["read"] and (outcomes["an error"] or case == "labelme")


class Growing:
    """A file that somebody writes to between the opening and the end of the reading."""

    def __init__(self, file: IO[bytes], change: Callable[[], object]) -> None:
        self.file, self.change = file, change

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def fileno(self) -> int:
        return self.file.fileno()

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        if size < 0:
            self.change()
        return content


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def same_size(path: Path) -> None:
    """Other content of the same size, in the file itself."""
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[::-1])
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "change", [append, same_size, lambda path: os.truncate(path, 3)], ids=["longer", "same", "cut"]
)
def test_half_of_one_content_and_half_of_another_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    unchanged = storage.open_regular
    written: list[Path] = []

    def opened(path: str | os.PathLike[str]) -> Any:
        file = unchanged(path)
        return Growing(file, lambda: change(Path(path))) if Path(path) in written else file

    for name in ("data.yaml", "a list of images", "COCO", "labels.csv", "Roboflow's classes", "names of masks"):
        build, read, file_name = CASES[name]
        root = tmp_path / name
        image(root / "other.png", 1).unlink()
        build(root)
        written[:] = [root / file_name]
        with monkeypatch.context() as patch:
            patch.setattr(storage, "open_regular", opened)
            with pytest.raises(DataError, match="changed while it was read") as caught:
                read(root)
        assert "\n" not in str(caught.value) and file_name in str(caught.value)


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    BOXES["coco: one file"](tmp_path)
    file = tmp_path / "annotations.json"
    file.unlink()
    file.symlink_to(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"annotations\.json: is not a file"):
        open_boxes(tmp_path)
