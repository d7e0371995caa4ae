"""What is in a data set, and what is wrong with it, before hours of training are spent on it.

Every image is read and decoded once (a JPEG at reduced size), so that an unreadable one is found before training.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gossamer.data.check.duplicates import Look, groups, look, near_pairs
from gossamer.data.source import Data, LeftOut, Source
from gossamer.errors import GossamerError, ImageError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.text import counted, format_table
from gossamer.images.preprocess import PIXEL_LIMIT, Description, decode, describe, printable

SMALL = 16
"""Pixels on the shorter side below which an image is listed as very small."""
LARGE = 25_000_000
"""Pixels above which an image is listed as very large: it costs time at each epoch."""
ELONGATED = 4.0
"""Longer side to shorter side above which an image is listed: a centre crop loses most of it."""
FEW = 10
"""Training images below which a class is called rare."""
UNEVEN = 3.0
"""Largest to smallest class in training above which balancing is advised."""
SHOWN = 5
"""Examples and SHOWN_CLASSES classes in the text; the JSON has all."""
SHOWN_CLASSES = 24

ODD = {
    "small": f"with a side under {SMALL} pixels",
    "large": f"over {LARGE // 1_000_000} megapixels",
    "elongated": f"longer than {ELONGATED:g} : 1",
    "blank": "of nearly one colour",
}
"""Kinds of odd images, with what each means."""
ALL_CLEAR = "Nothing: no unreadable, repeated, leaking or odd images, and the classes are even."
ALL_CLEAR_IMAGES = (
    "Nothing: no unreadable, repeated, leaking or odd images, and every class has annotations in every split."
)
"""The advice where nothing is listed at all; the second where images have annotations in place of a class."""
_ODD_ADVICE = {
    "blank": "Check that they show anything.",
    "small": "Check that they are not thumbnails or icons.",
    "large": "They cost time at each epoch: store them smaller, or train with --cache.",
    "elongated": "A centre crop loses most of them: consider --resize pad.",
}


@dataclass(frozen=True)
class Item:
    """An image of the data set by its split, name and class; reason: why it is listed, where that needs words."""

    split: str
    name: str
    label: str
    reason: str = ""


@dataclass(frozen=True)
class SideRange:
    """Smallest, median and largest of a side in pixels."""

    low: int
    median: float
    high: int


@dataclass(frozen=True)
class Split:
    """One split: images per class (of all, also unreadable ones), and what the readable ones are."""

    images: int
    classes: dict[str, int]
    width: SideRange | None
    height: SideRange | None
    formats: dict[str, int]
    modes: dict[str, int]


@dataclass(frozen=True, repr=False)
class ImageCheck(Report):
    """The result of the check of a data set's images.

    exact: groups of images that are equal byte for byte. near: groups of images that look the same but are not all
    equal (see duplicates). odd: kind -> images, see ODD. advice: what to do, a line each, most urgent first. notes: what was
    left out or looks odd when the data were read, a line each. left_out: how many images, of how many.
    """

    how: str
    splits: dict[str, Split]
    unreadable: list[Item]
    exact: list[list[Item]]
    near: list[list[Item]]
    odd: dict[str, list[Item]]
    advice: list[str]
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leaks(self, kind: str = "exact") -> list[list[Item]]:
        """The groups of a kind ("exact", "near") that are in more than one split."""
        return [group for group in getattr(self, kind) if len({item.split for item in group}) > 1]

    def conflicts(self, kind: str = "exact") -> list[list[Item]]:
        """The groups of a kind that carry more than one class."""
        return [group for group in getattr(self, kind) if len({item.label for item in group}) > 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values; images as {"split", "name", "class"} and "reason" where there is one."""

        def item(image: Item) -> dict[str, str]:
            plain = {"split": image.split, "name": image.name, "class": image.label}
            return {**plain, "reason": image.reason} if image.reason else plain

        def nested(groups: list[list[Item]]) -> list[list[dict[str, str]]]:
            return [[item(image) for image in group] for group in groups]

        return {
            "how": self.how,
            "splits": {
                name: {
                    "images": split.images,
                    "classes": split.classes,
                    "width": vars(split.width) if split.width else None,
                    "height": vars(split.height) if split.height else None,
                    "formats": split.formats,
                    "modes": split.modes,
                }
                for name, split in self.splits.items()
            },
            "unreadable": [item(image) for image in self.unreadable],
            "exact_duplicates": nested(self.exact),
            "near_duplicates": nested(self.near),
            "leaks": {"exact": nested(self.leaks("exact")), "near": nested(self.leaks("near"))},
            "conflicts": {"exact": nested(self.conflicts("exact")), "near": nested(self.conflicts("near"))},
            "odd": {kind: [item(image) for image in groups] for kind, groups in self.odd.items()},
            "advice": self.advice,
            "notes": self.notes,
            "left_out": [each.to_json() for each in self.left_out],
        }

    def text(self, annotations: str = "") -> str:
        """A summary for a terminal, advice last. annotations: their tables, where the images have no classes to count."""
        counts = annotations.splitlines() or _counts(self.splits)
        classes = not annotations
        lines = [self.how, "", *counts, "", *_facts(self.splits), ""]
        lines += [f"notes: {len(self.notes)}", *(f"  {note}" for note in self.notes)]
        lines += _examples("unreadable", [[item] for item in self.unreadable], classes)
        for kind in ("exact", "near"):
            lines += _examples(f"{kind} duplicates", getattr(self, kind), classes)
            lines += _examples(f"{kind} duplicates across splits", self.leaks(kind), classes)
            if classes:
                lines += _examples(f"{kind} duplicates of different class", self.conflicts(kind), classes)
        for kind, items in self.odd.items():
            lines += _examples(f"{kind} ({ODD[kind]})", [[item] for item in items], classes)
        lines += ["", "What to do"] + [f"  * {line}" for line in self.advice]
        return "\n".join(printable(line) for line in lines)


