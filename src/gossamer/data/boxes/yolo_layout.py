"""Where a YOLO data set has its images, their label files and the text file of its class names."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gossamer.data.boxes.records import files_in, parse_number, split_of
from gossamer.data.folder import folders
from gossamer.data.spelling import spelling
from gossamer.host.encoding import peeked
from gossamer.host.storage import open_regular
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

TEXT = (
    *("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "classes.names"),
    *("predefined_classes.txt", "_classes.txt", "names.txt", "coco.names", "voc.names"),
)
NAME_STEMS = {"classes", "obj", "labels", "predefined_classes", "_classes", "names"}
"""What files of class names are called that end in .txt, as label files do."""
_IMAGES = ("images", "jpegimages", "image", "imgs", "img", "data", "photos", "pictures")
_LABELS = ("labels", "label", "annotations", "annotation", "ann", "yolo", "txt")
_TRIED = 20  # label files that are looked into before a folder is one without
_WALKED = 200  # folders that are looked into for images with label files beside them


def yolo_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of images, folder of labels) of each part, [] where there is none."""
    below = _by_name(root)
    images, labels = below.get("images"), below.get("labels")
    if images and labels:
        named = [folder for folder in folders(images) if split_of(folder.name)]
        labelled = _by_name(labels)
        return [(split_of(f.name), f, labelled.get(f.name.lower(), labels / f.name)) for f in named] or [
            ("", images, labels)
        ]
    tops = [folder for folder in folders(root) if split_of(folder.name)]
    in_split = [(split_of(top.name), _by_name(top)) for top in tops]
    parts = [
        (split, names["images"], names["labels"]) for split, names in in_split if {"images", "labels"} <= set(names)
    ]
    if parts or not names_file(root, tops):
        return parts
    beside = [(split_of(top.name), top, top) for top in tops if _labels_beside(top)]
    beside = beside or [(split_of(top.name), top, labels) for top in tops if (labels := _labels_inside(top))]
    tops = [top for top in (root, root / "data", root / "images") if top.is_dir()]
    alone = [("", top, top) for top in tops if _labels_beside(top, nested=False)]
    nested = [("", top, top) for top in tops[::-1] if _labels_beside(top)]
    inside = [("", top, labels) for top in tops[1:] if (labels := _labels_inside(top))]
    return beside or alone[:1] or _folders_by_contents(root, below) or inside[:1] or nested[:1]


class LabelFiles:
    """The label files of a folder. paths: all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: set[Path] = set()
        self._by_spelling: dict[str, Path | None] = {}
        for path in sorted(folder.rglob("*")):
            is_names = path.stem in NAME_STEMS and path.parent == folder
            if path.suffix.lower() != ".txt" or is_names or is_hidden(path.name):
                continue
            self.paths.add(path)
            key = spelling(path.relative_to(folder).with_suffix("").as_posix())
            self._by_spelling[key] = None if key in self._by_spelling else path

    def of(self, name: str) -> Path:
        """The label file of an image, by its path in its folder: a.txt, or as tools and other systems have it, A.TXT or
        a.jpg.txt; that of the first kind where there is none."""
        path = self.folder / Path(name).with_suffix(".txt")
        if path in self.paths:
            return path
        stem = Path(name).with_suffix("").as_posix()
        return self._by_spelling.get(spelling(stem)) or self._by_spelling.get(spelling(name)) or path


def _by_name(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case; of two that are alike so the first, as Images before images."""
    return {each.name.lower(): each for each in reversed(list(folders(folder)))}


def _folders_by_contents(root: Path, below: Mapping[str, Path]) -> list[tuple[str, Path, Path]]:
    """Folders of images and of labels of other names, as tools and older data sets have them: JPEGImages/ and labels/,
    images/ and annotations/, or labels/ beside the images themselves; [] where the names of the files do not match."""
    images = [below[name] for name in _IMAGES if name in below]
    for labels in (below[name] for name in _LABELS if name in below):
        stems = _labelled_stems(labels)
        for folder in [*(each for each in images if each != labels), root]:
            if any(path.suffix.lower() in IMAGE_SUFFIXES and path.stem in stems for path in folder.iterdir()):
                return [("", folder, labels)]
    return []


def _labels_inside(top: Path) -> Path | None:
    """The folder of labels in a folder of images, None where it has none of these images."""
    below = _by_name(top)
    for labels in (below[name] for name in _LABELS if name in below):
        stems = _labelled_stems(labels)
        if any(path.suffix.lower() in IMAGE_SUFFIXES and path.stem in stems for path in top.iterdir()):
            return labels
    return None


def _labelled_stems(folder: Path) -> set[str]:
    """The stems of the first text files of a folder where one of them is a label file, else none."""
    texts = list(islice(files_in(folder, ".txt"), _TRIED))
    return {path.stem for path in texts} if any(map(_is_label, texts)) else set()


def names_file(root: Path, tops: Sequence[Path] = ()) -> Path | None:
    """The text file of the class names of a folder: at its top, in one of labels, or of a split."""
    places = (root, root / "labels", root / "data", *tops)
    return next((top / name for top in places for name in TEXT if (top / name).is_file()), None)


def _labels_beside(folder: Path, *, nested: bool = True) -> bool:
    """Whether a folder has images with a label file of the same name beside them. nested: or a folder below it has, as CVAT
    keeps the folders of a task in obj_train_data/."""
    for top in islice(_below(folder), _WALKED) if nested else (folder,):
        texts = {path.stem: path for path in files_in(top, ".txt") if path.stem not in NAME_STEMS}
        names = (path for path in top.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES) if texts else iter(())
        labelled = (texts[path.stem] for path in names if path.stem in texts)
        if any(_is_label(path) for path in islice(labelled, _TRIED)):
            return True
    return False


def _below(folder: Path) -> Iterator[Path]:
    """A folder and those below it, in order; hidden ones and links are not entered."""
    for top, below, _ in os.walk(folder):
        below[:] = sorted(name for name in below if not is_hidden(name))
        yield Path(top)


def _is_label(path: Path) -> bool:
    """Whether the first line of a text file is one of numbers that a label has."""
    try:
        with open_regular(path) as file:
            words = peeked(file.read(1 << 16)).partition(b"\n")[0].split()
    except OSError:
        return False
    return len(words) >= 5 and all(math.isfinite(parse_number(word.decode("ascii", "replace"))) for word in words)
