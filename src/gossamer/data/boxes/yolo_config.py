"""What data.yaml (Ultralytics) or obj.data (Darknet, CVAT) says of a YOLO data set: class names, and the images of each
split.

path: the folder that train, val and test start from; relative to the file, as those are without it. Each of the three
is a folder of images, a text file that lists images, or a list of either.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gossamer.data.boxes.finder import LONGEST_PATH
from gossamer.data.boxes.records import contents, image_files, lines_of, parse_number
from gossamer.data.folder import SPLIT_NAMES, printable_path
from gossamer.data.source import shown
from gossamer.data.spelling import Spellings, spelling
from gossamer.errors import DataError, MissingPackageError
from gossamer.host.encoding import decode_text, not_text, peeked
from gossamer.host.storage import open_regular
from gossamer.host.text import counted
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
DARKNET = "obj.data"
SPLIT_ORDER = ("train", "val", "test")
_YAML_LIMIT = 1 << 20
_KEYS = {*SPLIT_NAMES, "names", "path", "nc", "kpt_shape"}
_BRACKETS = 1000  # PyYAML takes time with the square of their depth
NAMES = "names: [a, b] or names: {0: a, 1: b}"
PARTS = "the path of a folder of images, of a text file that lists images, or a list of them"


@dataclass(frozen=True)
class YoloConfig:
    """path: the file. names: as they stand, () where it gives none. count: the number of classes, -1 where it says none.
    top: the folder that `parts` start from, "" for that of the file. parts: split -> folders and lists of images. points:
    numbers behind each box that are its key points (kpt_shape)."""

    path: Path
    names: tuple[Any, ...]
    count: int
    top: str
    parts: dict[str, tuple[str, ...]]
    points: int = 0


@dataclass(frozen=True)
class YoloSplits:
    """splits: image -> its split, in order. missing: split -> its entries that lead nowhere. empty: split -> those that are
    there, where none of them has an image. notes: lines.

    undivided: train and val name the same images, and no other split any, as Ultralytics has it for images without a split.
    """

    splits: dict[Path, str] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    undivided: bool = False


def read_config(root: Path, file: Path | None = None) -> YoloConfig | None:
    """What the configuration file of a folder says, None where it has none. file: it, where it has a name of its own;
    else data.yaml, or the only .yaml file with names and training images in it. Raises DataError, MissingPackageError."""
    if file is not None:
        return _from_darknet(file) if file.suffix == ".data" else _from_yaml(file)
    yaml = next((root / name for name in YAML if (root / name).is_file()), None)
    if yaml is None:
        others = [path for path in sorted(root.glob("*.y*ml")) if _is_config(path)]
        yaml = others[0] if len(others) == 1 else None
    if yaml is not None:
        return _from_yaml(yaml)
    return _from_darknet(root / DARKNET) if (root / DARKNET).is_file() else None


def _is_config(path: Path) -> bool:
    """Whether a .yaml file of any name has the keys of a data set at its top."""
    try:
        with open_regular(path) as file:
            lines = peeked(file.read(_YAML_LIMIT)).splitlines()
    except OSError:
        return False
    keys = {line.partition(b":")[0] for line in lines if b":" in line}
    return b"names" in keys and b"train" in keys


def images_by_split(config: YoloConfig, root: Path) -> YoloSplits:
    """The images that each split of the configuration names.

    An image of several splits is kept for validation, or else for testing, and the notes say so: it is never trained on.
    A split that names the same images as train is none. Raises DataError where a list cannot be read.
    """
    by_split: dict[str, dict[Path, None]] = {}
    result = YoloSplits()
    where = printable_path(str(config.path))
    spellings = Spellings()
    for split in SPLIT_ORDER:
        if split not in config.parts:
            continue
        images: dict[Path, None] = {}
        for entry in config.parts[split]:
            place = _locate(entry, _tops(config, root), root, spellings)
            if place is None and (matching := _matching(entry, _tops(config, root))):
                images.update(dict.fromkeys(matching))
            elif place is None:
                result.missing.setdefault(split, []).append(entry)
            elif place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
                images[place] = None
            elif place.is_dir():
                images.update(dict.fromkeys(place / name for name in image_files(place, result.notes)))
            else:
                images.update(dict.fromkeys(_listed(place, config, root, result.notes)))
        if images:
            by_split[split] = images
        elif there := [entry for entry in config.parts[split] if entry not in result.missing.get(split, ())]:
            result.empty[split] = there
    for split in ("val", "test"):
        if "train" in by_split and by_split.get(split, {}).keys() == by_split["train"].keys():
            result.notes.append(f"{where}: train and {split} name the same images, which count as train only")
            del by_split[split]
    result = replace(result, undivided="val" in config.parts and list(by_split) == ["train"] and not result.missing)
    for split in ("train", "test", "val"):  # the last one that names an image has it
        overlap = [image for image in by_split.get(split, ()) if image in result.splits]
        if overlap:
            result.notes.append(
                f"{where}: {counted(len(overlap), f'image of {split} is', f'images of {split} are')} in "
                f"{result.splits[overlap[0]]} too, and {'counts' if len(overlap) == 1 else 'count'} as {split} only: "
                f"{_names_of(overlap)}"
            )
        result.splits.update(dict.fromkeys(by_split.get(split, ()), split))
    return result


def _names_of(images: Iterable[Path]) -> str:
    return shown((printable_path(image.name) for image in images), 3)


def _tops(config: YoloConfig, root: Path) -> list[Path]:
    """Folders that the entries may start from, likely ones first: `path:` may be a place on another machine, or one below a
    folder of data sets (datasets/coco8), of which the end may be here."""
    path = PurePosixPath(config.top.replace("\\", "/"))
    parts = [part for part in path.parts if part not in ("/", "..", ".")]
    ends = [root.joinpath(*parts[start:]) for start in range(len(parts))]
    there = [end for end in ends if os.path.isdir(end)]  # noqa: PTH112 (no error for long names)
    return list(dict.fromkeys(map(_resolved, [root / path, *there, root])))


def _resolved(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _locate(entry: str, tops: Iterable[Path], root: Path, spellings: Spellings | None = None) -> Path | None:
    """Where a path of a configuration or of a list leads, None where there is nothing.

    A path as another machine or another tool wrote it (/content/set/train/images, ../train/images, data/obj_train_data/a.jpg)
    is looked for below `root` by its end: two parts at least of a folder, a file name at least of a file. spellings: of an
    entry of a configuration, which may be a folder, and spelt otherwise, as Windows does not tell Images/ from images/.
    """
    folder_too = spellings is not None
    entry = entry.replace("\\", "/") if "\\" in entry else entry
    if not entry or "\0" in entry or len(entry) > LONGEST_PATH:
        return None
    parts = [part for part in PurePosixPath(entry).parts if part not in ("/", "..", ".")]
    is_absolute = entry.startswith("/") or bool(re.match("[A-Za-z]:", entry))
    if entry.startswith("../") and len(parts) > 1 and (root / Path(*parts)).exists():
        return _resolved(root / Path(*parts))  # Roboflow's ../train/images is train/images beside data.yaml
    for top in tops:
        place = _resolved(top / entry)
        if os.path.isfile(place) or (folder_too and os.path.isdir(place)):  # noqa: PTH112, PTH113 (no error for long names)
            return place
    for start in range(len(parts)):
        place = root / Path(*parts[start:])
        if os.path.isfile(place) or (folder_too and len(parts) - start > 1 and os.path.isdir(place)):  # noqa: PTH112, PTH113
            return _resolved(place)
    for start in range(len(parts) if spellings else 0):  # a line of a list is looked for by its name, one of many
        whole = start == 0 and not is_absolute  # images, where the disk has Images/
        if spellings and (spelt := spellings.find(root, parts[start:], folder_too=whole or len(parts) - start > 1)):
            return _resolved(spelt)
    return None


def _matching(entry: str, tops: Iterable[Path]) -> list[Path]:
    """The images that an entry with * or [...] in its path names, in order, and those of the folders that it names."""
    pattern = PurePosixPath(entry.replace("\\", "/"))
    if not any(mark in entry for mark in "*?[") or ".." in pattern.parts or pattern.is_absolute():
        return []
    for top in tops:
        try:
            named = sorted(top.glob(str(pattern)))
            images = [path for path in named if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
            images += [path / name for path in named if path.is_dir() for name in image_files(path)]
        except (OSError, ValueError, NotImplementedError):  # no pattern, or a folder that cannot be read
            continue
        if images := [path for path in images if not any(map(is_hidden, path.relative_to(top).parts))]:
            return list(dict.fromkeys(images))
    return []


def _by_name(root: Path) -> dict[str, Path | None]:
    """The images below `root` by their names and spellings, with and without the suffix; None where two are called so."""
    result: dict[str, Path | None] = {}
    for name in image_files(root):
        path = root / name
        for key in {path.name, spelling(path.name), path.stem, spelling(path.stem)}:
            result[key] = None if key in result else path
    return result


def _listed(path: Path, config: YoloConfig, root: Path, notes: list[str]) -> list[Path]:
    """The images that a list names, a line each; what is not there is noted. Raises DataError."""
    lines = [line.strip("\"'") for line in lines_of(path) if line and not line.startswith("#")]
    tops = list(dict.fromkeys([path.parent, *_tops(config, root)]))
    places = [_locate(line, tops, root) for line in lines]
    if None in places:  # names alone, or in another case, as lists of other tools and systems have them
        named = _by_name(root)
        for i, line in enumerate(lines):
            name = line.replace("\\", "/").rpartition("/")[2]
            places[i] = places[i] or named.get(name) or named.get(spelling(name))
    missing = [line for line, place in zip(lines, places, strict=True) if place is None]
    if missing:
        notes.append(
            f"{printable_path(str(path))}: {len(missing)} of {len(lines)} images are not there, and skipped: "
            f"{shown(map(printable_path, missing), 3)}"
        )
    return [place for place in places if place is not None]


def _from_yaml(path: Path) -> YoloConfig:
    """Raises DataError, MissingPackageError."""
    try:
        import yaml
    except ImportError as error:
        raise MissingPackageError("PyYAML", "train", f"reading {path.name}") from error
    try:
        source = decode_text(contents(path, _YAML_LIMIT))
        if sum(map(source.count, "[{")) > _BRACKETS:
            raise DataError(f"{path}: has more than {_BRACKETS} brackets", NAMES, "leave only the names in it")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(source, yaml.SafeLoader)):
            raise DataError(f"{path}: has aliases, which can grow without end", NAMES, "write the names out")
        loader = yaml.BaseLoader(source)  # all is text: a class may be called "no", "1" or "null"
        try:
            top = loader.get_single_node()
            _check_keys(path, top)
            value = None if top is None else loader.construct_document(top)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_text(error)}", NAMES, "save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no YAML: {reprlib.repr(str(error))}", NAMES, "fix the file") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: has no names", NAMES, "add the class names")
    count = parse_number(value.get("nc"))
    valid = count.is_integer() and 0 < count < 1e6
    start = value.get("path", "")
    return YoloConfig(
        path,
        _names(path, value.get("names")),
        int(count) if valid else -1,
        start if isinstance(start, str) and start != "null" else "",
        _parts(path, value),
        _points(path, value.get("kpt_shape")),
    )


def _check_keys(path: Path, top: Any) -> None:
    """Raises DataError where a key that is read stands twice in a YAML document, or the number of a name: PyYAML would take
    the last one. top: its node."""
    for key, node in _entries(top):
        if key == "names":
            numbers = Counter(number for number, _ in _entries(node))
            if again := [number for number, count in numbers.items() if count > 1]:
                raise DataError(f"{path}: names: {again[0]} is given twice", "each number once", "fix the names")
    keys = Counter(key for key, _ in _entries(top) if key.lower() in _KEYS)
    if twice := [key for key, count in keys.items() if count > 1]:
        raise DataError(f"{path}: {twice[0]} is given twice", "each key once", "remove one of them")


def _entries(node: Any) -> list[tuple[str, Any]]:
    """The keys of a mapping of YAML that are texts, and the nodes of their values; none of another node."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    return [(key.value, value) for key, value in pairs if isinstance(key.value, str)]