@dataclass(frozen=True)
class _Seen:
    """What reading one image gave. digest: SHA-256 of its bytes, b"" where there were none to read."""

    digest: bytes
    about: Description | None
    look: Look | None
    reason: str = ""


def check_images(
    data: Data,
    *,
    threads: int = 0,
    pixel_limit: int = PIXEL_LIMIT,
    identities: bool = False,
    annotated: bool = False,
    progress: Progress = SILENT,
) -> ImageCheck:
    """Read every image of every split and report. Never raises for an unreadable image.

    threads: 0 is one a core. identities: classes are identities, which need not be in every split. annotated: images have
    annotations, and all the same class.
    """
    items: list[Item] = []
    seen: list[_Seen] = []
    sources = data.splits()
    total = sum(len(source) for source in sources.values())
    for item, content in progress.track(_read_all(sources, threads, pixel_limit), total, "images"):
        items.append(item)
        seen.append(content)
    splits = {
        name: _split(source, [s.about for i, s in zip(items, seen) if i.split == name and s.about])
        for name, source in sources.items()
    }
    unreadable = [Item(i.split, i.name, i.label, s.reason) for i, s in zip(items, seen) if s.reason]
    exact, near = _duplicates(seen)
    check = ImageCheck(
        data.how,
        splits,
        unreadable,
        [[items[i] for i in group] for group in exact],
        [[items[i] for i in group] for group in near],
        {kind: [i for i, s in zip(items, seen) if kind in _oddities(s)] for kind in ODD},
        [],
        list(data.notes),
        list(data.left_out),
    )
    return replace(check, advice=_advice(check, identities, annotated))


