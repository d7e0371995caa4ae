"""What a file that was written from a model file states of it: its input and its metadata; read and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.modelfile.metadata import CHECKED, ModelMetadata

MOST_AXES = 4  # of an input, behind its batch


@dataclass(frozen=True)
class Stated:
    """input: sides behind the batch, channels first of an image. metadata: None where the ONNX file had none."""

    input: tuple[int, ...]
    metadata: ModelMetadata | None


def stated_of(values: Any) -> Stated:
    """The entries "input" and "metadata". Raises ValueError and the like, and ModelFileError for metadata that break a rule."""
    sides, metadata = values["input"], values["metadata"]
    if not is_shape(sides):
        raise ValueError(f"an input of {str(sides)[:60]}")
    known = None if metadata is None else ModelMetadata.from_json(metadata)
    if known is not None and sides != [known.preprocess.channels, *known.preprocess.size]:
        raise ValueError(f"preprocessing that does not make an input of {sides}")
    return Stated(tuple(sides), known)


def is_shape(sides: Any) -> bool:
    """Whether this is a list of 1 to 4 positive whole numbers."""
    several = isinstance(sides, list) and 1 <= len(sides) <= MOST_AXES
    return several and all(type(one) is int and 0 < one < 2**31 for one in sides)


def wrong_outputs(names: Sequence[str], shapes: Sequence[Sequence[int]], metadata: ModelMetadata) -> str:
    """Why outputs of these names and shapes, behind the batch, are not those that the heads read; "" where they are."""
    read = tuple(names[:1]) if metadata.format == 1 else metadata.outputs
    sides = dict(zip(names, shapes, strict=True))
    counts = [math.prod(sides.get(name, (0,))) for name in read]
    wanted = sum(min(count, CHECKED) if metadata.format > 1 else count for count in counts)
    if set(read) == set(names) and wanted == len(metadata.checks[0].outputs):
        return ""
    return f"outputs {', '.join(names)[:200]} of other sizes than its heads read"
