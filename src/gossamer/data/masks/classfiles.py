"""The file that says what the values or colours of masks stand for, of gossamer, of a tool or of a public set.

classes.txt, classes.json        a class per value, or with colours
_classes.csv                     Roboflow: Pixel Value, Class
class_dict.csv, classes.csv      name, r, g, b, or a value and a name
label_colors.txt                 CamVid: red green blue name
labelmap.txt                     CVAT: name:red,green,blue:parts:actions
class_names.txt                  labelme: __ignore__, _background_, and a name a value
codes.txt, labels.txt            fastai's CamVid and others: a name a value, or a value and a name, or a name and its colour
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path, PurePath

import numpy as np

from gossamer.data.boxes.records import split_lines
from gossamer.data.boxes.voc import annotation_of, objects_of
from gossamer.data.csvfile import separator_of
from gossamer.data.folder import SPLIT_NAMES, folders, printable_path
from gossamer.data.masks.classes import FILES, ClassEntry, checked, parse_json, parse_text
from gossamer.errors import DataError, ImageError
from gossamer.host.encoding import decode_text, not_text
from gossamer.host.storage import read_unchanged
from gossamer.host.text import counted
from gossamer.images.decode import IMAGE_SUFFIXES, decode_stored, read_file
from gossamer.predictions.masks import IGNORED

Parse = Callable[[str, str], list[ClassEntry]]

_NAME = ("name", "class", "class_name", "classname", "label", "category")
_VALUE = ("value", "pixel value", "pixel_value", "id", "index", "class_id", "class id")
_COLOURS = (("r", "red"), ("g", "green"), ("b", "blue"))
_CSV = "a header with name and r, g, b, or with a value and a name, and a line per class"

_PLAIN = ("codes.txt", "labels.txt")
_VALUE_FIRST = re.compile(r"(\d{1,9})(?:\s*[:,;=]\s*|\s+)(\S.*)")
_COLOUR_FIRST = re.compile(r"(?:\d{1,3}\s+){3}\S")
_COLOUR_LAST = re.compile(r"\S\s+\d{1,3}\s+\d{1,3}\s+\d{1,3}$")

_VOC_FILE = re.compile(r"20(?:0[789]|1[012])_\d{6}\.png")
_TRIED = 20  # annotation files that are looked into

VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""PASCAL VOC's classes in the order of their values (VOC2012 development kit, VOClabelcolormap and VOCopts)."""
CITYSCAPES_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""Cityscapes' classes of evaluation in the order of their train ids (cityscapesscripts/helpers/labels.py)."""


def read_class_entries(root: Path, first: str = "") -> list[ClassEntry] | None:
    """The entries of the classes file of a folder, of those of its splits, or of those that lead to the masks; None where there
    is none.

    first: the path of a mask, relative to `root`. Raises DataError: a file that cannot be read, or two files of gossamer's.
    """
    tops = [root, *(folder for folder in folders(root) if folder.name.lower() in SPLIT_NAMES)] if root.is_dir() else []
    above = [
        root / part for part in reversed(PurePath(first).parents) if ".." not in part.parts and not part.is_absolute()
    ]
    for top in dict.fromkeys([*tops, *above]):
        own = [top / name for name in FILES if (top / name).exists()] if top == root or top not in tops else []
        if len(own) > 1:
            raise DataError(f"{top}: has both {FILES[0]} and {FILES[1]}", "one classes file", "remove one")
        for path in (*own, *(top / name for name in PARSERS if (top / name).is_file())):
            content = _text_of(path)
            if path.name in _PLAIN and _lists_images(content):
                continue
            parse = {FILES[0]: parse_text, FILES[1]: parse_json, **PARSERS}[path.name]
            return parse(content, printable_path(str(path)))
    return None


def _lists_images(content: str) -> bool:
    """Whether a text names images: files of other names than the tools' own may list them in place of classes."""
    words = (word for line in split_lines(content) for word in line.replace(",", " ").split())
    return any("/" in word or "\\" in word or PurePath(word).suffix.lower() in IMAGE_SUFFIXES for word in words)


def _text_of(path: Path) -> str:
    try:
        return decode_text(read_unchanged(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "a file that can be read", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_text(error)}", "UTF-8 text", "save it as UTF-8") from error


def by_value(named: dict[int, str], name: str) -> list[ClassEntry]:
    """Entries of values that are given: 0, 1, 2, ...; without 0, that is the background, and 255 is left out.

    Raises DataError where values are missing between them.
    """
    kept = {value: each for value, each in named.items() if value != IGNORED}
    if kept and 0 not in kept:
        kept[0] = "background" if "background" not in kept.values() else "0"
    if sorted(kept) != list(range(len(kept))):
        missing = next(value for value in range(max(kept) + 1) if value not in kept)
        raise DataError(f"{name}: names no class of the value {missing}", "the values 0, 1, 2, ...", "add the line")
    return checked([(kept[value], None) for value in range(len(kept))], name)


def parse_csv(content: str, name: str) -> list[ClassEntry]:
    """The entries of a CSV file with a header, by colour or by value. Raises DataError."""
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(content), delimiter=separator_of(content), skipinitialspace=True)
            if row
        ]
    except csv.Error as error:
        raise DataError(f"{name}: {error}", _CSV, "fix the file") from error
    header = [cell.lower() for cell in rows[0]] if rows else []

    def column(names: Sequence[str]) -> int:
        return next((header.index(each) for each in names if each in header), -1)

    at, value_at, colours_at = column(_NAME), column(_VALUE), [column(names) for names in _COLOURS]
    if at < 0 or (value_at < 0 and min(colours_at) < 0):
        raise DataError(f"{name}: its header is {','.join(header)[:100] or '(empty)'}", _CSV, "fix the header")
    rows = [row for row in rows[1:] if any(row)]
    if any(len(row) < len(header) for row in rows):
        raise DataError(f"{name}: a line has fewer cells than the header", _CSV, "fix the file")
    if min(colours_at) >= 0:
        return checked([(row[at], _colour([row[i] for i in colours_at], name)) for row in rows], name)
    named: dict[int, str] = {}
    for row in rows:
        value = _number(row[value_at], name)
        if named.setdefault(value, row[at]) != row[at]:
            raise DataError(f"{name}: gives the value {value} twice", _CSV, "fix the file")
    return by_value(named, name)