def _read_all(sources: dict[str, Source], threads: int, pixel_limit: int) -> Iterator[tuple[Item, _Seen]]:
    """Every image in order, decoded in threads (Pillow and hashlib release the GIL)."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for split, source in sources.items():
            for start in range(0, len(source), 256):  # in parts: few results wait, and an interrupt ends soon
                part = range(start, min(start + 256, len(source)))
                for index, seen in zip(part, pool.map(_reader(source, pixel_limit), part)):
                    yield Item(split, source.names[index], source.classes[source.labels[index]]), seen


def _reader(source: Source, pixel_limit: int) -> Callable[[int], _Seen]:
    def read(index: int) -> _Seen:
        digest = b""
        try:
            content = source.read(index)
            digest = hashlib.sha256(content).digest()
            name = source.names[index]
            about = describe(content, pixel_limit=pixel_limit, name=name)
            image = decode(content, channels=1, at_least=(64, 64), pixel_limit=pixel_limit, name=name)
        except ImageError as error:
            return _Seen(digest, None, None, error.given.removeprefix(f"{printable(source.names[index])}: "))
        except (GossamerError, OSError) as error:  # a folder, disk or shard that fails at this image
            return _Seen(digest, None, None, str(error))
        return _Seen(digest, about, look(image))

    return read


def _split(source: Source, about: list[Description]) -> Split:
    def span(sides: list[int]) -> SideRange | None:
        return SideRange(min(sides), float(np.median(sides)), max(sides)) if sides else None

    counts = np.bincount(source.labels, minlength=len(source.classes)).tolist() if len(source) else []
    return Split(
        len(source),
        dict(zip(source.classes, counts)) if counts else dict.fromkeys(source.classes, 0),
        span([a.width for a in about]),
        span([a.height for a in about]),
        dict(Counter(a.format for a in about).most_common()),
        dict(Counter(a.mode for a in about).most_common()),
    )


def _duplicates(seen: list[_Seen]) -> tuple[list[list[int]], list[list[int]]]:
    """Groups of equal files, also unreadable ones but for empty files; groups that look the same and are not all equal."""
    copies: dict[bytes, list[int]] = {}
    for i, image in enumerate(seen):
        if image.digest and image.digest != hashlib.sha256(b"").digest():
            copies.setdefault(image.digest, []).append(i)
    kinds = [group for group in copies.values() if (first := seen[group[0]].look) and not first.blank]
    looks = [look for group in kinds if (look := seen[group[0]].look)]
    if not looks:
        return [group for group in copies.values() if len(group) > 1], []
    pairs = near_pairs(np.array([image.bits for image in looks], np.uint64), np.stack([image.thumb for image in looks]))
    near = [sorted(i for kind in group for i in kinds[kind]) for group in groups(len(kinds), pairs)]
    return [group for group in copies.values() if len(group) > 1], near


def _oddities(seen: _Seen) -> set[str]:
    if not seen.about or not seen.look:
        return set()
    short, long = sorted((seen.about.height, seen.about.width))
    facts = {
        "small": short < SMALL,
        "large": short * long > LARGE,
        "elongated": long > ELONGATED * short,
        "blank": seen.look.blank,
    }
    return {kind for kind in ODD if facts[kind]}


# --- advice --------------------------------------------------------------------------------------


def _advice(check: ImageCheck, identities: bool, annotated: bool) -> list[str]:
    """What to do, most urgent first."""
    last = [] if annotated else [_identity_advice if identities else _class_advice]
    lines = [line for rule in (_leak_advice, _conflict_advice, _file_advice, *last) for line in rule(check)]
    if check.notes:
        lines.append(
            f"Notes from reading the data: {len(check.notes)}, above. Check that nothing is left out by mistake."
        )
    return lines or [ALL_CLEAR_IMAGES if annotated else ALL_CLEAR]


def _leak_advice(check: ImageCheck) -> Iterator[str]:
    reported: set[tuple[str, str]] = set()
    for kind, how in (("exact", "byte for byte"), ("near", "but for small changes")):
        for split in [name for name in check.splits if name != "train"]:
            leaked = {(i.split, i.name) for group in check.leaks(kind) for i in group if i.split == split} - reported
            reported |= leaked
            if leaked:
                fraction = len(leaked) / check.splits[split].images
                yield (
                    f"Images of {split} that are in another split too, {how}: {len(leaked)} ({fraction:.1%}). "
                    "Scores will be too good: remove them from one of the splits."
                )


def _conflict_advice(check: ImageCheck) -> Iterator[str]:
    for kind, how in (("exact", "identical"), ("near", "nearly identical")):
        if count := len(check.conflicts(kind)):
            yield f"Groups of {how} images in different classes: {count}. At least one label of each is wrong: correct it."


def _file_advice(check: ImageCheck) -> Iterator[str]:
    images = sum(split.images for split in check.splits.values())
    if count := len(check.unreadable):
        yield (
            f"Unreadable images: {count} ({count / images:.1%}). They are skipped, and training stops above the fraction "
            "--max-unreadable: replace or remove them."
        )
    if count := sum(len(group) - 1 for group in check.exact):
        yield f"Exact copies of other images: {count}. They weigh double: remove them unless that is meant."
    copies = {(item.split, item.name) for group in check.exact for item in group[1:]}
    alike = {(item.split, item.name) for group in check.near for item in group[1:]} - copies
    if alike:
        yield (
            f"Images that look like others, but for small changes: {len(alike)}. Look at the groups: shots of one scene that "
            "a random split puts on either side make scores too good."
        )
    for kind, do in _ODD_ADVICE.items():
        if count := len(check.odd[kind]):
            yield f"Images {ODD[kind]}: {count}. {do}"


def _class_advice(check: ImageCheck) -> Iterator[str]:
    train = check.splits["train"].classes
    for name, split in check.splits.items():
        absent = [label for label, count in split.classes.items() if not count]
        if absent and split.images:
            effect = "cannot be learnt" if name == "train" else "cannot be measured there"
            yield f"{_some(absent)}: no images in {name}, so {effect}. Add some or drop the class."
    if rare := [label for label, count in train.items() if 0 < count < FEW]:
        yield f"{_some(rare)}: fewer than {FEW} training images. Collect more before trusting the scores."
    present = {label: count for label, count in train.items() if count}
    if present and max(present.values()) > UNEVEN * min(present.values()):
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        yield (
            f"Class {most} has {present[most] / present[least]:.1f} times the training images of {least}. "
            "Consider --sampler balanced or --class-weights balanced."
        )


def _identity_advice(check: ImageCheck) -> Iterator[str]:
    for name, split in check.splits.items():
        if single := [label for label, count in split.classes.items() if count == 1]:
            effect = "nothing to be pulled to" if name == "train" else "nothing to be found by"
            yield f"{_some(single)}: one image in {name}, so it has {effect}. Add another or drop it."


# --- text ----------------------------------------------------------------------------------------


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ("Class " if len(names) == 1 else "Classes ") + ", ".join(names[:SHOWN]) + more


def table_lines(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns in line: the first to the left, the others to the right."""
    return format_table(None, list(rows))


