"""What one place holds before it is split: names, targets and where the images are. Each kind of targets is a `Table`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from gossamer.data.source import Indices, Source, Store, Targets, class_order, shown
from gossamer.errors import DataError
from gossamer.host.text import counted

StrPath = str | os.PathLike[str]


@dataclass
class Table:
    """All images of one place with one class each, before they are split.

    names: unique display paths. labels: index into `classes`. splits: "train", "val", "test" or "" a row.
    fixed: the classes are given from outside (classes.txt, numbers), so they stay even where no image has them.
    targets: what is known of each row, where it is more than a class. unseen: classes without a training image are
    allowed in the other splits.

    image, images, stratified: how messages call one image and several, and what a fraction is held out of for validation. derived: the label of
    an image follows from its targets, so that of a saved split is not used.
    """

    image: ClassVar[str] = "image"
    images: ClassVar[str] = "images"
    stratified: ClassVar[str] = "each class"
    derived: ClassVar[bool] = False

    kind: str
    classes: tuple[str, ...]
    names: list[str]
    labels: Indices
    splits: list[str]
    store: Store
    fixed: bool = False
    notes: list[str] = field(default_factory=list)
    targets: Targets | None = None
    unseen: bool = False

    def rows(self, *splits: str) -> Indices:
        """The rows of these splits, in order."""
        return np.array([i for i, split in enumerate(self.splits) if split in splits], dtype=np.int64)

    def present(self, rows: Indices) -> tuple[str, ...]:
        """The classes that these rows have, in the table's order."""
        return tuple(self.classes[i] for i in np.unique(self.labels[rows]))

    def strata(self) -> Indices:
        """(rows,) the class by which each row is split."""
        return self.labels

    def training_classes(self, root: StrPath, other: Table | None = None) -> tuple[str, ...]:
        """The classes to train on. root: the path, for messages; other: validation data elsewhere.

        Raises DataError where there is nothing to train on, or one class only.
        """
        train = self.rows("train", "")
        if not len(train):
            raise DataError(
                f"{os.fspath(root)}: holds no training images",
                ALLOWED,
                "put them under train/, or into folders by class",
            )
        classes = self.classes if self.fixed or self.unseen else self.present(train)
        if self.unseen and other:
            classes = class_order([*classes, *other.classes])
        if len(classes) < 2:
            raise DataError(
                f"{os.fspath(root)}: holds one class only, {shown(classes)}",
                "two or more classes",
                "add images of another class",
            )
        return classes

    def source(self, classes: Sequence[str], rows: Indices) -> Source:
        """These rows as a source with the class numbers of `classes`. Raises DataError on a class not among them."""
        number = {name: i for i, name in enumerate(classes)}
        labels = self.labels[rows]
        unknown = [self.classes[i] for i in np.unique(labels) if self.classes[i] not in number]
        if unknown:
            first = self.names[int(rows[self.classes.index(unknown[0]) == labels][0])]
            raise DataError(
                f"{first}: class {shown(unknown)} has no training image",
                f"the classes {shown(classes)}",
                f"{'move the images to' if self.kind == 'image folder' else 'give the images'} the right class, "
                "or add training images of it",
            )
        to = np.array([number.get(name, -1) for name in self.classes], dtype=np.int64)
        return self.labelled(classes, rows, to[labels])

    def labelled(self, classes: Sequence[str], rows: Indices, labels: Indices) -> Source:
        """These rows as a source with these class numbers, (len(rows),)."""
        names = [self.names[i] for i in rows.tolist()]
        return Source(tuple(classes), names, labels, self.store, rows, self.targets)

    def content(self, classes: Sequence[str]) -> str:
        """What a line about the data counts before the images."""
        return counted(len(classes), "class")

    def details(self) -> str:
        """What a line about the data adds after the images."""
        return ""

    def split_notes(self, classes: Sequence[str], train: Indices, held: Indices) -> list[str]:
        """Notes on a split. train: rows to train on; held: rows held out of them to validate on, none where there are
        validation images. Raises DataError where nothing is left to train on."""
        single = len(np.unique(self.labels[train])) - len(np.unique(self.labels[held])) if len(held) else 0
        if not single:
            return []
        has_one = counted(single, "class has", "classes have")
        return [f"{has_one} one image, which is trained on; validation has none of {'it' if single == 1 else 'them'}"]


class TargetTable(Table):
    """Images whose targets have class numbers already: `labels` are 0 and mean nothing."""

    stratified: ClassVar[str] = "the images"

    def training_classes(self, root: StrPath, other: Table | None = None) -> tuple[str, ...]:
        return self.classes

    def source(self, classes: Sequence[str], rows: Indices) -> Source:
        return self.labelled(classes, rows, np.zeros(len(rows), np.int64))

    def split_notes(self, classes: Sequence[str], train: Indices, held: Indices) -> list[str]:
        return []


ALLOWED = "a folder of images, a CSV file of path,label, or tar shards"