def _points(path: Path, shape: Any) -> int:
    """The numbers of the key points of a box: kpt_shape is [points, 2 or 3]. Raises DataError."""
    if shape in (None, "", "null", []):
        return 0
    sides = [parse_number(side) for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or not all(side.is_integer() and 0 < side < 10_000 for side in sides):
        raise DataError(f"{path}: kpt_shape is {reprlib.repr(shape)}", "[points, 2 or 3]", "fix the file")
    return int(sides[0] * sides[1])


def _parts(path: Path, value: dict[Any, Any]) -> dict[str, tuple[str, ...]]:
    """split -> its entries; one without any is left out. Raises DataError where an entry is no path."""
    parts: dict[str, tuple[str, ...]] = {}
    for key, entry in value.items():
        split = SPLIT_NAMES.get(key.lower()) if isinstance(key, str) else None
        if split is None or entry in ("", "null", "~", []):
            continue
        listed = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(each, str) and "\0" not in each for each in listed):
            raise DataError(f"{path}: {key} is {reprlib.repr(entry)}", PARTS, "fix the file")
        parts[split] = (*parts.get(split, ()), *(each.strip() for each in listed))
    return parts


def _names(path: Path, names: Any) -> tuple[Any, ...]:
    """What stands under `names`: a list, or numbers 0, 1, ... and a name each. Raises DataError."""
    if names is None:
        return ()
    if isinstance(names, dict):
        keys = {parse_number(key): name for key, name in names.items()}
        if len(keys) < len(names) or set(keys) != set(range(len(names))):
            raise DataError(
                f"{path}: the names are numbered {shown(map(str, names))}", "0, 1, 2, ...", "fix the numbers"
            )
        names = [keys[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{path}: names is {reprlib.repr(names)}", NAMES, "fix the file")
    return tuple(names)


def _from_darknet(path: Path) -> YoloConfig:
    """obj.data: a line `key = value` each; the names stand in a file of their own. Raises DataError."""
    lines = (line.partition("=") for line in lines_of(path, _YAML_LIMIT) if not line.startswith("#"))
    values = {key.strip().lower(): value.strip() for key, _, value in lines}
    count = parse_number(values.get("classes"))
    parts: dict[str, tuple[str, ...]] = {split: (values[key],) for key, split in SPLIT_NAMES.items() if values.get(key)}
    return YoloConfig(path, (), int(count) if count.is_integer() and 0 < count < 1e6 else -1, "", parts)
