"""Every kind of data is opened in one way: what it gives is that of version 0.1, so that a saved run still matches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer import Settings
from gossamer.data.split import split_rows
from gossamer.tasks.registry import task_of

EXPECTED = Path(__file__).parent / "splits.json"
"""What the first version of this program returned for `PLACES`: by its code, not by the code under test."""


def bitmap(path: Path, value: int = 0) -> None:
    """8 x 6 pixels; a bitmap has the same bytes whatever library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(path)


def folder(root: Path) -> dict[str, Any]:
    for name, count in (("ant", 7), ("bee", 5), ("cow", 1)):
        for index in range(count):
            bitmap(root / name / f"{index}.bmp")
    (root / "ant" / "notes.txt").touch()
    return {}


def folder_and_validation(root: Path) -> dict[str, Any]:
    for split, names in (("own/train", "ab"), ("own/val", "a"), ("other", "ba")):
        for name in names:
            bitmap(root / split / name / "0.bmp")
    (root / "own" / "extra").mkdir()
    return {"data": f"{root.name}/own", "val": f"{root.name}/other"}


def table(root: Path) -> dict[str, Any]:
    lines = ["path,label,split", *(f"{i}.bmp,{i % 3 + 9},{'test' if i > 7 else ''}" for i in range(10)), "gone.bmp,9,"]
    for index in range(10):
        bitmap(root / f"{index}.bmp")
    (root / "images.csv").write_text("\n".join(lines))
    return {"data": f"{root.name}/images.csv", "val_share": 0.4}


def identities(root: Path) -> dict[str, Any]:
    for split, names in (("train", "abc"), ("val", "cde")):
        for name in names:
            for index in range(2):
                bitmap(root / split / name / f"{index}.bmp")
    return {"task": "embed"}


def voc(root: Path, split: Callable[[int], str] = lambda index: "") -> dict[str, Any]:
    listed: dict[str, list[str]] = {}
    for index in range(10):
        bitmap(root / "JPEGImages" / f"{index}.bmp")
        name, right = ("rare" if index % 5 == 0 else "often"), 5 + index
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{index}.xml").write_text(
            f"<annotation><filename>{index}.bmp</filename><size><width>8</width><height>6</height></size><object>"
            f"<name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{right}</xmax><ymax>4</ymax></bndbox>"
            "</object></annotation>"
        )
        listed.setdefault(split(index), []).append(str(index))
    for part, names in listed.items():
        if part:
            (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names))
    return {"task": "detect"}


def voc_with_splits(root: Path) -> dict[str, Any]:
    return voc(root, lambda index: ("train", "val", "test")[index % 3])


def voc_and_validation(root: Path) -> dict[str, Any]:
    return {**voc(root / "own"), **voc(root / "other"), "data": f"{root.name}/own", "val": f"{root.name}/other"}


def masks(root: Path, count: int = 6) -> dict[str, Any]:
    for index in range(count):
        bitmap(root / "images" / f"{index}.bmp")
        bitmap(root / "masks" / f"{index}.bmp", (0, 1, 3)[index % 3])
    return {"task": "segment", "ignore_index": 1}


def masks_and_validation(root: Path) -> dict[str, Any]:
    masks(root / "other", 2)
    (root / "own").mkdir()
    (root / "own" / "classes.txt").write_text("sky\nbird\nsea\nland\n")
    return {**masks(root / "own"), "data": f"{root.name}/own", "val": f"{root.name}/other", "ignore_index": None}


def heads(root: Path) -> dict[str, Any]:
    lines = ["path,colour,size", *(f"{i}.bmp,{'red' if i % 3 else 'blue'},{i / 4 if i % 4 else ''}" for i in range(9))]
    for index in range(9):
        bitmap(root / f"{index}.bmp")
    (root / "labels.csv").write_text("\n".join(lines))
    return {"task": "multi", "heads": json.dumps({"colour": {"kind": "classify"}, "size": {"kind": "regress"}})}


def heads_and_validation(root: Path) -> dict[str, Any]:
    heads(root / "own")
    other = heads(root / "other")
    (root / "own" / "labels.csv").write_text(
        "path,colour,size\n0.bmp,green,1\n1.bmp,red,2\n2.bmp,blue,3\ngone.bmp,red,\n"
    )
    return {**other, "data": f"{root.name}/own", "val": f"{root.name}/other"}


def labels(root: Path) -> dict[str, Any]:
    heads(root)
    (root / "labels.csv").write_text("path,label,split\n0.bmp,a|b,train\n1.bmp,|,train\n2.bmp,b,val\n3.bmp,a,\n")
    return {"task": "multilabel"}


PLACES: dict[str, Callable[[Path], dict[str, Any]]] = {
    each.__name__: each
    for each in (
        folder,
        folder_and_validation,
        table,
        identities,
        voc,
        voc_with_splits,
        voc_and_validation,
        masks,
        masks_and_validation,
        heads,
        heads_and_validation,
        labels,
    )
}


def opened(name: str) -> dict[str, Any]:
    """What opening, scoring and reopening of a place return; the place is created below the working directory."""
    settings = Settings(**{"data": name, "seed": 5, **PLACES[name](Path(name))})
    task = task_of(settings.task)
    data = task.open_data(settings)
    rows = split_rows(data)
    again = task.apply_split(settings, rows[1:], data.classes)
    scored = task.open_source(settings.val or settings.data, data.classes, settings)
    return {
        "how": [data.how, again.how],
        "notes": [data.notes, again.notes],
        "fingerprints": [data.fingerprint, again.fingerprint, scored.fingerprint()],
        "rows": [list(row) for row in rows],
        "scored": [list(scored.classes), scored.names, scored.labels.tolist()],
    }


@pytest.mark.parametrize("name", PLACES)
def test_data_is_split_and_named_as_by_the_first_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert opened(name) == json.loads(EXPECTED.read_text())[name]