def _counts(splits: dict[str, Split]) -> list[str]:
    """Images per class and split; of many classes, the largest and the smallest."""
    classes = list(next(iter(splits.values())).classes)
    total = {label: sum(split.classes.get(label, 0) for split in splits.values()) for label in classes}
    ordered, half = sorted(classes, key=lambda label: -total[label]), SHOWN_CLASSES // 2
    shown: list[str] = classes if len(classes) <= SHOWN_CLASSES else [*ordered[:half], "", *ordered[-half:]]
    rows = [("class", *splits), *(_count_row(label, splits, len(classes)) for label in shown)]
    return table_lines([*rows, ("all", *(str(split.images) for split in splits.values()))])


def _count_row(label: str, splits: dict[str, Split], classes: int) -> tuple[str, ...]:
    if not label:
        return (f"({classes - SHOWN_CLASSES // 2 * 2} more)", *("..." for _ in splits))
    return (printable(label), *(str(split.classes.get(label, 0)) for split in splits.values()))


def _facts(splits: dict[str, Split]) -> list[str]:
    def kinds(figure: dict[str, int]) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in figure.items()) or "-"

    def span(figure: SideRange | None) -> str:
        return f"{figure.low} / {figure.median:g} / {figure.high}" if figure else "-"

    rows = [("", *splits)]
    for what, side in (("width: min / median / max", "width"), ("height: min / median / max", "height")):
        rows.append((what, *(span(getattr(split, side)) for split in splits.values())))
    rows.append(("formats", *(kinds(split.formats) for split in splits.values())))
    rows.append(("colour modes", *(kinds(split.modes) for split in splits.values())))
    return table_lines(rows)


def _examples(title: str, groups: list[list[Item]], classes: bool) -> list[str]:
    """How many, and the first few: a line each. classes: whether images have a class of their own to name."""
    unit = "" if all(len(group) == 1 for group in groups) else f", {sum(map(len, groups))} images"
    lines = [f"{title}: {counted(len(groups), 'group') if unit else len(groups)}{unit}"]
    for group in groups[:SHOWN]:
        names = [f"{item.name} ({item.split}{f', {item.label}' if classes else ''})" for item in group[:3]]
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        reason = f": {group[0].reason}" if group[0].reason else ""
        lines.append("  " + " = ".join(names) + more + reason)
    return lines + (["  ..."] if len(groups) > SHOWN else [])