def parse_colours_first(content: str, name: str) -> list[ClassEntry]:
    """The entries of CamVid's label_colors.txt: red green blue name. Raises DataError."""
    entries: list[ClassEntry] = []
    for line in split_lines(content):
        words = line.split(None, 3)
        if not words:
            continue
        if len(words) < 4:
            raise DataError(f"{name}: {line.strip()[:60]!r}", "red green blue name", "fix the line")
        entries.append((words[3].strip(), _colour(words[:3], name)))
    return checked(entries, name)


def parse_labelmap(content: str, name: str) -> list[ClassEntry]:
    """The entries of CVAT's labelmap.txt: name:red,green,blue:parts:actions. Raises DataError."""
    entries: list[ClassEntry] = []
    for line in split_lines(content):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().rsplit(":", 3)
        if len(parts) != 4:
            raise DataError(f"{name}: {line.strip()[:60]!r}", "name:red,green,blue:parts:actions", "fix the line")
        entries.append((parts[0], _colour(parts[1].split(","), name)))
    return checked(entries, name)


def parse_names(content: str, name: str) -> list[ClassEntry]:
    """The entries of labelme's class_names.txt, where __ignore__ before the background stands for 255. Raises DataError."""
    names = [line.strip() for line in split_lines(content) if line.strip()]
    return checked([(each, None) for i, each in enumerate(names) if i or each != "__ignore__"], name)


def parse_listed(content: str, name: str) -> list[ClassEntry]:
    """The entries of a list of names in the order of the values: as of `parse_names`, as of `parse_text` where the lines have
    colours, or with the value before each name. Raises DataError."""
    lines = [line.strip() for line in split_lines(content) if line.strip()]
    numbered = [_VALUE_FIRST.fullmatch(line) for line in lines]
    if not lines or not all(numbered):
        has_colours = any(_COLOUR_LAST.search(line) for line in lines)
        return (parse_text if has_colours else parse_names)(content, name)
    if all(_COLOUR_FIRST.match(line) for line in lines):
        return parse_colours_first(content, name)
    named: dict[int, str] = {}
    for match in filter(None, numbered):
        value = _number(match[1], name)
        if named.setdefault(value, match[2]) != match[2]:
            raise DataError(f"{name}: gives the value {value} twice", "each value once", "fix the file")
    return by_value(named, name)


def _number(cell: str, name: str) -> int:
    if not (cell.isascii() and cell.isdigit() and len(cell) < 10 and int(cell) <= IGNORED):
        raise DataError(f"{name}: value {cell[:20]!r}", f"0 to {IGNORED}", "fix the file")
    return int(cell)


def _colour(cells: Sequence[str], name: str) -> tuple[int, int, int]:
    if len(cells) != 3:
        raise DataError(f"{name}: a colour of {counted(len(cells), 'number')}", "red, green and blue", "fix the file")
    red, green, blue = (_number(cell.strip(), name) for cell in cells)
    return red, green, blue


PARSERS: dict[str, Parse] = {
    "_classes.csv": parse_csv,
    "class_dict.csv": parse_csv,
    "classes.csv": parse_csv,
    "label_colors.txt": parse_colours_first,
    "labelmap.txt": parse_labelmap,
    "class_names.txt": parse_names,
    **dict.fromkeys(_PLAIN, parse_listed),
}


def own_names(root: Path, first: str) -> list[ClassEntry] | None:
    """The names that a public set gives its values, without a file: PASCAL VOC's, and those of Cityscapes' train ids.

    first: the path of a mask. PASCAL VOC's masks are known by their palette, which other tools write too, together with
    their file names or with the classes of the boxes beside them. None where it is of no such set.
    """
    if Path(first).name.endswith("_labelTrainIds.png"):
        return [(name, None) for name in CITYSCAPES_NAMES]
    if "segmentationclass" not in Path(first).as_posix().lower():
        return None
    try:
        image = decode_stored(read_file(root / first))
    except ImageError:
        return None  # the reading of the masks says so
    palette = (image.getpalette() or [])[: 3 * len(VOC_NAMES)] if image.mode == "P" else []
    used = set(np.unique(np.asarray(image)).tolist()) - {IGNORED} if palette else {IGNORED}
    if palette != voc_palette()[: 3 * len(VOC_NAMES)] or max(used, default=0) >= len(VOC_NAMES):
        return None
    return [(name, None) for name in VOC_NAMES] if _VOC_FILE.match(Path(first).name) or _voc_boxes(root) else None


def _voc_boxes(root: Path) -> bool:
    """Whether the first files of Annotations/ name classes of PASCAL VOC alone."""
    names: set[str] = set()
    for path in islice(sorted(root.glob("Annotations/[!.]*.xml")), _TRIED):
        try:
            names |= {box.name for box in objects_of(annotation_of(path), path.name)[0]}
        except DataError:
            return False
    return bool(names) and names <= set(VOC_NAMES)


def voc_palette() -> list[int]:
    """PASCAL VOC's colour map, red, green and blue of the values 0 to 255: bit by bit, from the highest down."""
    palette = []
    for value in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (value >> 3 * bit + channel & 1) << 7 - bit
        palette += colour
    return palette
