"""The heads that a network is to have: YAML or JSON text of `name: kind`, or of a name and what the head is like.

colour: classify
tags: {kind: multilabel, columns: [round, shiny], weight: 0.5}
size: {kind: regress, columns: [width_mm, height_mm], loss: l1}
parts: {kind: detect, column: boxes}
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gossamer.data.boxes.records import contents
from gossamer.data.source import shown
from gossamer.errors import DataError, MissingPackageError, SettingsError
from gossamer.predictions.head import KINDS, MOST_HEADS, is_plain_text

# the fields that each kind has, beside kind, columns, weight and loss
OWN: dict[str, tuple[str, ...]] = {
    "classify": ("classes", "hierarchy"),
    "multilabel": ("classes", "threshold"),
    "regress": ("mean", "std"),
    "detect": ("classes", "head", "anchor_sizes"),
    "segment": ("classes", "head"),
    "embed": ("dim",),
}
COMMON = ("kind", "column", "columns", "weight", "loss")
WIDE = ("multilabel", "regress")  # kinds that may have several columns
_ALLOWED = f"lines of `name: kind`, or `name: {{kind: ..., column: ...}}`, the kind one of {', '.join(KINDS)}"
_TEXT_LIMIT = 1 << 24  # bytes; identities are not in it, but anchors, means and names of classes are


@dataclass(frozen=True)
class HeadSpec:
    """What one head is to be.

    name: "" for the only head. kind: one of `KINDS`. columns: of the table that has its labels. weight: of its loss.
    loss, head: names, "" for the default. dim: numbers of an embedding, -1 for that of the settings. classes: () for
    those that the labels have. hierarchy: class names are paths down a tree, such as animal/dog. threshold: least score
    of a label, below 0 for that of the settings. mean, std: of each regression target, over the training images.
    anchor_sizes: width and height of each anchor in input pixels.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    weight: float = 1.0
    loss: str = ""
    head: str = ""
    dim: int = -1
    classes: tuple[str, ...] = ()
    hierarchy: bool = False
    threshold: float = -1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    anchor_sizes: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values that `parse_head` reads back: only what is not the default."""
        first = {field.name: field.default for field in fields(self)}
        found = {key: value for key, value in asdict(self).items() if key != "name" and value != first[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def with_values(self, **changes: Any) -> HeadSpec:
        """A copy with some fields changed."""
        return replace(self, **changes)


def heads_text(given: str) -> str:
    """The text of the heads: that of the file, where `given` is the path of one. Raises DataError, SettingsError."""
    if not given.strip():
        raise SettingsError("no heads", f"--heads with a YAML file of {_ALLOWED}", "name the heads")
    if "\n" in given or "{" in given or ": " in given:
        return given
    try:
        return contents(Path(given), _TEXT_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{given}: byte {error.start} is not UTF-8", "UTF-8 text", "save it as UTF-8") from error


def parse_heads(given: str) -> tuple[HeadSpec, ...]:
    """The heads of a file or a text, in its order. Raises DataError, SettingsError, MissingPackageError."""
    found = _values(heads_text(given))
    if not isinstance(found, dict) or not found:
        raise SettingsError(f"heads: {reprlib.repr(found)}", _ALLOWED, "mend the heads")
    if len(found) > MOST_HEADS:
        raise SettingsError(f"{len(found)} heads", f"1 to {MOST_HEADS}", "leave some out")
    for name in found:
        if not isinstance(name, str) or not name.isidentifier():
            raise SettingsError(f"head {reprlib.repr(name)}", "a name of letters, digits and _", "rename it")
    return tuple(parse_head(name, value) for name, value in found.items())


def parse_only(given: str, kind: str) -> HeadSpec | None:
    """The nameless head of a task that has one, of a text such as "columns: [a, b]"; None where none is given.

    Raises DataError, SettingsError, MissingPackageError.
    """
    if not given.strip():
        return None
    value = _values(heads_text(given))
    if not isinstance(value, dict) or value.get("kind", kind) != kind:
        raise SettingsError(
            f"heads of the task {kind}: {reprlib.repr(value)}",
            "columns: [...], of one head",
            "mend it, or --task multi",
        )
    return parse_head("", {"kind": kind, **value})


def dump_heads(specs: Sequence[HeadSpec]) -> str:
    """JSON text that `parse_heads` reads back, or `parse_only` where the only head has no name."""
    if len(specs) == 1 and not specs[0].name:
        return json.dumps(specs[0].to_json(), ensure_ascii=False)
    return json.dumps({spec.name: spec.to_json() for spec in specs}, ensure_ascii=False)


def parse_head(name: str, value: Any) -> HeadSpec:
    """One head: the name of a kind, or an object. Raises SettingsError."""
    what = f"head {name}" if name else "the head"
    given = {"kind": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise SettingsError(f"{what}: {reprlib.repr(value)}", _ALLOWED, "mend it")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"{what}: kind {reprlib.repr(kind)}", ", ".join(KINDS), "give it one of these kinds")
    for key in given:
        if key not in (*COMMON, *OWN[kind]):
            raise SettingsError(
                f"{what}: {kind} has no {reprlib.repr(key)}", ", ".join((*COMMON, *OWN[kind])), "leave it out"
            )
    read = {key: _field(f"{what}: {key}", key, given[key]) for key in given if key not in ("kind", "column", "columns")}
    spec = HeadSpec(name, kind, _columns(what, name, kind, given), **read)
    _check(what, spec)
    return spec


def _columns(what: str, name: str, kind: str, given: dict[str, Any]) -> tuple[str, ...]:
    """The columns of a head, by default the one of its name. Raises SettingsError."""
    if "column" in given and "columns" in given:
        raise SettingsError(f"{what}: column and columns", "one of the two", "leave one out")
    found = given.get("columns", given.get("column", name))
    columns = [found] if isinstance(found, str) else found
    good = isinstance(columns, list) and all(is_plain_text(column) for column in columns)
    if not good or not columns or len(set(columns)) < len(columns):
        raise SettingsError(f"{what}: columns {reprlib.repr(found)}", "different names of columns", "mend them")
    if len(columns) > 1 and kind not in WIDE:
        raise SettingsError(
            f"{what}: {len(columns)} columns for {kind}", f"one; several for {' and '.join(WIDE)}", "name one"
        )
    if set(columns) & {"path", "split"}:
        raise SettingsError(f"{what}: columns {shown(columns)}", "others than path and split", "name its own column")
    return tuple(columns)


def _field(what: str, key: str, value: Any) -> Any:
    """The value of a field, of its type and within its range. Raises SettingsError."""
    if key in ("mean", "std", "anchor_sizes"):
        if isinstance(value, list) and all(_is_number(one) for one in value):
            return tuple(float(one) for one in value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", "a list of numbers", "mend it")
    if key == "classes":
        if isinstance(value, list) and all(map(is_plain_text, value)) and value and len(set(value)) == len(value):
            return tuple(value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", "a list of different names", "mend it")
    if key in ("weight", "threshold"):
        high = 1.0 if key == "threshold" else 1e6
        if _is_number(value) and 0 <= value <= high:
            return float(value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", f"a number from 0 to {high:g}", "mend it")
    allowed: dict[str, tuple[type, str]] = {
        "dim": (int, "a whole number from 0 to 65536"),
        "hierarchy": (bool, "true or false"),
        "loss": (str, "the name of a loss"),
        "head": (str, "the name of a head"),
    }
    kind, good = allowed[key]
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value <= 65536):
        raise SettingsError(f"{what} {reprlib.repr(value)}", good, "mend it")
    return value


def _check(what: str, spec: HeadSpec) -> None:
    """Rules over more than one field. Raises SettingsError."""
    if spec.mean and not len(spec.mean) == len(spec.std) == len(spec.columns):
        raise SettingsError(
            f"{what}: {len(spec.mean)} means, {len(spec.std)} standard deviations", "one each a column", "mend them"
        )
    if any(one <= 0 for one in (*spec.std, *spec.anchor_sizes)) or len(spec.anchor_sizes) % 2:
        raise SettingsError(f"{what}: std or anchor_sizes", "numbers above 0, anchors in pairs", "mend them")
    if len(spec.columns) > 1 and spec.kind == "multilabel" and spec.classes not in ((), spec.columns):
        raise SettingsError(f"{what}: columns and classes", "columns, which are the labels", "leave the classes out")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _values(text: str) -> Any:
    """What YAML text holds. Raises SettingsError, MissingPackageError."""
    try:
        import yaml
    except ImportError as error:
        raise MissingPackageError("PyYAML", "train", "reading heads") from error
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise SettingsError("heads with aliases, which can grow without end", _ALLOWED, "write them out")
        return yaml.load(text, _loader(yaml))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"heads: no YAML: {reprlib.repr(str(error))}", _ALLOWED, "mend the text") from error


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader, but for a name given twice, which it takes the last of."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} is given twice")
            return super().construct_mapping(node, deep)

    return Loader
