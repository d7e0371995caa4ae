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
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gossamer.data.boxes.records import contents
from gossamer.data.source import shown
from gossamer.errors import DataError, MissingPackageError, SettingsError
from gossamer.host.encoding import decode_text, not_text
from gossamer.host.text import counted
from gossamer.predictions.head import KINDS, MOST_HEADS, is_plain_text
from gossamer.settings.file import BAD_TAGS, check_depth, check_sizes

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
SEVERAL_COLUMNS = ("multilabel", "regress")  # kinds that may have several columns
_ALLOWED = f"lines of `name: kind`, or `name: {{kind: ..., column: ...}}`, the kind one of {', '.join(KINDS)}"
_TEXT_LIMIT = 1 << 24  # bytes; identities are not in it, but anchors, means and names of classes are


@dataclass(frozen=True)
class HeadSpec:
    """What one head is to be.

    name: "" for the only head. kind: one of `KINDS`. columns: of the table that has its labels. weight: of its loss.
    loss, head: names, "" for the default. dim: numbers of an embedding, -1 for that of the settings. classes: () for
    those that the labels have. hierarchy: class names are paths down a tree, such as animal/dog. threshold: minimum score
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
        defaults = {field.name: field.default for field in fields(self)}
        changed = {key: value for key, value in asdict(self).items() if key != "name" and value != defaults[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}

    def with_values(self, **changes: Any) -> HeadSpec:
        """A copy with some fields changed."""
        return replace(self, **changes)


def heads_text(heads: str) -> str:
    """The text of the heads: that of the file, where `heads` is the path of one. Raises DataError, SettingsError."""
    if not heads.strip():
        raise SettingsError("no heads", f"--heads with a YAML file of {_ALLOWED}", "name the heads")
    if "\n" in heads or "{" in heads or ": " in heads:
        return heads
    try:
        return decode_text(contents(Path(heads), _TEXT_LIMIT))
    except UnicodeDecodeError as error:
        raise DataError(f"{heads}: {not_text(error)}", "UTF-8 text", "save it as UTF-8") from error


def parse_heads(heads: str) -> tuple[HeadSpec, ...]:
    """The heads of a file or a text, in its order. Raises DataError, SettingsError, MissingPackageError."""
    values = _values(heads_text(heads))
    if not isinstance(values, dict) or not values:
        raise SettingsError(f"heads: {reprlib.repr(values)}", _ALLOWED, "fix the heads")
    if len(values) > MOST_HEADS:
        raise SettingsError(f"{len(values)} heads", f"1 to {MOST_HEADS}", "leave some out")
    for name in values:
        if not isinstance(name, str) or not name.isidentifier():
            raise SettingsError(f"head {reprlib.repr(name)}", "a name of letters, digits and _", "rename it")
    return tuple(parse_head(name, value) for name, value in values.items())


def parse_only(heads: str, kind: str) -> HeadSpec | None:
    """The nameless head of a task that has one, of a text such as "columns: [a, b]"; None where there is none.

    Raises DataError, SettingsError, MissingPackageError.
    """
    if not heads.strip():
        return None
    value = _values(heads_text(heads))
    if not isinstance(value, dict) or value.get("kind", kind) != kind:
        raise SettingsError(
            f"heads of the task {kind}: {reprlib.repr(value)}",
            "columns: [...], of one head",
            "fix it, or --task multi",
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
    options = {"kind": value} if isinstance(value, str) else value
    if not isinstance(options, dict):
        raise SettingsError(f"{what}: {reprlib.repr(value)}", _ALLOWED, "fix it")
    kind = options.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"{what}: kind {reprlib.repr(kind)}", ", ".join(KINDS), "give it one of these kinds")
    for key in options:
        if key not in (*COMMON, *OWN[kind]):
            raise SettingsError(
                f"{what}: {kind} has no {reprlib.repr(key)}", ", ".join((*COMMON, *OWN[kind])), "leave it out"
            )
    read = {
        key: _field(f"{what}: {key}", key, options[key]) for key in options if key not in ("kind", "column", "columns")
    }
    spec = HeadSpec(name, kind, _columns(what, name, kind, options), **read)
    _check(what, spec)
    return spec


def _columns(what: str, name: str, kind: str, options: dict[str, Any]) -> tuple[str, ...]:
    """The columns of a head, by default the one of its name. Raises SettingsError."""
    if "column" in options and "columns" in options:
        raise SettingsError(f"{what}: column and columns", "one of the two", "leave one out")
    stated = options.get("columns", options.get("column", name))
    columns = [stated] if isinstance(stated, str) else stated
    good = isinstance(columns, list) and all(is_plain_text(column) for column in columns)
    if not good or not columns or len(set(columns)) < len(columns):
        raise SettingsError(f"{what}: columns {reprlib.repr(stated)}", "different names of columns", "fix them")
    if len(columns) > 1 and kind not in SEVERAL_COLUMNS:
        raise SettingsError(
            f"{what}: {counted(len(columns), 'column')} for {kind}",
            f"one; several for {' and '.join(SEVERAL_COLUMNS)}",
            "name one",
        )
    if set(columns) & {"path", "split"}:
        raise SettingsError(f"{what}: columns {shown(columns)}", "others than path and split", "name its own column")
    return tuple(columns)


def _field(what: str, key: str, value: Any) -> Any:
    """The value of a field, of its type and within its range. Raises SettingsError."""
    if key in ("mean", "std", "anchor_sizes"):
        if isinstance(value, list) and all(_is_number(number) for number in value):
            return tuple(float(number) for number in value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", "a list of numbers", "fix it")
    if key == "classes":
        if isinstance(value, list) and all(map(is_plain_text, value)) and value and len(set(value)) == len(value):
            return tuple(value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", "a list of different names", "fix it")
    if key in ("weight", "threshold"):
        high = 1.0 if key == "threshold" else 1e6
        if _is_number(value) and 0 <= value <= high:
            return float(value)
        raise SettingsError(f"{what} {reprlib.repr(value)}", f"a number from 0 to {high:g}", "fix it")
    allowed: dict[str, tuple[type, str]] = {
        "dim": (int, "a whole number from 0 to 65536"),
        "hierarchy": (bool, "true or false"),
        "loss": (str, "the name of a loss"),
        "head": (str, "the name of a head"),
    }
    kind, good = allowed[key]
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value <= 65536):
        raise SettingsError(f"{what} {reprlib.repr(value)}", good, "fix it")
    return value


def _check(what: str, spec: HeadSpec) -> None:
    """Rules over more than one field. Raises SettingsError."""
    if spec.mean and not len(spec.mean) == len(spec.std) == len(spec.columns):
        raise SettingsError(
            f"{what}: {counted(len(spec.mean), 'mean')}, {counted(len(spec.std), 'standard deviation')}",
            "one per column",
            "fix them",
        )
    if any(number <= 0 for number in (*spec.std, *spec.anchor_sizes)) or len(spec.anchor_sizes) % 2:
        raise SettingsError(f"{what}: std or anchor_sizes", "numbers above 0, anchors in pairs", "fix them")
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
        check_depth(text)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise SettingsError("heads with aliases, which can grow without end", _ALLOWED, "write them out")
        values = yaml.load(text, _loader(yaml))
        check_sizes(values)
        return values
    except (yaml.YAMLError, *BAD_TAGS, RecursionError) as error:
        raise SettingsError(f"heads: no YAML: {reprlib.repr(str(error))}", _ALLOWED, "fix the text") from error


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader, but for a name given twice, which it takes the last of."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []  # a tag can say so of a list
            counts = Counter(key.value for key, _ in pairs if isinstance(key.value, str))
            twice = next((name for name, count in counts.items() if count > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} is given twice")
            return super().construct_mapping(node, deep)

    return Loader
