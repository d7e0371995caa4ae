"""How the data of each task are read, by its name: what training, evaluation and the dataset check share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gossamer.data.boxes.open import read_boxes
from gossamer.data.frames import read_frames
from gossamer.data.heads.open import HeadTable, read_heads
from gossamer.data.heads.tasks import heads_of
from gossamer.data.layouts import read_class_folders
from gossamer.data.masks.open import read_masks
from gossamer.data.open import ReadTable, read_table
from gossamer.data.table import StrPath, Table
from gossamer.settings import Settings

ReadTask = Callable[[StrPath, Settings, Sequence[str], Table | None], Table]


def _classes(root: StrPath, settings: Settings, classes: Sequence[str], reference: Table | None) -> Table:
    if settings.frames:
        return read_frames(root, settings.frames)
    return read_class_folders(root, lambda: read_table(root, classes=classes, reference=reference))


def _identities(root: StrPath, settings: Settings, classes: Sequence[str], reference: Table | None) -> Table:
    # identities never seen are what it is for
    if settings.frames:
        return read_frames(root, settings.frames, every_class=True)
    return read_class_folders(root, lambda: read_table(root, every_class=True))


def _boxes(root: StrPath, settings: Settings, classes: Sequence[str], reference: Table | None) -> Table:
    return read_boxes(root)


def _masks(root: StrPath, settings: Settings, classes: Sequence[str], reference: Table | None) -> Table:
    return read_masks(root, classes=classes, reference=reference, ignore_index=settings.ignore_index)


def _heads(task: str) -> ReadTask:
    def read(root: StrPath, settings: Settings, classes: Sequence[str], reference: Table | None) -> Table:
        known = isinstance(reference, HeadTable)
        specs = reference.specs if known else heads_of(task, settings, root, tuple(classes))  # type: ignore[union-attr]
        return read_heads(root, specs, classes=classes, reference=reference, ignore_index=settings.ignore_index)

    return read


READERS: dict[str, ReadTask] = {
    "classify": _classes,
    "multilabel": _heads("multilabel"),
    "regress": _heads("regress"),
    "detect": _boxes,
    "segment": _masks,
    "embed": _identities,
    "multi": _heads("multi"),
}


def reader_of(task: str, settings: Settings) -> ReadTable:
    """How the data of a task are read with these settings. Raises KeyError for another name."""
    reader = READERS[task]

    def read(root: StrPath, *, classes: Sequence[str] = (), reference: Table | None = None) -> Table:
        return reader(root, settings, classes, reference)

    return read
