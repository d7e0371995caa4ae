"""The images that annotation files list: some are not there, and some are listed more than once."""

from __future__ import annotations

from dataclasses import dataclass, field

from gossamer.data.boxes.records import BoxRecord, ImageRecord
from gossamer.data.folder import printable_path
from gossamer.data.source import shown

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
            notes.append(f"{len(self.missing)} images are listed but missing, and skipped: {shown(self.missing)}")
        if self.unreadable:
            notes.append(f"{len(self.unreadable)} images cannot be read and are skipped: {shown(self.unreadable)}")
        if self.merged:
            more = f"{sum(self.merged.values())} boxes of their further entries are added"
            notes.append(f"{len(self.merged)} images are listed more than once, and {more}: {shown(self.merged)}")
        if self.moved:
            notes.append(
                f"{len(self.moved)} images are listed in two splits and stay in one: {shown(self.moved.values())}"
            )
        return notes
