"""The images that annotation files list: some are not there, and some are listed more than once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gossamer.data.boxes.records import BoxRecord, ImageRecord
from gossamer.data.folder import printable_path
from gossamer.data.source import shown
from gossamer.host.text import counted

SPLITS = ("", "train", "val", "test")  # an image that is in two stays in the later one


@dataclass
class ListedImages:
    """The images that the files list. paths: of those that are there, relative to the root; the others as messages show them."""

    paths: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    merged: dict[str, int] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)

    def join(self, record: ImageRecord, split: str, boxes: list[BoxRecord]) -> None:
        """An image listed once more, which has `boxes` there: those that it lacks are added, and of two splits it stays in the
        one that measures, so that no test image is trained on."""
        path = printable_path(record.path)
        if split == record.split:
            own = {(box.box, box.name, box.crowd) for box in record.boxes}
            new = [box for box in boxes if (box.box, box.name, box.crowd) not in own]
            record.boxes += new
            self.merged[path] = self.merged.get(path, 0) + len(new)
            return
        first, second = sorted((record.split, split), key=SPLITS.index)
        if split == second:
            record.split, record.boxes[:] = split, boxes
        self.moved[path] = f"{path} (in {second}, not in {first or 'the rest'})"

    def notes(self) -> list[str]:
        """What is skipped or merged, one line per kind."""
        notes = []
        if self.missing:
            are = counted(len(self.missing), "image is", "images are")
            notes.append(f"{are} listed but missing, and skipped: {shown(self.missing)}")
        if self.unreadable:
            are = counted(len(self.unreadable), "image cannot be read and is", "images cannot be read and are")
            notes.append(f"{are} skipped: {shown(self.unreadable)}")
        if self.merged:
            boxes = sum(self.merged.values())
            further = "its further entries" if len(self.merged) == 1 else "their further entries"
            more = counted(boxes, f"box of {further} is added", f"boxes of {further} are added")
            are = counted(len(self.merged), "image is", "images are")
            notes.append(f"{are} listed more than once, and {more}: {shown(self.merged)}")
        if self.moved:
            stay = counted(
                len(self.moved), "image is listed in two splits and stays", "images are listed in two splits and stay"
            )
            notes.append(f"{stay} in one: {shown(self.moved.values())}")
        return notes


def joined(records: Iterable[ImageRecord], notes: list[str]) -> list[ImageRecord]:
    """The records, those of one image as one: it would else be trained on and validate. notes: gets which these were."""
    by_path: dict[str, ImageRecord] = {}
    listed = ListedImages()
    for record in records:
        if by_path.setdefault(record.path, record) is not record:
            listed.join(by_path[record.path], record.split, record.boxes)
    notes += listed.notes()
    return list(by_path.values())
