"""Numbers and texts as C source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-:,()[]=+")
WIDTH = 110
C_TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int32": "int32_t", "uint32": "uint32_t"}


def comment(text: str, longest: int = 200) -> str:
    """A text within a comment: what could end it, or a line, or begin a trigraph, becomes a question-less underscore."""
    return "".join(c if c in PLAIN else "_" for c in text[:longest])


def number(value: float) -> str:
    """A float32, to its last bit."""
    value = float(np.float32(value))
    if not math.isfinite(value):
        raise ValueError(f"{value} in C source")
    return "0.0f" if value == 0 and math.copysign(1, value) > 0 else f"{value.hex()}f"


def array(name: str, values: NDArray[Any], static: bool = True) -> str:
    """A constant array."""
    kind = C_TYPES[values.dtype.name]
    flat = values.reshape(-1)
    if kind == "float":
        # decimals of 9 digits are float32 to its last bit, and shorter than hexadecimals
        texts = [f"{one:.9g}" for one in flat.tolist()]
        texts = [f"{one}f" if "." in one or "e" in one else f"{one}.0f" for one in texts]
    else:
        suffix = "u" if kind == "uint32_t" else ""
        texts = [f"{one}{suffix}" for one in flat.tolist()]
        if kind == "int32_t":
            texts = ["(-2147483647 - 1)" if one == "-2147483648" else one for one in texts]
    lines, line = [], "  "
    for one in texts:
        if len(line) + len(one) + 2 > WIDTH:
            lines.append(line.rstrip())
            line = "  "
        line += one + ", "
    lines.append(line.rstrip())
    head = f"{'static ' if static else ''}const {kind} {name}[{max(1, len(texts))}] = {{"
    return "\n".join([head, *lines, "};"])
