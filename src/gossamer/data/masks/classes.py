"""What the values and colours of masks stand for: classes.txt and classes.json, and the table that follows from them.

`classfiles.py` finds the file and reads those of other tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.data.boxes.records import split_lines
from gossamer.data.source import shown
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted
from gossamer.images.decode import is_text
from gossamer.predictions.masks import IGNORED, Mask

UNKNOWN = -1
FILES = ("classes.txt", "classes.json")

Colour = tuple[int, int, int]
ClassEntry = tuple[str, Colour | None]  # name, and colour in colour masks
_BLANKS = re.compile(r"[ \t]+")
_ALLOWED = 'a line "name" or "name red green blue" a value, from value 0 on'


@dataclass(frozen=True)
class LabelMap:
    """classes: names. indices: (256,) class number of each value of a grey or palette mask, IGNORED or UNKNOWN.

    colours: (n,) sorted, red * 65536 + green * 256 + blue; colour_indices: (n,) their class numbers or IGNORED.
    grey: all colours are grey, so the values of a grey mask are colours and no numbers.
    """

    classes: tuple[str, ...]
    indices: NDArray[np.int16]
    colours: NDArray[np.int64]
    colour_indices: NDArray[np.int16]
    grey: bool

    def ordered(self, classes: Sequence[str]) -> LabelMap:
        """The same label_map with the class numbers of `classes`. Raises DataError where they are others."""
        if set(classes) != set(self.classes):
            raise DataError(
                f"masks of the classes {shown(self.classes, 12)}",
                f"the classes {shown(classes, 12)}",
                "fix classes.txt",
            )
        to = np.arange(-1, IGNORED + 1, dtype=np.int16)  # UNKNOWN and IGNORED stay
        to[1 : len(classes) + 1] = [classes.index(name) for name in self.classes]
        return replace(
            self, classes=tuple(classes), indices=to[self.indices + 1], colour_indices=to[self.colour_indices + 1]
        )

    def mask(self, image: Image.Image, name: str) -> Mask:
        """Class numbers and IGNORED, uint8 (H, W), of a mask as it is stored. Raises ImageError."""
        if image.mode == "P" and len(self.colours):
            image = image.convert("RGB")
        if image.mode in ("RGB", "RGBA", "RGBX"):
            pixels = np.asarray(image)[..., :3].astype(np.int64)
            if len(self.colours):
                return self._of_colours(pixels @ (65536, 256, 1), name)
            if (pixels != pixels[..., :1]).any():
                raise ImageError(
                    f"{name}: has colours", "grey or palette masks, or colours that classes.txt lists", "list them"
                )
            values = pixels[..., 0]
        elif image.mode in ("1", "L", "LA", "P", "I", "I;16", "I;16B", "I;16L"):
            values = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
            values = values * np.uint8(255 if self.grey else 1) if image.mode == "1" else values
        else:
            raise ImageError(f"{name}: has pixels of kind {image.mode}", "grey, palette or RGB masks", "convert it")
        return self._of_values(values, name)

    def _of_values(self, values: NDArray[Any], name: str) -> Mask:
        if values.dtype == np.uint8:
            indices = self.indices[values]
        else:
            inside = (values >= 0) & (values < len(self.indices))
            indices = np.where(inside, self.indices[values.astype(np.int64) * inside], np.int16(UNKNOWN))
        if (indices == UNKNOWN).any():
            wrong = np.unique(values[indices == UNKNOWN]).tolist()
            unknown = counted(len(values[indices == UNKNOWN]), "pixel has", "pixels have")
            known = np.flatnonzero((self.indices != UNKNOWN) & (self.indices != IGNORED)).tolist()
            raise ImageError(
                f"{name}: {unknown} the value {shown(map(str, wrong))}, which is no class",
                f"{counted(len(known), 'class')} with the values {known[0]} to {known[-1]}, and {IGNORED} to ignore",
                "fix the mask, list the class, or set ignore_index",
            )
        return np.asarray(indices, np.uint8)

    def _of_colours(self, packed: NDArray[np.int64], name: str) -> Mask:
        at = np.minimum(np.searchsorted(self.colours, packed), len(self.colours) - 1)
        unknown = self.colours[at] != packed
        if unknown.any():
            wrong = [f"{c >> 16} {c >> 8 & 255} {c & 255}" for c in np.unique(packed[unknown]).tolist()]
            raise ImageError(
                f"{name}: {counted(int(unknown.sum()), 'pixel has', 'pixels have')} the colour {shown(wrong, 3)}, which is no class",
                f"the {len(self.colours)} colours of the classes file",
                "fix the mask, or list the colour",
            )
        return np.asarray(self.colour_indices[at], np.uint8)


def label_map_of(entries: Sequence[ClassEntry], ignore_index: int | None) -> LabelMap:
    """The label_map of masks whose value v is the v-th entry, from 0.

    ignore_index: a further value to ignore beside IGNORED; the entry there is no class, and those behind it move up.
    Raises DataError.
    """
    if ignore_index is not None and not 0 <= ignore_index <= IGNORED:
        raise DataError(f"ignore_index {ignore_index}", f"0 to {IGNORED}", "fix the setting")
    kept = [value for value in range(len(entries)) if value not in (ignore_index, IGNORED)]
    if len(kept) < 2 or len(entries) > IGNORED + 1:
        raise DataError(
            f"masks of {counted(len(kept), 'class')}", f"2 to {IGNORED} classes", "fix the classes file or the masks"
        )
    numbers = np.full(len(entries), IGNORED, np.int16)
    numbers[kept] = range(len(kept))
    colours = [colour for _, colour in entries if colour is not None]
    packed = np.array([r << 16 | g << 8 | b for r, g, b in colours], np.int64)
    order = np.argsort(packed)
    grey = bool(colours) and all(r == g == b for r, g, b in colours)
    indices = np.full(256, UNKNOWN, np.int16)
    indices[IGNORED] = IGNORED
    if ignore_index is not None:
        indices[ignore_index] = IGNORED
    indices[[colour[0] for colour in colours] if grey else range(len(entries))] = numbers
    return LabelMap(
        tuple(entries[value][0] for value in kept),
        indices,
        packed[order],
        numbers[order] if colours else numbers[:0],
        grey,
    )


def numbered(count: int, ignore_index: int | None, names: Sequence[str] = ()) -> list[ClassEntry]:
    """Entries of `count` classes, called by their values or by `names`, beside the value that is ignored."""
    ignored = ignore_index is not None and ignore_index <= count
    entries: list[ClassEntry] = [(str(value), None) for value in range(count + ignored)]
    places = [value for value in range(len(entries)) if value != ignore_index]
    for value, name in zip(places, names):
        entries[value] = (name, None)
    return entries


def parse_text(content: str, name: str) -> list[ClassEntry]:
    """The entries of classes.txt, whose blank lines are passed over. Raises DataError.

    A line of four words or more that ends in three numbers has a colour; names may hold spaces.
    """
    entries: list[ClassEntry] = []
    for line in split_lines(content):
        words = _BLANKS.split(line.strip())  # other spaces belong to the names
        if not words[0]:
            continue
        numbers = [int(word) for word in words[-3:] if word.isascii() and word.isdigit() and len(word) < 10]
        if len(words) > 3 and len(numbers) == 3:
            entries.append((" ".join(words[:-3]), (numbers[0], numbers[1], numbers[2])))
        else:
            entries.append((" ".join(words), None))
    return checked(entries, name)


def parse_json(content: str, name: str) -> list[ClassEntry]:
    """The entries of classes.json: a list of names, or an object of name: [red, green, blue], of name: value or of
    value: name. Raises DataError."""
    allowed = "a list of names, or an object of name: [red, green, blue], of name: value or of value: name"
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: {str(error)[:200]}", allowed, "fix the file") from error
    entries: list[ClassEntry] = []
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        entries = [(value, None) for value in values]
    elif isinstance(values, dict) and all(_is_colour(value) for value in values.values()):
        entries = [(key, (value[0], value[1], value[2])) for key, value in values.items()]
    elif isinstance(values, dict) and (named := _by_value(values)) is not None:
        entries = [(each, None) for each in named]
    else:
        raise DataError(f"{name}: holds something else", allowed, "fix the file")
    return checked(entries, name)


def _by_value(values: dict[str, Any]) -> list[str] | None:
    """The names of the values 0, 1, 2, ... that an object gives, either way round; None where it does not."""
    pairs = values.items()
    if all(type(value) is int for value in values.values()):
        named = {value: key for key, value in pairs}
    elif all(key.isascii() and key.isdigit() and len(key) < 10 and isinstance(value, str) for key, value in pairs):
        named = {int(key): value for key, value in pairs}
    else:
        return None
    named.pop(IGNORED, None)
    complete = len(named) >= len(values) - 1 and set(named) == set(range(len(named)))
    return [named[value] for value in range(len(named))] if complete else None


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int for part in value)


def checked(entries: list[ClassEntry], name: str) -> list[ClassEntry]:
    """Raises DataError unless names and colours are distinct, and all entries have colours or none."""
    names = [each for each, _ in entries]
    colours = [colour for _, colour in entries if colour is not None]
    wrong = ""
    if not entries:
        wrong = "lists no classes"
    elif len(entries) > IGNORED + 1:
        wrong = f"lists {len(entries)} classes"
    elif any(not each.strip() or not is_text(each) for each in names):
        wrong = "has a name that is empty or cannot be printed"
    elif len(set(names)) < len(names):
        wrong = f"lists {next(each for each in names if names.count(each) > 1)!r} twice"
    elif colours and len(colours) < len(entries):
        wrong = f"gives no colour for {next(each for each, colour in entries if colour is None)!r}, but for others"
    elif any(not 0 <= part <= 255 for colour in colours for part in colour):
        wrong = "has a colour outside 0 to 255"
    elif len(set(colours)) < len(colours):
        wrong = f"gives one colour twice: {next(each for each in colours if colours.count(each) > 1)}"
    if wrong:
        raise DataError(f"{name}: {wrong}", f"{_ALLOWED}, at most {IGNORED + 1}", "fix the file")
    return entries
