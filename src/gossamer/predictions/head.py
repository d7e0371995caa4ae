"""A head as the model file describes it: which outputs it reads, and what they mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import SettingsError

Raw = NDArray[np.float32] | dict[str, NDArray[np.float32]]
"""The raw outputs for a batch: one array, or several by name; the first axis is the batch."""

# what a head can be -> the outputs that it reads, in their order, without the head's name
KINDS: dict[str, tuple[str, ...]] = {
    "classify": ("logits",),
    "multilabel": ("logits",),
    "regress": ("values",),
    "detect": ("deltas", "logits"),
    "segment": ("logits",),
    "embed": ("embedding",),
}
NAMELESS = ("embed",)  # kinds without classes
MOST_HEADS = 16


@dataclass(frozen=True)
class OutputHead:
    """One head of a network.

    kind: one of KINDS. name: "" for the only head; the outputs of others are called NAME.OUTPUT. classes: names of the
    classes, or of the numbers that a regression gives. options: what its decoding needs besides, as plain values.
    Raises SettingsError on values that make no sense; they may come from a hostile file.
    """

    kind: str
    classes: tuple[str, ...] = ()
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"head of kind {str(self.kind)[:40]!r}", ", ".join(KINDS), "install a newer gossamer")
        if not isinstance(self.name, str) or (self.name and not self.name.isidentifier()):
            raise SettingsError(f"head called {str(self.name)[:40]!r}", "letters, digits and _", "rename it")
        if not isinstance(self.classes, tuple) or not all(is_plain_text(name) for name in self.classes):
            raise SettingsError("classes: not a list of such texts", "texts without control characters", "fix them")
        if len(set(self.classes)) < len(self.classes) or bool(self.classes) == (self.kind in NAMELESS):
            raise SettingsError(
                f"{len(self.classes)} classes, {len(self.classes) - len(set(self.classes))} of them repeated",
                "one name for each output, none for an embedding",
                "fix them",
            )
        if not isinstance(self.options, dict):
            raise SettingsError(f"options of type {type(self.options).__name__}", "an object", "fix them")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs that it reads, in their order."""
        return tuple(f"{self.name}.{output}" if self.name else output for output in KINDS[self.kind])

    def of(self, raw: Raw) -> dict[str, NDArray[np.float32]]:
        """Its own outputs, without its name."""
        if not isinstance(raw, dict):
            return {KINDS[self.kind][0]: raw}
        return {short: raw[full] for short, full in zip(KINDS[self.kind], self.outputs)}

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads back to an equal object."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, values: Any) -> OutputHead:
        """From `to_json`'s dictionary: every field, no other. Raises SettingsError."""
        expected = {"kind", "classes", "name", "options"}
        if not isinstance(values, dict) or set(values) != expected or not isinstance(values["classes"], list):
            raise SettingsError("a head that is no object of its fields", ", ".join(sorted(expected)), "fix it")
        if not all(isinstance(name, str) for name in values["classes"]):
            raise SettingsError("classes: not a list of such texts", "texts", "fix them")
        return cls(**{**values, "classes": tuple(values["classes"])})


def outputs_of(heads: tuple[OutputHead, ...]) -> tuple[str, ...]:
    """The names of all outputs that the heads read."""
    return tuple(name for head in heads for name in head.outputs)


def raw_of(names: Sequence[str], arrays: Sequence[NDArray[np.float32]]) -> Raw:
    """One array as it is, several by their names."""
    return arrays[0] if len(arrays) == 1 else dict(zip(names, arrays, strict=True))


def image_outputs(raw: Raw, index: int) -> Raw:
    """The outputs of one image, with a batch axis of 1."""
    return {n: a[index : index + 1] for n, a in raw.items()} if isinstance(raw, dict) else raw[index : index + 1]


def concatenated(parts: list[Raw]) -> Raw:
    """The outputs of several batches, concatenated."""
    first = parts[0]
    if not isinstance(first, dict):
        return np.concatenate([part for part in parts if not isinstance(part, dict)])
    return {name: np.concatenate([part[name] for part in parts if isinstance(part, dict)]) for name in first}


def flattened(raw: Raw, most: int = 0) -> NDArray[np.float32]:
    """All outputs of a batch, a row per image: (N, F); of an output with more than `most` values, `most` evenly spread."""
    arrays = raw.values() if isinstance(raw, Mapping) else [raw]
    rows = []
    for array in arrays:
        values = array.reshape(len(array), -1)
        count = values.shape[1]
        rows.append(values[:, np.arange(most) * count // most] if 0 < most < count else values)
    return np.concatenate(rows, axis=1).astype(np.float32, copy=False)


def is_plain_text(value: Any) -> bool:
    """A text that is not empty, without control characters and lone surrogates."""
    return isinstance(value, str) and bool(value) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)
